"""Which one measurement would narrow the interval most, and whether it halves it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.estimate import Narrowing
from sapper.predict.fit import Fitted

MEASURED_SD = 0.05
"""Log scale: how well one careful measurement on the chip itself pins a constant (clock, shape and software still vary)."""
CANDIDATES = {
    "matmul": ("matmul", "low"),
    "attention": ("attention",),
    "memory-copy": ("memory",),
    "all-reduce": ("link",),
    "launch": ("dispatch_s", "launch_s"),
}
"""Micro-measurement -> constants that it pins."""
PROBE, CALIBRATE = "sapper probe --emit probe.py", "sapper calibrate --from runs.jsonl"
"""What takes a micro-measurement, and what takes a run of one's own."""


def narrowing(
    fitted: Fitted,
    *,
    slope: Floats,
    design: Floats,
    missing: Floats,
    candidates: Mapping[str, tuple[str, ...]] = CANDIDATES,
    run: str | None = None,
) -> Narrowing | None:
    """The cheapest single measurement that halves the step time's interval: a micro-measurement, else a training run; where
    neither does, the one that narrows it most.

    Args:
        fitted: The posterior.
        slope: C x 1 slopes of log(step time) over each constant's link scale.
        design: C x 1 x Q design of the subject.
        missing: F x 1 marks of unseen levels.
        candidates: Micro-measurement -> constants that it pins.
        run: What a run of one's own is called; None: only micro-measurements are compared.
    """
    # covariance of the constants themselves, C x C, unseen groups included
    cover = design[:, 0] @ fitted.covariance @ design[:, 0].T
    directions = fitted.book.unseen_directions() * missing
    cover, gradient = cover + directions.T @ directions, slope[:, 0]
    doubt = float(gradient @ cover @ gradient)
    now = _width(doubt, fitted)
    found = [(_width(left, fitted), what, PROBE) for what, left in _micro(gradient, cover, fitted, candidates).items()]
    best = min(found, default=None)
    if run is not None and (best is None or _halves(best[0], now) > 1.0):
        # a run measures the very step, with the noise of one
        after = _width(doubt * fitted.noise_sd**2 / (doubt + fitted.noise_sd**2), fitted)
        best = min(((after, run, CALIBRATE), *found), key=lambda one: one[0])
    if best is None or best[0] >= now:
        return None
    return Narrowing(what=best[1], width_now=now, width_then=best[0], command=best[2])


def _halves(then: float, now: float) -> float:
    """Half width on the log scale after over half of that before: at most 1 where the interval is halved."""
    return 2.0 * math.log1p(then) / math.log1p(now)


def _micro(gradient: Floats, cover: Floats, fitted: Fitted, candidates: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Micro-measurement -> variance of the log step time that is left."""
    names = fitted.book.constants
    left = {}
    for what, pinned in candidates.items():
        rows = [names.index(name) for name in pinned if abs(gradient[names.index(name)]) > 1e-9]
        if rows:
            left[what] = float(gradient @ _after(cover, rows) @ gradient)
    return left


def _after(cover: Floats, rows: list[int]) -> Floats:
    """Covariance once the constants in ``rows`` were measured with MEASURED_SD (Gaussian conditioning)."""
    block = cover[np.ix_(rows, rows)] + MEASURED_SD**2 * np.eye(len(rows))
    gain = cover[:, rows] @ np.linalg.inv(block)
    return np.asarray(cover - gain @ cover[rows], float)


def _width(variance: float, fitted: Fitted) -> float:
    deviation = math.sqrt(max(variance, 0.0) + fitted.noise_sd**2) * fitted.widen
    return math.expm1(2.0 * fitted.factor() * deviation)
