"""What flows between the modules of a free run: their outputs, and the gradients of these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

import torch
from sapper.prove.model.result import Phase


class Activations:
    """A watch that keeps, for each module of a step, the first floating tensor of its output and the gradient of that.

    A module that runs more than once is kept the first time.
    """

    def __init__(self, keep: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        """Args:
        keep: What is kept of a tensor; a copy on the host where None, made unseen by other modes.
        """
        self._keep = keep or _copied
        self.forward: dict[str, torch.Tensor] = {}
        """By qualified name; ``""`` is the whole module."""
        self.backward: dict[str, torch.Tensor] = {}
        self.order: list[str] = []
        """Names as the modules end."""
        self._names: dict[int, str] = {}
        self._on = False

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """Follow the modules of a program."""
        self._names = {id(child): name for name, child in module.named_modules()}
        hook = torch.nn.modules.module.register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            hook.remove()

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """Outputs are those of the forward pass, without what is recomputed later."""
        self._on = phase == "forward" and not self.order

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them under names of their own, to be stored."""
        return {f"{phase}:{name}": one for phase in ("forward", "backward") for name, one in getattr(self, phase).items()}

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        name = self._names.get(id(module))
        leaves = tree_leaves(dict(output) if hasattr(output, "keys") else output)
        floating = [one for one in leaves if isinstance(one, torch.Tensor) and one.is_floating_point() and not _is_transformed(one)]
        if not self._on or name is None or name in self.forward or not floating:
            return
        self.forward[name] = self._keep(floating[0])
        self.order.append(name)
        if floating[0].requires_grad:
            floating[0].register_hook(lambda grad: self._gradient(name, grad))

    def _gradient(self, name: str, grad: torch.Tensor) -> None:
        if name not in self.backward:
            self.backward[name] = self._keep(grad)


class Watches:
    """Several watches as one, the first outermost."""

    def __init__(self, *watches: Any) -> None:
        self._watches = watches

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """All in force."""
        with contextlib.ExitStack() as stack:
            for one in self._watches:
                stack.enter_context(one.watching(module))
            yield

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """To each."""
        for one in self._watches:
            one.begin(phase, weights)


def _is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of a level of `torch.func` (`vmap`, `jacrev`), outside of which it has no values."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    with _disable_current_modes(), torch.no_grad():
        return tensor.detach().to("cpu", copy=True)
