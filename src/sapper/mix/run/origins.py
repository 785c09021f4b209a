"""Which layer made which tensor, also where autograd does not follow: whole numbers, masks, and what was detached.

A stage runs the module's whole ``forward`` with the blocks before it stood in for. What depends on the batch alone is computed there
once more; what a block or a weight had a part in is not there unless it was handed on. Each operation of the probing run is looked at:
its results are of the layer that runs if any of its arguments is of some layer, and what uses a tensor of an earlier layer that was
not handed on is noted, for as long as anything depends on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import torch
from torch import nn

_SHAPE_ONLY = ("_like", "new_")
"""In names of operations that take only shape, dtype and device of a tensor."""


class Late(NamedTuple):
    """Something of an earlier layer that was used in ``layer`` without having been handed on."""

    layer: int
    op: str
    node: Any
    """Of autograd, by which it may still be found to be left behind for later use; None: there is none, or it was cut off by being
    handed to a layer."""


class Origins(TorchDispatchMode):
    """Watches a run of ``module``; layers are numbered as in a plan, and the run begins in layer 0."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.touched: dict[str, set[int]] = {name: set() for name, _ in module.named_parameters()}
        """Weight -> layers in which an operation had it as an argument."""
        self._weights = {id(one): name for name, one in module.named_parameters()}
        self._layer, self._rests = 0, False
        self._made: Any = WeakIdKeyDictionary()
        """Tensor -> layer."""
        self._late: Any = WeakIdKeyDictionary()
        """Tensor -> what it depends on that was used late."""
        self._handed: dict[Late, None] = {}
        """What anything that was handed on depends on."""

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Operations inside are none of the module's."""
        before, self._rests = self._rests, True
        try:
            yield
        finally:
            self._rests = before

    def layer_of(self, tensor: torch.Tensor) -> int | None:
        """Which layer made it, or handed it on last; None: the batch and what is no weight alone."""
        if id(tensor) in self._weights:
            return self._layer
        return self._made.get(tensor)  # type: ignore[no-any-return]

    def made(self, tensors: Sequence[torch.Tensor], layer: int) -> None:
        """``layer`` returns these, whatever they are made of."""
        for one in tensors:
            self._made[one] = layer

    def enter(self, layer: int, handed: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """``layer`` begins, and gets these: each as it was, and as it goes on."""
        self._layer = layer
        for before, one in handed:
            for late in self._late.get(before, ()):
                self._handed[late] = None
            if id(one) not in self._weights:
                self._made[one] = layer

    def late(self, value: torch.Tensor) -> list[Late]:
        """What was used late and ``value``, or anything that was handed on, depends on."""
        return list(dict.fromkeys([*self._handed, *self._late.get(value, ())]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See :class:`TorchDispatchMode`."""
        result = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket.__name__)
        if self._rests or any(part in name for part in _SHAPE_ONLY):
            return result
        late: dict[Late, None] = {}
        is_made = False
        for one in tree_leaves((args, kwargs)):
            if not isinstance(one, torch.Tensor):
                continue
            if id(one) in self._weights:
                self.touched[self._weights[id(one)]].add(self._layer)
            layer = self.layer_of(one)
            if layer is not None:
                is_made = True
                if layer < self._layer:
                    late[Late(self._layer, name, one.grad_fn)] = None
            late |= dict.fromkeys(self._late.get(one, ()))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and is_made:
                if id(one) not in self._weights:
                    self._made[one] = self._layer
                if late:
                    self._late[one] = tuple(late)
        return result
