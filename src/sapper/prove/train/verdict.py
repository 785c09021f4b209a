"""From the journals of all runs to the proof: who left the envelope first, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sapper.prove.train.envelope import IS_SMALL, SMALL, Envelope, Floats, envelope
from sapper.prove.train.result import Departure, Manner, Phase, Row

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")
_OF = {"output": "forward", "loss": "forward", "buffer": "forward", "grad": "backward", "update": "optimizer", "direction": "optimizer"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run's journal as arrays of steps x things; what is not finite is NaN."""

    loss: Floats
    norm: Floats
    held: Floats
    """Norms of the parameters that updates are added to; 0 for other things. Of the truth alone."""
    distance: Floats
    scale: Floats
    across: Floats
    angle: Floats
    first: dict[str, Any]
    """The line of step 0: names, sizes, order."""
    wall_s: float

    def __len__(self) -> int:
        return len(self.loss)


def read(path: Path) -> Run | None:
    """A run as far as it came; None where it has no whole step."""
    lines = [msgspec.json.decode(line) for line in path.read_bytes().split(b"\n")[1:] if line] if path.exists() else []
    if not lines:
        return None

    def array(key: str) -> Floats:
        return np.array([line.get(key, []) for line in lines], dtype=np.float64)

    wall_s = sum(line["wall_s"] for line in lines)
    return Run(
        loss=array("loss"), norm=array("norm"), held=array("held"), distance=array("distance"), scale=array("scale"),
        across=array("across"), angle=array("angle"), first=lines[0], wall_s=wall_s,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the runs say together."""

    rows: tuple[Row, ...]
    departures: tuple[Departure, ...]
    peer_ratio: float
    factors: dict[str, float]
    ends: int | None
    """The first step on which the reference itself is not finite."""


def judged(device: Run, *, truth: Run, peer: Run, members: Sequence[Run], dtype: str) -> Judged:
    """Hold the device against the envelope, as far as both went."""
    names: list[str] = truth.first["names"]
    ends = _ends([truth, peer, *members])
    whole = len(truth) if ends is None else ends
    steps = min(len(device), whole)
    if not steps:
        return Judged(rows=(), departures=(), peer_ratio=0.0, factors={}, ends=ends)
    limits = envelope(
        np.stack([one.distance[:whole] for one in members]), peer.distance[:whole], groups=_groups(names, truth.first["sizes"]),
        floor=_floor(truth, np.array(truth.first["roundoffs"]), names)[:whole], dtype=dtype,
    )  # fmt: skip
    ratio = device.distance[:steps] / limits.allowed[:steps]
    departures = _departures(ratio, truth, device, limits, names)
    rows = tuple(_row(at, truth, peer, members, device, limits, ratio, names) for at in range(steps))
    at_peer = float((peer.distance[:whole] / limits.inner).max())
    return Judged(rows=rows, departures=departures, peer_ratio=at_peer, factors=limits.factors, ends=ends)


def _ends(runs: Sequence[Run]) -> int | None:
    """The first step that some run of the reference does not finish with finite numbers."""
    steps = min(len(one) for one in runs)
    bad = [at for at in range(steps) if any(not np.isfinite(one.norm[at]).all() for one in runs)]
    return bad[0] if bad else None


def _floor(truth: Run, roundoff: Floats, names: Sequence[str]) -> Floats:
    """Distances that the rounding of the results alone explains; below the scale of their kind by its square, zero is zero.

    What an optimizer writes is the parameter: its rounding, not that of the smaller update, is in the update that is measured.
    """
    norm = truth.norm
    kinds = np.array([name.split(" ")[0] for name in names])
    held = truth.held if truth.held.size else np.zeros_like(norm)  # of a run that an earlier version began
    floor: Floats = roundoff * np.nan_to_num(np.maximum(norm, held))
    for kind in set(kinds):
        here = kinds == kind
        floor[:, here] = np.maximum(floor[:, here], (roundoff[here] ** 2) * np.nan_to_num(norm[:, here]).max())
    return np.maximum(floor, float(np.finfo(np.float32).tiny))


def _groups(names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Things whose distances scatter alike: by kind, scalars and other small tensors apart."""
    return [f"{name.split(' ')[0]}{IS_SMALL if size < SMALL else ''}" for name, size in zip(names, sizes, strict=True)]


def _departures(ratio: Floats, truth: Run, device: Run, limits: Envelope, names: Sequence[str]) -> tuple[Departure, ...]:
    """Things that left, in the order of steps, of a step's phases, and within the backward pass from the loss backwards."""
    place = {f"grad {name}": at for at, name in enumerate(truth.first["order"])}
    place |= {f"update {name}": at for at, name in enumerate(truth.first["order"])}
    found = []
    for at, name in enumerate(names):
        outside = np.flatnonzero(~(ratio[:, at] <= 1.0))
        if outside.size:
            found.append(_departure(int(outside[0]), at, name, ratio, device, limits))
    last = len(names)
    return tuple(sorted(found, key=lambda one: (one.step, PHASES.index(one.phase), place.get(one.thing, last))))


def _departure(
    step: int, at: int, name: str, ratio: Floats, device: Run, limits: Envelope
) -> Departure:  # fmt: skip
    finite = ratio[:, at][np.isfinite(ratio[:, at])]
    manner: Manner
    if not np.isfinite(device.norm[step, at]):
        manner = "nan"
    elif device.norm[step, at] == 0.0:
        manner = "lost"
    elif name.split(" ")[0] not in ("grad", "update", "direction"):
        manner = "apart"
    elif device.across[step, at] <= limits.allowed[step, at]:
        manner = "scaled"
    else:
        manner = "turned"
    return Departure(
        step=step, phase=_phase(name), thing=name, manner=manner, ratio=_number(ratio[step, at]),
        worst_ratio=float(finite.max()) if finite.size else None, scale=_number(device.scale[step, at]),
        angle_rad=_number(device.angle[step, at]),
    )  # fmt: skip


def _row(
    at: int, truth: Run, peer: Run, members: Sequence[Run], device: Run, limits: Envelope, ratio: Floats, names: Sequence[str]
) -> Row:  # fmt: skip
    loss = names.index("loss")
    phases = np.array([_phase(name) for name in names])
    grads = [index for index, name in enumerate(names) if name.startswith("grad ")]
    direction = names.index("direction")
    worst = max(grads, key=lambda index: _badness(ratio[at, index]))
    theirs = math.sqrt(sum(float(one.angle[at, direction]) ** 2 for one in members) / len(members))
    return Row(
        step=at, loss=_number(device.loss[at]), loss_truth=_number(truth.loss[at]), loss_peer=_number(peer.loss[at]),
        loss_allowed=float(limits.allowed[at, loss]), gradient=names[worst][5:],
        forward_ratio=_number(ratio[at, phases == "forward"].max()), backward_ratio=_number(ratio[at, phases == "backward"].max()),
        optimizer_ratio=_number(ratio[at, phases == "optimizer"].max()),
        gradient_norm=_number(np.sqrt((device.norm[at, grads] ** 2).sum())),
        gradient_norm_truth=_number(np.sqrt((truth.norm[at, grads] ** 2).sum())),
        angle_rad=_number(device.angle[at, direction]), angle_rms_rad=theirs,
    )  # fmt: skip


def _badness(value: float) -> float:
    return value if np.isfinite(value) else math.inf


def _phase(name: str) -> Phase:
    return _OF[name.split(" ")[0]]  # type: ignore[return-value]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
