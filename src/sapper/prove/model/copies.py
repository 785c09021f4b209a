"""Copies of the device's tensors on the host: each tensor crosses once, and views of it not at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_map

import torch
from sapper.backends.trees import tensors_in
from sapper.prove.model.tracker import storage_of
from sapper.prove.stored import laid_out

MOST_BYTES = 1 << 30
"""Of copies held at a time; the oldest go first."""


@dataclass(frozen=True)
class _Held:
    storage: Any
    """Weak: a storage that is freed gives its address to another."""
    version: int
    copy: torch.Tensor


class Copies:
    """By storage and geometry."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Any, ...], _Held] = OrderedDict()
        self._by_storage: dict[int, set[tuple[Any, ...]]] = {}
        self._size_bytes = 0

    def on_host(self, value: Any, tensors: Sequence[torch.Tensor] | None = None) -> Any:
        """The same tree with its tensors (``tensors`` where they are known) on the host; those that are there already as they are."""
        if all(leaf.device.type == "cpu" for leaf in (tensors_in(value) if tensors is None else tensors)):
            return value
        return tree_map(lambda leaf: self._one(leaf) if isinstance(leaf, torch.Tensor) else leaf, value)

    def forget(self, changed: list[Any]) -> None:
        """These tensors, with all that shares their storage, have changed."""
        if not self._held:
            return
        for one in changed:
            if isinstance(one, torch.Tensor) and one.device.type != "cpu":
                for key in self._by_storage.pop(storage_of(one), ()):
                    self._drop(key)

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """A view was taken: where its base has a copy, the copy's view is the view's copy."""
        if not isinstance(out, torch.Tensor) or out.device.type == "cpu" or not args or not isinstance(args[0], torch.Tensor):
            return
        held = self._found(args[0])
        if held is None or storage_of(out) != storage_of(args[0]):
            return
        view = func(held.copy, *args[1:], **kwargs)
        marked = view.is_conj() or view.is_neg()  # not plain values: copied when somebody asks for them
        if view.shape == out.shape and view.dtype == out.dtype and not marked:
            self._keep(out, view, owned=False)

    def _one(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "cpu":
            return tensor
        held = self._found(tensor)
        if held is not None:
            return held.copy
        copy = laid_out(tensor)
        self._keep(tensor, copy, owned=True)
        return copy

    def _found(self, tensor: torch.Tensor) -> _Held | None:
        key = _key(tensor)
        held = self._held.get(key)
        if held is None or held.storage.expired() or held.version != tensor._version:
            return None
        self._held.move_to_end(key)
        return held

    def _keep(self, tensor: torch.Tensor, copy: torch.Tensor, *, owned: bool) -> None:
        key = _key(tensor)
        self._drop(key)
        self._held[key] = _Held(StorageWeakRef(tensor.untyped_storage()), tensor._version, copy)
        self._by_storage.setdefault(key[0], set()).add(key)
        self._size_bytes += copy.untyped_storage().nbytes()
        while self._size_bytes > MOST_BYTES and len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def _drop(self, key: tuple[Any, ...]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._size_bytes -= held.copy.untyped_storage().nbytes()


def _key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Of what a tensor says that its memory means: a lazy conjugate is another tensor in the same place."""
    form = storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
    return (*form, tensor.is_conj(), tensor.is_neg())
