"""Fingerprints: of each op's output its sum, its length and three random projections.

A projection on random signs moves by about the L2 norm of an error, wherever the error lies (Johnson and Lindenstrauss, 1984;
signs: Achlioptas, 2003), and a sum by a bias of all elements. The signs are the outer product of two shorter vectors: a product with a
matrix of three rows reads the tensor once, in the order in which it lies, and what it leaves, a hundredth as much or less, gives the rest.
The length is that of the random sums of rows, whose mean square is the square of the L2 norm.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
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
from sapper.prove.model.tracker import Tracker
from sapper.prove.reference import UNIT_ROUNDOFF

COLUMNS = (256, 1024)
"""A tensor of more than few elements is looked at as rows of so many, the second from :data:`_LARGE` elements on; each row has a sign of
its own, and so has each column. BLAS libraries read rows of neighbours at more than twice the pace at which they read columns that lie
far apart, and the longer the rows are, the less is left to do after them."""
PROJECTIONS = 3
LENGTH = 2 + PROJECTIONS
"""Numbers of a fingerprint: sum, length, projections."""
_SEED = 20030701
_PERIOD = 1 << 16
"""Rows after which signs repeat."""
_SMALL, _LARGE = 1 << 13, 1 << 17
"""Elements up to which each has signs of its own; and from which rows are long."""
_BLOCK = 1 << 17
"""Elements at a time: what the sum has read is still in the core's cache when the product with the signs reads it again, which takes
half as long so."""
_WORTH_KNOWING = 1 << 14
"""Elements from which a fingerprint is remembered: of fewer it is made anew as quickly."""
_MOST_RECENT = 64
"""Fingerprints that are remembered for the modules which hand their tensors on."""


Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A fingerprint where it was made: sum, square of the length, projections."""


class Projector:
    """Makes fingerprints where the tensors lie, always with the same signs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._columns, self._rows = (
            torch.randint(0, 2, (PROJECTIONS, length), generator=generator) * 2.0 - 1 for length in (max(COLUMNS), _PERIOD)
        )
        self._known: dict[Any, torch.Tensor] = {}

    def of(self, tensor: torch.Tensor) -> Row:
        """Of a floating tensor its sum, the square of its length, and its projections, in fp32 (fp64 of an fp64 one)."""
        dtype = torch.float64 if tensor.dtype in _WIDEST else torch.float32
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
        if flat.dtype is not dtype:
            flat = flat.to(dtype)
        size = flat.numel()
        if size <= _SMALL:
            return flat.sum(), torch.dot(flat, flat), self._signs(flat, size).mv(flat)
        width = COLUMNS[size >= _LARGE]
        columns, total = self._signs(flat, width, columns=True), size // width * width
        parts, sums = [], []
        for at in range(0, total, _BLOCK):
            part = flat[at : min(at + _BLOCK, total)] if total > _BLOCK or total < size else flat
            sums.append(part.sum())
            parts.append(columns.mm(part.view(-1, width).t()))
        projected = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        found = [self._of_rows(projected[:, at : at + _PERIOD]) for at in range(0, projected.shape[1], _PERIOD)]
        if total < size:
            few = flat[total:]
            sums.append(few.sum())
            found.append((torch.dot(few, few), self._signs(flat, len(few)).mv(few)))
        return (_added(sums), *(_added(parts) for parts in zip(*found, strict=True)))

    def _of_rows(self, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Square of the length and projections, from those of rows."""
        each = projected.reshape(-1)
        return torch.dot(each, each).div_(PROJECTIONS), torch.linalg.vecdot(projected, self._signs(projected, projected.shape[1]))

    def _signs(self, like: torch.Tensor, length: int, *, columns: bool = False) -> torch.Tensor:
        """Those of so many rows (or of the columns), in dtype and on device of ``like``."""
        key = like.device, like.dtype, length, columns
        found = self._known.get(key)
        if found is None:
            whole = self._columns if columns else self._rows
            if length == whole.shape[1]:
                found = whole.to(like.device, like.dtype)
            else:
                found = self._signs(like, whole.shape[1], columns=columns)[:, :length]
            self._known[key] = found
        return found


