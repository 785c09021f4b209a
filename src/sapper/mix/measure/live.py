"""Bytes of tensors that live at once: what a layer keeps for its backward pass, and what it takes beside that while it computes.

Counted from the operators that PyTorch dispatches, so that it is the same on any device, whatever its allocator reports.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.mix.run import tree


class Live(TorchDispatchMode):
    """Follows storages that operators make while it is entered; parameters and gradients from before are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int, int]] = {}
        self._layer = -1
        self._sizes: dict[int, int] = defaultdict(int)
        self.peak_bytes: dict[int, int] = defaultdict(int)
        """Layer -> most bytes at once of storages that were made in it."""
        self.saved_bytes: dict[int, int] = defaultdict(int)
        """Layer -> bytes that autograd keeps of it."""
        self._saved: dict[int, StorageWeakRef] = {}

    def enter(self, layer: int) -> None:
        """What follows belongs to ``layer``."""
        self._layer = layer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for _, one in tree.tensors(result):
            storage = one.untyped_storage()
            key = storage._cdata
            known = self._alive.get(key)
            if known is None or known[0].expired():
                self._forget(key)
                self._alive[key] = (StorageWeakRef(storage), self._layer, storage.nbytes())
                self._sizes[self._layer] += storage.nbytes()
        for key in [key for key, (reference, _, _) in self._alive.items() if reference.expired()]:
            self._forget(key)
        self.peak_bytes[self._layer] = max(self.peak_bytes[self._layer], self._sizes[self._layer])
        return result

    def _forget(self, key: int) -> None:
        known = self._alive.pop(key, None)
        if known is not None:
            self._sizes[known[1]] -= known[2]

    @contextlib.contextmanager
    def saving(self, weights: set[int]) -> Iterator[None]:
        """Counts what autograd saves; ``weights`` are storages that are there anyway."""

        def pack(one: torch.Tensor) -> torch.Tensor:
            storage = one.untyped_storage()
            key = storage._cdata
            if key not in weights and (key not in self._saved or self._saved[key].expired()):
                self._saved[key] = StorageWeakRef(storage)
                self.saved_bytes[self._layer] += storage.nbytes()
            return one

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            yield
