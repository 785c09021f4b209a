"""A training step as a function of tensors: forward, backward and optimizer, the same on the device and in the reference."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_flatten, tree_unflatten

import torch
from sapper.backends.computation import Computation
from sapper.programs.opened import Opened
from sapper.programs.program import DTYPES
from sapper.prove.model.result import Phase
from sapper.prove.noise import Noise

LEARNING_RATE = 1e-3
"""Of the AdamW step. Its first step moves each weight by about this much whatever the gradient, so it is judged by itself."""


class Watch(Protocol):
    """What follows a step as it runs."""

    def watching(self, module: Any) -> contextlib.AbstractContextManager[None]:
        """In force while the step runs; ``module`` is the program's."""

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins; ``weights`` are those of the run, by name, where they lie."""


class Unwatched:
    """Follows nothing."""

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """Nothing is in force."""
        yield

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """Nothing to note."""


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """One or more steps of a program from its weights on."""

    opened: Opened
    steps: int = 1
    functional: bool = False
    """Whether the update is a formula instead of ``torch.optim``'s changes in place, so that the whole step is one graph."""

    @functools.cached_property
    def noise(self) -> Noise:
        """What the program draws, the same on every stack; a graph of the whole step draws for itself."""
        return Noise(self.opened.seed, dtype=DTYPES.get(self.opened.dtype))

    @property
    def names(self) -> tuple[str, ...]:
        """Of weights and buffers, in the order of the tensors."""
        return tuple(name for name, _ in self._state())

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the weights that get gradients."""
        return tuple(name for name, one in self.opened.program.module.named_parameters() if one.requires_grad)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the outputs: losses, gradients of the last step, updated weights, buffers."""
        losses = ["loss"] if self.steps == 1 else [f"loss of step {at + 1}" for at in range(self.steps)]
        updated = [f"updated {name}" for name in self.trained]
        buffers = [f"buffer {name}" for name, _ in self.opened.program.module.named_buffers()]
        return (*losses, *(f"grad of {name}" for name in self.trained), *updated, *buffers)

    def computation(self, watch: Watch | None = None) -> Computation:
        """As every backend runs it: weights, buffers and inputs in, what :attr:`labels` names out."""
        leaves, form = tree_flatten(self.opened.program.inputs)
        where = [at for at, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        state = [one for _, one in self._state()]

        def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = list(leaves)
            for at, tensor in zip(where, tensors[len(state) :], strict=True):
                given[at] = tensor
            return self._run(tensors[: len(state)], tree_unflatten(given, form), watch or Unwatched())

        tensors = (*(one.detach() for one in state), *(leaves[at].detach() for at in where))
        return Computation(name=self.opened.program.name or "step", fn=fn, tensors=tensors, labels=self.labels)

    def _state(self) -> list[tuple[str, Any]]:
        module = self.opened.program.module
        return [*module.named_parameters(), *module.named_buffers()]

    def _run(self, state: Sequence[torch.Tensor], inputs: Any, watch: Watch) -> tuple[torch.Tensor, ...]:
        trained = set(self.trained)
        # A formula changes no weight; a norm may change its buffers.
        keep = trained if self.functional else set()
        held = {name: one.detach() if name in keep else one.detach().clone() for name, one in zip(self.names, state, strict=True)}
        weights = {name: one.requires_grad_() for name, one in held.items() if name in trained}
        module = self.opened.program.module
        program = dataclasses.replace(self.opened.program, inputs=inputs)
        optimizer = _Formula(list(weights.values())) if self.functional else torch.optim.AdamW(list(weights.values()), lr=LEARNING_RATE)
        losses = []
        drawing = contextlib.nullcontext() if self.functional else self.noise
        with torch.enable_grad(), drawing, watch.watching(module), _reparametrize_module(module, held, tie_weights=True):
            for at in range(self.steps):
                self.noise.begin(at)
                for one in weights.values():
                    one.grad = None
                watch.begin("forward", weights)
                loss = program.loss_of(program.call())
                watch.begin("backward", weights)
                loss.backward()
                losses.append(loss.detach())
                watch.begin("optimizer", weights)
                optimizer.step()
        watch.begin("after", weights)
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights.values()]
        updated = optimizer.updated if isinstance(optimizer, _Formula) else [one.detach() for one in weights.values()]
        buffers = [held[name] for name, _ in module.named_buffers()]
        return (*losses, *grads, *updated, *buffers)


class _Formula:
    """The first step of AdamW (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2) as a formula, with PyTorch's defaults.

    Of the first step alone, both running means are the gradient and its square once their bias is taken out.
    """

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self.updated: list[torch.Tensor] = []
        self._weights = weights

    def step(self) -> None:
        """Compute the updated weights; the weights stay as they are."""
        defaults = torch.optim.AdamW([torch.zeros(1)]).defaults
        (beta1, beta2), decay, eps = defaults["betas"], defaults["weight_decay"], defaults["eps"]
        with torch.no_grad():
            for weight in self._weights:
                if weight.grad is None:
                    self.updated.append(weight.detach())
                    continue
                mean, square = weight.grad * (1 - beta1), weight.grad * weight.grad * (1 - beta2)
                denominator = square.sqrt() / (1 - beta2) ** 0.5 + eps
                decayed = weight * (1 - LEARNING_RATE * decay)
                self.updated.append(decayed - mean / denominator * (LEARNING_RATE / (1 - beta1)))
