"""Training by a stack that takes whole graphs: forward and backward as one, the optimizer as another, weights kept on the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from sapper.backends import Backend, Executable
from sapper.backends.computation import Computation
from sapper.programs.program import Program
from sapper.prove.noise import Noise
from sapper.prove.train.trainers import BETAS, EPS, LOSS_SCALE, MOMENTUM, WEIGHT_DECAY, Optimizer, Shadow, Step, tree_cast
from sapper.prove.whole import whole


class Graphs:
    """Trains with a backend's compiled graphs.

    Args:
        program: Module, inputs and loss; cast in place.
        backend: Compiles.
        dtype: Working dtype.
        noise: With dropout off.
    """

    def __init__(
        self, program: Program, backend: Backend, dtype: torch.dtype, *, noise: Noise, optimizer: Optimizer, lr: float
    ) -> None:  # fmt: skip
        self._backend, self._dtype, self._noise, self._name, self._lr = backend, dtype, noise, optimizer, lr
        self._scale = LOSS_SCALE if dtype == torch.float16 else 1.0
        module = program.module.train()
        self._masters = {name: one.detach().float() for name, one in module.named_parameters()}
        module.to(dtype)
        cast = dataclasses.replace(program, inputs=tree_cast(program.inputs, torch.device("cpu"), dtype))
        with noise:
            self._whole = whole(cast, name="training step")
        self._buffers = {name: one.detach().clone() for name, one in module.named_buffers()}
        taught = self._whole.taught
        zeros = {name: torch.zeros_like(self._masters[name]) for name in taught}
        self._moments = [zeros, {name: one.clone() for name, one in zeros.items()}][: 2 if optimizer == "adamw" else 1]
        self._taken = 0
        self._shadow = Shadow(optimizer, lr)
        self._step: Executable | None = None
        self._update: Executable | None = None

    def step(self, inputs: Any) -> Step:
        """One step on a batch of the CPU."""
        placed = tree_cast(inputs, torch.device("cpu"), self._dtype)
        rounded = [one.to(self._dtype) for one in self._masters.values()]
        tensors = (*self._whole.tensors(rounded, list(self._buffers.values()), placed), torch.tensor(self._scale))
        with self._noise:  # it may be traced when it is first called
            if self._step is None:
                self._step = self._backend.prepare(dataclasses.replace(self._whole.computation, tensors=tensors))
            got = dict(zip(self._whole.computation.labels, self._step(tensors), strict=True))
        gradients = {name: got[f"grad {name}"].float() / self._scale for name in self._whole.taught}
        before = {name: self._masters[name] for name in self._whole.taught}
        self._optimize(gradients)
        self._buffers = {name: got[f"buffer {name}"] for name in self._buffers}
        outputs = [one for label, one in got.items() if label.startswith("output ") and one.is_floating_point()]
        return Step(
            loss=got["loss"], outputs=outputs, gradients={**gradients}, expected=self._shadow.expected(before, {**gradients}),
            updates={name: self._masters[name].double() - one.double() for name, one in before.items()},
            lengths={name: float(one.double().norm()) for name, one in before.items()},
            buffers={name: one for name, one in self._buffers.items() if one.is_floating_point()},
        )  # fmt: skip

    def _optimize(self, gradients: dict[str, torch.Tensor]) -> None:
        taught = self._whole.taught
        self._taken += 1
        corrections = [1 - beta**self._taken for beta in BETAS] if self._name == "adamw" else []
        tensors = [self._masters[name] for name in taught] + [gradients[name] for name in taught]
        tensors += [one[name] for one in self._moments for name in taught] + [torch.tensor(one) for one in corrections]
        count = len(taught)
        if self._update is None:
            rule = _adamw if self._name == "adamw" else _sgd
            labels = tuple(f"value {at}" for at in range(count * (1 + len(self._moments))))
            fn = _by_parameter(rule, count, len(self._moments), self._lr)
            self._update = self._backend.prepare(Computation(name=self._name, fn=fn, tensors=tuple(tensors), labels=labels))
        found = self._update(tensors)
        self._masters |= dict(zip(taught, found[:count], strict=True))
        self._moments = [
            dict(zip(taught, found[count * (at + 1) : count * (at + 2)], strict=True)) for at in range(len(self._moments))
        ]  # fmt: skip

    def where(self) -> dict[str, Any]:
        """Evidence of the last step."""
        parts = [one.executed() for one in (self._step, self._update) if one is not None]
        if not parts or any(one is None for one in parts):
            return {}
        known = [one for one in parts if one is not None]
        counts = [one.ops for one in known]
        return {
            "device": known[0].where, "executed": True, "ops": None if None in counts else sum(one or 0 for one in counts),
            "fallbacks": sorted({op for one in known for op in one.fallbacks}),
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        own = {"moments": self._moments, "taken": self._taken}
        return {"weights": self._masters, "buffers": self._buffers, "optimizer": own, "shadow": self._shadow.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._masters = {name: one.float() for name, one in state["weights"].items()}
        self._buffers = {
            name: one.to(self._dtype) if one.is_floating_point() else one for name, one in state["buffers"].items()
        }  # fmt: skip
        if state["optimizer"] is not None:
            self._moments, self._taken = list(state["optimizer"]["moments"]), int(state["optimizer"]["taken"])
            self._shadow.load(state["shadow"], {name: self._masters[name] for name in self._whole.taught})


def _by_parameter(rule: Any, count: int, moments: int, lr: float) -> Any:
    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = tensors[count * (2 + moments) :]
        rows = [rule(*tensors[at : count * (2 + moments) : count], *rest, lr=lr) for at in range(count)]
        return tuple(row[at] for at in range(1 + moments) for row in rows)

    return fn


def _adamw(
    weight: torch.Tensor, grad: torch.Tensor, first: torch.Tensor, second: torch.Tensor, correct_first: torch.Tensor,
    correct_second: torch.Tensor, *, lr: float,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, in the order of PyTorch's ``_single_tensor_adamw``."""
    first = first * BETAS[0] + grad * (1 - BETAS[0])
    second = second * BETAS[1] + grad * grad * (1 - BETAS[1])
    denominator = second.sqrt() / correct_second.sqrt() + EPS
    return weight * (1 - lr * WEIGHT_DECAY) - lr / correct_first * (first / denominator), first, second


def _sgd(weight: torch.Tensor, grad: torch.Tensor, moment: torch.Tensor, *, lr: float) -> tuple[torch.Tensor, ...]:
    """Momentum as PyTorch has it: the first step's is the gradient, which zeros give too."""
    moment = moment * MOMENTUM + grad
    return weight - lr * moment, moment
