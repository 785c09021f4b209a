"""Fingerprints: of each op's output its sum, its length and three random projections.

A projection on random signs moves by about the L2 norm of an error, wherever the error lies (Johnson and Lindenstrauss, 1984;
signs: Achlioptas, 2003), and a sum by a bias of all elements. The signs are the outer product of two shorter vectors: a product with a
matrix of four rows reads the tensor once, and what it leaves, a sixteenth as much, gives the rest. The length is that of all random sums
of 64 elements, whose mean square is the square of the L2 norm.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import torch
from sapper.backends.trees import tensors_in
from sapper.prove.call import UNINITIALISED
from sapper.prove.model.activations import Activations
from sapper.prove.model.result import Phase
from sapper.prove.model.shadow import is_transparent
from sapper.prove.model.tracker import Tracker, storage_of
from sapper.prove.reference import UNIT_ROUNDOFF

ROWS = 64
"""A tensor is looked at as so many rows; each row has signs of its own, and so has each column. Of 8 to 128 the quickest: the product takes
the same, what it leaves is less."""
PROJECTIONS = 3
LENGTH = 2 + PROJECTIONS
"""Numbers of a fingerprint: sum, length, projections."""
_SEED = 20030701
_PERIOD = 1 << 16
"""Columns after which signs repeat."""
_SMALL = 1 << 12
"""Elements up to which each has signs of its own."""
_MOST_RECENT = 64
"""Fingerprints that are remembered for the modules which hand their tensors on."""


class Projector:
    """Makes fingerprints where the tensors lie, always with the same signs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._rows, self._columns = (
            torch.cat([torch.ones(1, length), torch.randint(0, 2, (PROJECTIONS, length), generator=generator) * 2.0 - 1])
            for length in (ROWS, _PERIOD)
        )
        self._known: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a floating tensor its sum, its projections and the square of its length, in fp32 (fp64 of an fp64 one)."""
        dtype = torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1).to(dtype)
        rows, columns = self._signs(flat.device, dtype)
        size = flat.numel()
        rest = size % ROWS if size > _SMALL else size
        sums, squares = [], []
        if rest or not size:
            few = flat[size - rest :]
            sums.append(columns[:, :rest].mv(few))
            squares.append(torch.dot(few, few))
        matrix = (flat[: size - rest] if rest else flat).view(ROWS, -1)
        for at in range(0, matrix.shape[1], _PERIOD):
            added = rows.mm(matrix[:, at : at + _PERIOD])
            sums.append(torch.linalg.vecdot(added, columns[:, : added.shape[1]]))
            projected = added[1:].view(-1)
            squares.append(torch.dot(projected, projected).div_(PROJECTIONS))
        return torch.cat([sum(sums[1:], sums[0]), sum(squares[1:], squares[0]).view(1)])

    def _signs(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        key = device, dtype
        if key not in self._known:
            self._known[key] = self._rows.to(device, dtype), self._columns.to(device, dtype)
        return self._known[key]


@dataclass(kw_only=True)
class Prints:
    """Fingerprints of one run, in the order in which they were made."""

    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    """By name: ``forward:PATH:aten::mm:0#2`` (output 0 of the third such op there), ``layer forward:PATH``, or a label of the step; what
    :class:`Projector` makes of each."""

    def on_host(self) -> dict[str, list[float]]:
        """The fingerprints: of each row sum, length, projections."""
        found = {}
        for name, row in self.rows.items():
            first, *projections, square = row.double().cpu().tolist()
            found[name] = [first, math.sqrt(square) if square >= 0 else math.nan, *projections]
        return found


class Fingerprints(TorchDispatchMode):
    """A dispatch mode and watch that takes the fingerprint of each floating output of each op that computes.

    Args:
        device: Type of the device under test.
        on_host: Whether tensors are copied to the host first, because the device's sums are not to be trusted (or it has none).
    """

    def __init__(self, *, device: str, on_host: bool) -> None:
        super().__init__()
        self.prints = Prints()
        self.ops = 0
        self._device, self._on_host = device, on_host
        self._tracker = Tracker()
        self._projector = Projector()
        self._layers = Activations(self._of_layer)
        self._entered = False
        self._seen: dict[str, int] = {}
        self._recent: dict[Any, tuple[int, StorageWeakRef, torch.Tensor]] = {}
        """Version, storage and fingerprint of tensors by place and form; a freed storage may give its address to another."""

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """In force together with tracker and hooks on modules; the mode itself only where it looks."""
        with self._tracker.watching(module), self._layers.watching(module):
            try:
                yield
            finally:
                self._look(False)

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins; after the last, layers take their places among the rows.

        The optimizer's many small ops are seen in the weights that they update, and run without the mode.
        """
        self._look(phase in ("forward", "backward"))
        self._tracker.begin(phase, weights)
        self._layers.begin(phase, weights)
        if phase == "after":
            self.prints.rows |= {f"layer {name}": one for name, one in self._layers.tensors().items()}

    def _look(self, wanted: bool) -> None:
        """Enter or leave the mode, which is the innermost one while a step runs."""
        if wanted != self._entered:
            self._entered = wanted
            if wanted:
                self.__enter__()
            else:
                self.__exit__(None, None, None)

    def values(self, labels: tuple[str, ...], outputs: list[torch.Tensor]) -> None:
        """Add the step's own outputs."""
        for label, one in zip(labels, outputs, strict=True):
            if one.dtype in UNIT_ROUNDOFF and one.numel():
                self.prints.rows[label] = self._projector.of(one.detach())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        phase = self._tracker.phase
        if is_transparent(func):
            if phase == "forward":
                self._tracker.path(())
            return out
        path = self._tracker.path(())  # forward and backward need no arguments for it
        name = func.name()
        if _is_uninitialised(func) or not tensors_in((args, kwargs or {})):
            return out
        counted = False
        for at, one in enumerate(tensors_in(out)):
            if one.dtype in UNIT_ROUNDOFF and one.numel() and one.device.type == self._device:
                key = f"{phase}:{path}:{name}:{at}"
                self._seen[key] = number = self._seen.get(key, -1) + 1
                self.prints.rows[f"{key}#{number}"] = self._taken(one)
                counted = True
        self.ops += counted
        return out

    def _of_layer(self, tensor: torch.Tensor) -> torch.Tensor:
        known = self._known(tensor)
        if known is not None:
            return known
        with _disable_current_modes(), torch.no_grad():
            return self._taken(tensor.detach())

    def _taken(self, tensor: torch.Tensor) -> torch.Tensor:
        row = self._projector.of(tensor.cpu() if self._on_host else tensor)
        if tensor.is_inference():  # has no version that would tell of later writes
            return row
        self._recent[_place(tensor)] = tensor._version, StorageWeakRef(tensor.untyped_storage()), row
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        return row

    def _known(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The fingerprint of an op's output, for the module that hands it on."""
        if tensor.is_inference():
            return None
        version, storage, row = self._recent.get(_place(tensor), (-1, None, None))
        return row if version == tensor._version and storage is not None and not storage.expired() else None


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return storage_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


@functools.cache
def _is_uninitialised(func: Any) -> bool:
    return func.name().partition("::")[2].partition(".")[0] in UNINITIALISED
