"""Where in the program an op stands: module path and phase, in the backward pass by the forward op that it belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sapper.prove.model.result import Phase


class Tracker:
    """Follows modules through hooks, and gradients through autograd's sequence numbers."""

    def __init__(self) -> None:
        self.phase: Phase = "before"
        self._names: dict[int, str] = {}
        self._paths = [""]
        self._path_of: dict[int, str] = {}
        self._weights: dict[int, str] = {}

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """Follow the modules of a program."""
        self._names = {id(child): name for name, child in module.named_modules()}
        self._paths = [""]
        self._path_of = {}
        hooks = [
            torch.nn.modules.module.register_module_forward_pre_hook(self._enter),
            torch.nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins."""
        self.phase = phase
        self._paths = [""]
        self._weights = {storage_of(one): name for name, one in weights.items()}
        if phase == "optimizer":  # gradients tell which weight an op of the optimizer is for
            self._weights |= {storage_of(one.grad): name for name, one in weights.items() if one.grad is not None}
        if phase == "forward":
            self._path_of = {}

    def path(self, tensors: Sequence[Any]) -> str:
        """Qualified name of the module (or the weight) that the op which runs now belongs to; ``tensors`` are its arguments."""
        if self.phase == "backward":
            return self._backward()
        if self.phase == "optimizer":
            return next((self._weights[key] for one in tensors if (key := storage_of(one)) in self._weights), "")
        if self.phase == "forward":
            # autograd has numbered this op's node already; an op without one must not displace the node before it
            self._path_of.setdefault(torch.autograd._get_sequence_nr() - 1, self._paths[-1])
        return self._paths[-1]

    def _backward(self) -> str:
        node = torch._C._current_autograd_node()
        if node is None:
            return ""
        variable = getattr(node, "variable", None)
        if variable is not None:  # AccumulateGrad
            return self._weights.get(storage_of(variable), "")
        return self._path_of.get(node._sequence_nr(), "")

    def _enter(self, module: Any, inputs: Any) -> None:
        self._paths.append(self._names.get(id(module), self._paths[-1]))

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        if len(self._paths) > 1:
            self._paths.pop()


def storage_of(tensor: Any) -> int:
    """A number for the storage, unique while it lives."""
    key: int = tensor.untyped_storage()._cdata
    return key
