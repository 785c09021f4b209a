"""Gradients of one seat summed with those of the others that hold the same weights, and the optimizer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sapper.mix.run.comm import Comm, Done, Pending
from sapper.mix.run.exchange import Group, hand_on
from sapper.mix.run.holders import buckets
from sapper.mix.run.job import Job
from sapper.mix.run.scattered import Scattered
from sapper.mix.run.spans import Span
from sapper.mix.run.zero import Shared

BUCKET_BYTES = 25 * 2**20
"""Of gradients in one message, as PyTorch's own data parallelism has it."""


class Update:
    """Sums gradients and takes optimizer steps.

    Args:
        job: Says which optimizer.
        weights: By name, in the working dtype: where gradients appear.
        masters: The same as the optimizer holds them.
        parts: What this rank has of them, and who has it too.
        shared: Who of those takes the optimizer's step of which.
        scattered: Gathers gradients of the weights that this rank owns, and has no other; None: gradients of all weights are here.
        tensor: The tensor parallel group; None: no weight is cut.
        comm: To them.
        wire: Dtype of gradients on the way between groups; None: as they are.
        foreign: Ranks of other groups than one's own.
    """

    def __init__(
        self, job: Job, weights: Mapping[str, torch.Tensor], masters: Mapping[str, torch.Tensor], *, parts: Mapping[str, Span],
        shared: Shared, scattered: Scattered | None, tensor: Group | None,
        comm: Comm, groups: Mapping[int, str], wire: str | None,
    ) -> None:  # fmt: skip
        self._weights, self._masters, self._parts, self._comm, self._wire = dict(weights), dict(masters), parts, comm, wire
        self._groups, self._shared, self._scattered, self._tensor = groups, shared, scattered, tensor
        self._here = list(masters) if scattered is None else list(shared.own)
        """Weights whose gradients are here when the passes are over."""
        self._parts_of: dict[str, list[str]] = {name: [] for name in masters}
        for name, part in parts.items():
            self._parts_of[part.weight].append(name)
        # backward passes reach the last weights first
        mine = {name: part for name, part in reversed(list(parts.items())) if comm.rank in part.members}
        sizes = {name: part.of(masters[part.weight]).numel() * masters[part.weight].element_size() for name, part in mine.items()}
        self._buckets = buckets(sizes, {name: part.members for name, part in mine.items()}, bytes_at_most=BUCKET_BYTES)
        self.optimizer = optimizer_of(job, [masters[name] for name in shared.own])
        self._armed = False
        self._ready: set[str] = set()
        self._under_way: list[tuple[Pending, torch.Tensor]] = []
        """The first buckets, as far as they are on their way."""
        for name, weight in self._weights.items():
            if weight is not self._masters[name]:
                weight.register_post_accumulate_grad_hook(self._widen(self._masters[name]))
            weight.register_post_accumulate_grad_hook(functools.partial(self._arrived, name))

    @property
    def sets(self) -> list[tuple[int, ...]]:
        """Members that sum gradients together, this one among them."""
        return sorted({members for members, _ in self._buckets if len(members) > 1})

    def _widen(self, master: torch.Tensor) -> Any:
        """Adds up gradients of micro-batches in the dtype of the optimizer."""

        def hook(weight: torch.Tensor) -> None:
            assert weight.grad is not None
            wide = weight.grad.to(master.dtype)
            master.grad = wide if master.grad is None else master.grad + wide
            weight.grad = None

        return hook

    def clear(self) -> None:
        """Forget gradients, of a step that is done or was interrupted."""
        self._armed = False
        self._ready.clear()
        self._under_way.clear()
        for one in (*self._weights.values(), *self._masters.values()):
            one.grad = None

    def arm(self) -> None:
        """The backward pass that follows is the last of the step: buckets leave as soon as they are full of it."""
        self._armed = self._scattered is None

    def _arrived(self, name: str, _: torch.Tensor) -> None:
        if self._armed:
            self._ready.update(self._parts_of[name])
            while len(self._under_way) < len(self._buckets) and self._ready.issuperset(self._buckets[len(self._under_way)][1]):
                self._launch()

    def _launch(self) -> None:
        """Begin to sum the next bucket. They leave in one order, so that no two members wait for each other's."""
        members, names = self._buckets[len(self._under_way)]
        if len(members) == 1:
            self._under_way.append((Done(), torch.empty(0)))
            return
        flat = torch.cat([self._grad(name).reshape(-1) for name in names])
        foreign = len({self._groups.get(rank) for rank in members}) > 1
        self._under_way.append((self._comm.reduce(flat, members=members, wire=self._wire if foreign else None), flat))

    def reduce(self) -> None:
        """Sum gradients over their holders: what is not on its way yet, then wait for all.

        Raises:
            WireError: A holder is gone or silent.
        """
        self._armed = False
        if self._scattered is not None:
            self._scattered.finish()
        for one in map(self._masters.__getitem__, self._here):
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        while len(self._under_way) < len(self._buckets):
            self._launch()
        for (pending, flat), (_, names) in zip(self._under_way, self._buckets, strict=True):
            pending.wait()
            at = 0
            for name in names if len(flat) else ():
                grad = self._grad(name)
                grad.copy_(flat[at : at + grad.numel()].view_as(grad))
                at += grad.numel()
        if self._tensor is not None:
            whole = [name for name, part in self._parts.items() if part.dim is None and part.weight in self._here]
            hand_on([self._grad(name) for name in whole], self._tensor, root=0)

    def squares(self) -> float:
        """Sum of squares of the gradients that this rank answers for: each part is counted by its first holder."""
        own = [self._grad(name) for name, part in self._parts.items() if part.members[0] == self._comm.rank]
        return float(sum(float(one.double().square().sum()) for one in own))

    def apply(self, *, scale: float, lr: float) -> None:
        """Take the optimizer's step with gradients times ``scale``."""
        for one in self._masters.values():
            if one.grad is not None and scale != 1.0:
                one.grad.mul_(scale)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self._shared.spread()
        self.clear()

    def _grad(self, name: str) -> torch.Tensor:
        part = self._parts[name]
        grad = self._masters[part.weight].grad
        assert grad is not None
        return part.of(grad)


def optimizer_of(job: Job, parameters: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
    """PyTorch's own."""
    if not parameters:
        parameters = [torch.zeros(0)]
    if job.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=job.lr, betas=job.betas, eps=job.eps, weight_decay=job.weight_decay, foreach=False)
    return torch.optim.SGD(parameters, lr=job.lr, momentum=job.momentum, foreach=False)