def _added(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


_WIDEST = frozenset({torch.float64, torch.complex128})


@dataclass(kw_only=True)
class Prints:
    """Fingerprints of one run, in the order in which they were made."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By name: ``forward:PATH:aten::mm:0#2`` (output 0 of the third such op there), ``layer forward:PATH``, or a label of the step; what
    :class:`Projector` makes of each."""

    def on_host(self) -> dict[str, list[float]]:
        """The fingerprints: of each row sum, length, projections."""
        found = {}
        for name, (total, square, projections) in self.rows.items():
            squared = float(square)
            found[name] = [float(total), math.sqrt(squared) if squared >= 0 else math.nan, *projections.double().cpu().tolist()]
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
        self._recent: dict[Any, tuple[int, StorageWeakRef, Row]] = {}
        """Version, storage and fingerprint of large tensors by place and form; a freed storage may give its address to another."""

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
        out = func(*args, **kwargs) if kwargs else func(*args)
        phase, look = self._tracker.phase, _looked_at(func)
        if look is None:
            if phase == "forward":
                self._tracker.path(())
            return out
        path = self._tracker.path(())  # forward and backward need no arguments for it
        if not look or not _takes_tensor(args, kwargs):
            return out
        made = (out,) if isinstance(out, torch.Tensor) else tensors_in(out)
        counted = False
        for at, one in enumerate(made):
            if one.dtype in UNIT_ROUNDOFF and one.device.type == self._device and one.numel():
                key = f"{phase}:{path}:{look}:{at}"
                self._seen[key] = number = self._seen.get(key, -1) + 1
                self.prints.rows[f"{key}#{number}"] = self._taken(one)
                counted = True
        self.ops += counted
        return out

    def _of_layer(self, tensor: torch.Tensor) -> Row:
        known = self._known(tensor)
        if known is not None:
            return known
        with _disable_current_modes(), torch.no_grad():
            return self._taken(tensor.detach())

    def _taken(self, tensor: torch.Tensor) -> Row:
        row = self._projector.of(tensor.cpu() if self._on_host else tensor)
        if tensor.numel() < _WORTH_KNOWING or tensor.is_inference():  # the latter has no version that would tell of later writes
            return row
        storage = tensor.untyped_storage()
        self._recent[_place(tensor, storage)] = tensor._version, StorageWeakRef(storage), row
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        return row

    def _known(self, tensor: torch.Tensor) -> Row | None:
        """The fingerprint of an op's output, for the module that hands it on."""
        if tensor.numel() < _WORTH_KNOWING or tensor.is_inference():
            return None
        version, storage, row = self._recent.get(_place(tensor, tensor.untyped_storage()), (-1, None, None))
        return row if version == tensor._version and storage is not None and not storage.expired() else None


def _place(tensor: torch.Tensor, storage: Any) -> tuple[Any, ...]:
    """Where values lie in which order: of a view that only counts them otherwise (what ``Linear`` makes of a product) the same."""
    form = (tensor.numel(),) if tensor.is_contiguous() else (tensor.shape, tensor.stride())
    return storage._cdata, tensor.storage_offset(), tensor.dtype, *form


@functools.cache
def _looked_at(func: Any) -> str | None:
    """The name of an op whose outputs have fingerprints; None where it computes nothing, empty where its outputs are not written."""
    if is_transparent(func):
        return None
    name: str = func.name()
    return "" if name.partition("::")[2].partition(".")[0] in UNINITIALISED else name


def _takes_tensor(args: Any, kwargs: Any) -> bool:
    """Whether an op is given any tensor."""
    for one in args:  # most have one first: no need to walk through all
        if isinstance(one, torch.Tensor):
            return True
    return bool(tensors_in((args, kwargs or {})))
