"""Modules and tensors that have shapes and no values: programs are built and traced on them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torch import nn

Convert = Callable[[Any], Any]


@contextlib.contextmanager
def without_data() -> Iterator[FakeTensorMode]:
    """Tensors made inside have shapes and no values; modules made of them convert as others do (``.to``, ``.float``)."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _CONVERSIONS:
        yield mode


class _Conversions:
    """Lets ``nn.Module`` convert parameters without data.

    PyTorch 2.13 swaps such a parameter with the converted one (``torch.utils.swap_tensors``), which it refuses for tensors that have
    weak references, and fake ones do. Here the converted one takes its place in the module instead, the same one wherever a module of
    the tree holds it.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0
        self._plain = nn.Module._apply
        self._made = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._plain, conversions = nn.Module._apply, self

                def apply(module: nn.Module, fn: Convert, recurse: bool = True) -> nn.Module:
                    return conversions.convert(module, fn, recurse=recurse)

                nn.Module._apply = apply

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                nn.Module._apply = self._plain

    def convert(self, module: nn.Module, fn: Convert, *, recurse: bool) -> nn.Module:
        """What ``nn.Module._apply`` does; children by their own ``_apply``, which some modules (recurrent ones) extend."""
        outermost = not hasattr(self._made, "by_id")
        if outermost:
            self._made.by_id = {}
        try:
            if recurse:
                for child in module.children():
                    child._apply(fn)
            own = {name: one for name, one in module._parameters.items() if isinstance(one, FakeTensor)}
            module._parameters.update(dict.fromkeys(own))  # what is left is PyTorch's own work
            try:
                self._plain(module, fn, recurse=False)
            finally:
                module._parameters.update(own)
            for name, one in own.items():
                module._parameters[name] = self._converted(one, fn)
        finally:
            if outermost:
                del self._made.by_id
        return module

    def _converted(self, parameter: nn.Parameter, fn: Convert) -> nn.Parameter:
        made: dict[int, tuple[nn.Parameter, nn.Parameter]] = self._made.by_id
        if id(parameter) not in made:
            found = fn(parameter.data)
            same = found.dtype == parameter.dtype and found.device == parameter.device
            one = parameter if same else nn.Parameter(found, requires_grad=parameter.requires_grad)
            made[id(parameter)] = (parameter, one)
            made[id(one)] = (one, one)  # a tied weight that another module has been given already
        return made[id(parameter)][1]


_CONVERSIONS = _Conversions()
