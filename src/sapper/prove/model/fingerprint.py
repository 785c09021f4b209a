"""Fingerprints: of each op's output its sum, the sum of its magnitudes and three random projections.

A projection on random signs moves by about the L2 norm of an error, wherever the error lies (Johnson and Lindenstrauss, 1984;
signs: Achlioptas, 2003), and a sum by a bias of all elements. The signs are the outer product of two short vectors, so that a
fingerprint reads its tensor twice and keeps no signs of its size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import torch
from sapper.prove.call import UNINITIALISED
from sapper.prove.model.activations import Activations
from sapper.prove.model.result import Phase
from sapper.prove.model.shadow import is_transparent
from sapper.prove.model.tracker import Tracker
from sapper.prove.reference import UNIT_ROUNDOFF

WIDTH = 64
"""Elements of a row, which share their signs from row to row but for the row's own."""
PROJECTIONS = 3
LENGTH = 2 + PROJECTIONS
"""Numbers of a fingerprint: sum, sum of magnitudes, projections."""
_SEED = 20030701


class Projector:
    """Makes fingerprints where the tensors lie, always with the same signs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._columns = torch.cat(
            [torch.ones(WIDTH, 1), torch.randint(0, 2, (WIDTH, PROJECTIONS), generator=generator) * 2.0 - 1], dim=1
        )
        self._rows = torch.cat(
            [torch.ones(1 << 12, 1), torch.randint(0, 2, (1 << 12, PROJECTIONS), generator=generator) * 2.0 - 1], dim=1
        )
        self._known: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The fingerprint of a floating tensor, in fp32 (fp64 of an fp64 one)."""
        dtype = torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1).to(dtype)
        columns, rows = self._signs(flat.device, dtype)
        whole = flat.numel() // WIDTH * WIDTH
        sums = flat.new_zeros(1 + PROJECTIONS)
        if whole:
            count = whole // WIDTH
            product = flat[:whole].view(count, WIDTH) @ columns
            period = rows.shape[0]
            for start in range(0, count, period):
                part = product[start : start + period]
                sums = sums + (part * rows[: part.shape[0]]).sum(0)
        if whole < flat.numel():
            rest = flat[whole:]
            sums = sums + rest @ columns[: rest.numel()]
        return torch.cat([sums[:1], torch.linalg.vector_norm(flat, 1).reshape(1), sums[1:]])

    def _signs(self, device: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        key = device, dtype
        if key not in self._known:
            self._known[key] = self._columns.to(device, dtype), self._rows.to(device, dtype)
        return self._known[key]


@dataclass(kw_only=True)
class Prints:
    """Fingerprints of one run, in the order in which they were made."""

    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    """By name: ``forward:PATH:aten::mm:0#2`` (output 0 of the third such op there), ``layer forward:PATH``, or a label of the step."""

    def on_host(self) -> dict[str, list[float]]:
        """The numbers."""
        return {name: [float(one) for one in row.double().cpu()] for name, row in self.rows.items()}


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
        self._layers = Activations(self._taken)
        self._seen: dict[str, int] = {}

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """In force together with tracker and hooks on modules."""
        with self._tracker.watching(module), self._layers.watching(module), self:
            yield

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins; after the last, layers take their places among the rows."""
        self._tracker.begin(phase, weights)
        self._layers.begin(phase, weights)
        if phase == "after":
            self.prints.rows |= {f"layer {name}": one for name, one in self._layers.tensors().items()}

    def values(self, labels: tuple[str, ...], outputs: list[torch.Tensor]) -> None:
        """Add the step's own outputs."""
        for label, one in zip(labels, outputs, strict=True):
            if one.dtype in UNIT_ROUNDOFF and one.numel():
                self.prints.rows[label] = self._projector.of(one.detach())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        phase = self._tracker.phase
        if phase not in ("forward", "backward"):  # the optimizer's many small ops are seen in the weights that they update
            return out
        if is_transparent(func):
            if phase == "forward":
                self._tracker.path([])
            return out
        given = [one for one in tree_leaves((args, kwargs or {})) if isinstance(one, torch.Tensor)]
        path = self._tracker.path(given)
        name = func.name()
        if name.partition("::")[2].partition(".")[0] in UNINITIALISED or not given:
            return out
        made = [out] if isinstance(out, torch.Tensor) else [one for one in tree_leaves(out) if isinstance(one, torch.Tensor)]
        counted = False
        for at, one in enumerate(made):
            if one.dtype in UNIT_ROUNDOFF and one.numel() and one.device.type == self._device:
                key = f"{phase}:{path}:{name}:{at}"
                self._seen[key] = number = self._seen.get(key, -1) + 1
                self.prints.rows[f"{key}#{number}"] = self._taken(one)
                counted = True
        self.ops += counted
        return out

    def _taken(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._projector.of(tensor.cpu() if self._on_host else tensor)
