"""One training step after another: on the CPU in any precision, on a device by PyTorch's own means, or as graphs for a compiler.

All of them hold their weights in fp32 (fp64 in the truth). Where the working dtype is lower, the module's weights are copies
rounded to it, as mixed-precision training keeps them (Micikevicius et al., arXiv:1710.03740, section 3.1), and in fp16 the loss
is multiplied by :data:`LOSS_SCALE` before it is differentiated (section 3.2).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from sapper.prove.noise import Noise
from sapper.prove.reference import Widened

Optimizer = Literal["adamw", "sgd"]
LOSS_SCALE = 1024.0
MOMENTUM = 0.9
"""Of SGD."""
BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01
"""Of AdamW: PyTorch's defaults."""


@dataclass(kw_only=True)
class Step:
    """What one training step did; tensors on the CPU."""

    loss: torch.Tensor
    outputs: list[torch.Tensor]
    """Floating tensors that the module returned."""
    gradients: dict[str, torch.Tensor | None]
    """By parameter, not scaled; None where autograd gave none."""
    updates: dict[str, torch.Tensor]
    """By parameter: its value after the step less that before."""
    lengths: dict[str, float]
    """By parameter: its own Euclidean norm before the step, of which the rounding of the new value is a share."""
    expected: dict[str, torch.Tensor]
    """By parameter: the update that these very gradients call for, in fp64."""
    buffers: dict[str, torch.Tensor]
    """Floating buffers after the step: running statistics."""
    order: list[str] = field(default_factory=list)
    """Parameters as their gradients were ready: from the loss backwards."""


class Trainer(Protocol):
    """Holds weights and optimizer state, and takes steps."""

    def step(self, inputs: Any) -> Step:
        """One step on a batch of the CPU."""

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, on the CPU."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""

    def where(self) -> dict[str, Any]:
        """Evidence of where the last step ran."""


