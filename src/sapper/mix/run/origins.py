"""Which layer made which tensor, also where autograd does not follow: whole numbers, masks, and what was detached.

A stage runs the module's whole ``forward`` with the blocks before it stood in for. What depends on the batch alone is computed there
once more; what a block or a weight had a part in is not there unless it was handed on. Each operation of the probing run is looked at:
its results are of the layer that runs if any of its arguments is of some layer, and what uses a tensor of an earlier layer that was
not handed on is noted, for as long as anything depends on it. What is written is written for all tensors that share its memory, and what
a block writes is the block's whatever it is made of, since where the block is stood in for nobody writes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import torch
from torch import nn

_SHAPE_ONLY = ("_like", "new_")
"""In names of operations that take only shape, dtype and device of a tensor."""
_READS = frozenset({"_local_scalar_dense", "is_nonzero", "equal"})
"""Operations that give Python a value."""


class _Mark(NamedTuple):
    """Which layer made or wrote something, and when: of two marks the greater one holds."""

    when: int
    layer: int | None


_NEVER = _Mark(-1, None)


class Late(NamedTuple):
    """Something of an earlier layer that was used in ``layer`` without having been handed on."""

    layer: int
    op: str
    node: Any
    """Of autograd, by which it may still be found to be left behind for later use; None: there is none, or it was cut off by being
    handed to a layer."""


class Origins(TorchDispatchMode):
    """Watches a run of ``module``; layers are numbered as in a plan, and the run begins in layer 0."""

    def __init__(self, module: nn.Module, *, layers: int) -> None:
        super().__init__()
        self.reads: list[Late] = []
        """Values that Python read, and that not every stage has which runs the same Python."""
        self.in_block = False
        """Whether a block runs, and not the module's own ``forward``."""
        self.touched: dict[str, set[int]] = {name: set() for name, _ in module.named_parameters()}
        """Weight -> layers in which an operation had it as an argument."""
        self._weights = {id(one): name for name, one in module.named_parameters()}
        self._layer, self._last, self._rests, self._now = 0, layers + 1, False, 0
        self._made: Any = WeakIdKeyDictionary()
        """Tensor -> its mark."""
        self._written: dict[StorageWeakRef, _Mark] = {}
        """Memory -> the mark of the last write."""
        self._late: Any = WeakIdKeyDictionary()
        """Tensor -> what it depends on that was used late."""
        self._written_late: dict[StorageWeakRef, dict[Late, None]] = {}
        """Memory -> the same of all that was written to it."""
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
        """Which layer made it, wrote it, or handed it on last; None: the batch and what is no weight alone."""
        if id(tensor) in self._weights:
            return self._layer
        own: _Mark = self._made.get(tensor, _NEVER)
        return max(own, self._written.get(_memory(tensor), _NEVER)).layer

    def made(self, tensors: Sequence[torch.Tensor], layer: int) -> None:
        """``layer`` returns these, whatever they are made of."""
        for one in tensors:
            self._made[one] = self._mark(layer)

    def spoil(self, tensor: torch.Tensor, layer: int) -> None:
        """``layer`` wrote to a copy of this one where a stage begins with it, so that nothing may use it later."""
        self._written_late.setdefault(_memory(tensor), {})[Late(layer, "copy_", None)] = None

    def enter(self, layer: int, handed: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """``layer`` begins, and gets these: each as it was, and as it goes on."""
        self._layer = layer
        for before, one in handed:
            self._handed |= self._late_of(before)
            if id(one) not in self._weights:
                self._made[one] = self._mark(layer)

    def _mark(self, layer: int) -> _Mark:
        self._now += 1
        return _Mark(self._now, layer)

    def _late_of(self, tensor: torch.Tensor) -> dict[Late, None]:
        return dict.fromkeys(self._late.get(tensor, ())) | self._written_late.get(_memory(tensor), {})

    def told(self, tensors: Any, op: str) -> None:
        """Python gets a value of these. Only the stage that computes it has it: a block's own Python may use it, and the end's."""
        for one in tree_leaves(tensors):
            if isinstance(one, torch.Tensor) and (layer := self.layer_of(one)) is not None:
                is_here = layer == self._layer and not self._late_of(one)
                if not is_here or not (self.in_block or self._layer == self._last):
                    self.reads.append(Late(self._layer, op, None))

    def late(self, value: torch.Tensor) -> list[Late]:
        """What was used late and ``value``, or anything that was handed on, depends on."""
        return list(self._handed | self._late_of(value))

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
                    late[Late(self._layer, name, None if self._is_stale(one) else one.grad_fn)] = None
            late |= self._late_of(one)
        if name in _READS:
            self.told(args, name)
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and is_made:
                if id(one) not in self._weights:
                    self._made[one] = self._mark(self._layer)
                if late:
                    self._late[one] = tuple(late)
        if is_made or self.in_block:
            for one in _written_by(func, args, kwargs or {}):
                if id(one) not in self._weights:
                    self._written[_memory(one)] = self._mark(self._layer)
                    self._written_late.setdefault(_memory(one), {}).update(late)
        return result

    def _is_stale(self, tensor: torch.Tensor) -> bool:
        """Whether it is a view of what was handed on since: autograd sees what arrives in it, its memory does not hold it."""
        base = tensor._base if tensor._is_view() else None
        return base is not None and self._made.get(base, _NEVER) > self._made.get(tensor, _NEVER)


class Lists(TorchFunctionMode):
    """Tells ``origins`` of values that Python gets without an operation."""

    def __init__(self, origins: Origins) -> None:
        super().__init__()
        self._origins = origins

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See :class:`TorchFunctionMode`."""
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__):
            self._origins.told(args[:1], func.__name__)
        return func(*args, **(kwargs or {}))


def _memory(tensor: torch.Tensor) -> StorageWeakRef:
    """By which tensors that share their memory are known."""
    return StorageWeakRef(tensor.untyped_storage())


def _written_by(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The arguments that an operation writes to, as its schema says."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from (one for one in tree_leaves(given) if isinstance(one, torch.Tensor))