def optimizer_of(name: Optimizer, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
    """PyTorch's own, with its defaults."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    return torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)


class Shadow:
    """The optimizer in fp64 on the CPU, fed with the gradients that a run really had: what each step should have done."""

    def __init__(self, name: Optimizer, lr: float) -> None:
        self._name: Optimizer = name
        self._lr = lr
        self._weights: dict[str, torch.Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    def expected(self, before: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """Updates by parameter, from the values before the step and the gradients."""
        if self._optimizer is None:
            self._weights = {name: one.double() for name, one in before.items()}
            self._optimizer = optimizer_of(self._name, list(self._weights.values()), self._lr)
        for name, weight in self._weights.items():
            weight.copy_(before[name].double())
            grad = gradients[name]
            weight.grad = None if grad is None else (grad.to_dense() if grad.layout != torch.strided else grad).double()
        self._optimizer.step()
        return {name: one - before[name].double() for name, one in self._weights.items()}

    def state(self) -> Any:
        """What :meth:`load` takes; None before the first step."""
        return None if self._optimizer is None else tree_cpu(self._optimizer.state_dict())

    def load(self, state: Any, weights: dict[str, torch.Tensor]) -> None:
        """Go on from a state, with ``weights`` for their shapes."""
        if state is not None:
            self._weights = {name: one.double() for name, one in weights.items()}
            self._optimizer = optimizer_of(self._name, list(self._weights.values()), self._lr)
            self._optimizer.load_state_dict(state)


class Eager:
    """Trains a module where its tensors lie, one op after the other.

    Args:
        program: Module, inputs and loss; the module is moved and cast in place.
        device: Where it trains.
        dtype: Working dtype.
        truth: Compute in fp64 on weights rounded to ``dtype``.
        modes: Further contexts around each step, such as :class:`~sapper.prove.train.perturb.Perturbed`.
    """

    def __init__(
        self, program: Any, device: torch.device, dtype: torch.dtype, *, noise: Noise, optimizer: Optimizer, lr: float, truth: bool = False,
        modes: Sequence[Callable[[], contextlib.AbstractContextManager[Any]]] = (),
    ) -> None:  # fmt: skip
        self._program, self._device, self._dtype, self._noise, self._truth = program, device, dtype, noise, truth
        self._contexts = [*modes, *([Widened] if truth else [])]
        self._computed = torch.float64 if truth else dtype
        keep = torch.float64 if truth else torch.float32
        self._scale = LOSS_SCALE if dtype == torch.float16 else 1.0
        module = program.module.train()
        start = {name: one.detach().to(keep) for name, one in module.named_parameters()}
        module.to(device=device, dtype=self._computed)
        self._weights = dict(module.named_parameters())
        self._masters = {
            name: one if self._own(one) else start[name].to(device).requires_grad_(one.requires_grad)
            for name, one in self._weights.items()
        }  # fmt: skip
        self._round()
        self._taught = {name: one for name, one in self._masters.items() if one.requires_grad}
        self._optimizer = optimizer_of(optimizer, list(self._taught.values()), lr)
        self._shadow = Shadow(optimizer, lr)
        self._ran_on: torch.device | None = None
        self._order: list[str] = []
        for name, one in self._weights.items():
            if one.requires_grad:
                one.register_post_accumulate_grad_hook(lambda _, name=name: self._order.append(name))

    @contextlib.contextmanager
    def _modes(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context())
            yield

    def _own(self, weight: torch.Tensor) -> bool:
        """Whether the module's weight is the one that the optimizer holds."""
        return self._dtype == torch.float32 or not weight.is_floating_point()

    def step(self, inputs: Any) -> Step:
        """One step on a batch of the CPU."""
        self._order.clear()
        before = {name: one.detach().cpu().clone() for name, one in self._taught.items()}
        for one in (*self._weights.values(), *self._masters.values()):
            one.grad = None
        program = dataclasses.replace(self._program, inputs=tree_cast(inputs, self._device, self._computed))
        with self._modes():
            with self._noise:
                output = program.call()
                loss = program.loss_of(output)
                (loss * self._scale if self._scale != 1.0 else loss).backward()
            for name, master in self._taught.items():
                grad = self._weights[name].grad
                if grad is not None and not self._own(self._weights[name]):
                    master.grad = grad.to(master.dtype) / self._scale
            self._optimizer.step()
        self._round()
        self._ran_on = loss.device
        gradients = {name: None if one.grad is None else one.grad.detach().cpu().clone() for name, one in self._taught.items()}
        return Step(
            loss=loss.detach().cpu(), outputs=[one.detach().cpu() for one in floats_in(output)], gradients=gradients,
            updates={name: one.detach().cpu().double() - before[name].double() for name, one in self._taught.items()},
            expected=self._shadow.expected(before, gradients),
            lengths={name: float(one.double().norm()) for name, one in before.items()},
            buffers={name: one.detach().cpu().clone() for name, one in self._program.module.named_buffers() if one.is_floating_point()},
            order=list(self._order),
        )  # fmt: skip

    def where(self) -> dict[str, Any]:
        """Evidence of where the last step ran."""
        return {"device": str(self._ran_on)}

    @torch.no_grad()
    def _round(self) -> None:
        """The module's weights from those that the optimizer holds."""
        for name, weight in self._weights.items():
            if self._masters[name] is not weight:
                weight.copy_(self._masters[name].to(self._dtype).to(self._computed))

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, on the CPU."""
        buffers = {name: one.detach().cpu().clone() for name, one in self._program.module.named_buffers()}
        masters = {name: one.detach().cpu().clone() for name, one in self._masters.items()}
        return {"weights": masters, "buffers": buffers, "optimizer": tree_cpu(self._optimizer.state_dict()), "shadow": self._shadow.state()}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state["weights"].items():
            self._masters[name].copy_(value.to(self._masters[name].dtype))
        for name, one in self._program.module.named_buffers():
            one.copy_(state["buffers"][name])
        self._round()
        if state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])
            self._shadow.load(state["shadow"], {name: one.detach().cpu() for name, one in self._taught.items()})


def tree_cast(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Nested inputs on ``device``, floating ones in ``dtype``."""
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, dict):
        return {key: tree_cast(item, device, dtype) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(tree_cast(item, device, dtype) for item in value)
    return value


def tree_cpu(value: Any) -> Any:
    """Nested tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: tree_cpu(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(tree_cpu(item) for item in value)
    return value


def floats_in(value: Any) -> list[torch.Tensor]:
    """Floating tensors in nested outputs, the largest structures first found first."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() or value.is_complex() else []
    if isinstance(value, dict) or (hasattr(value, "values") and callable(value.values)):
        return [one for item in value.values() for one in floats_in(item)]
    if isinstance(value, (tuple, list)):
        return [one for item in value for one in floats_in(item)]
    return []
