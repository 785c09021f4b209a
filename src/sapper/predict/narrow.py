"""Which one measurement would narrow the interval most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.estimate import Narrowing
from sapper.predict.fit import Fitted
from sapper.predict.prior import Subject

Z80 = 1.2816
MEASURED_SD = 0.05
"""Log scale: how well one careful measurement on the chip itself pins a constant (clock, shape and software still vary)."""
CANDIDATES = {
    "matmul": ("matmul", "low"),
    "attention": ("attention",),
    "memory-copy": ("memory",),
    "all-reduce": ("link",),
    "training-step": (
        "matmul", "low", "attention", "memory", "launch_s", "host_s", "link", "tensor_overlap", "data_overlap", "gather_overlap",
    ),
}
"""Measurement -> constants that it pins."""


def narrowing(
    fitted: Fitted,
    subject: Subject,
    *,
    slope: Floats,
    design: Floats,
    missing: Floats,
    candidates: Mapping[str, tuple[str, ...]] = CANDIDATES,
) -> Narrowing | None:
    """The single micro-measurement (not a whole training step) that narrows the step time's interval most.

    Args:
        fitted: The posterior.
        subject: Who computes.
        slope: C x 1 slopes of log(step time) over each constant's link scale.
        design: C x 1 x Q design of the subject.
        missing: F x 1 marks of unseen levels.
        candidates: Measurement -> constants that it pins.
    """
    names = fitted.book.constants
    # covariance of the constants themselves, C x C, unseen groups included
    cover = np.einsum("cq,qr,dr->cd", design[:, 0], fitted.covariance, design[:, 0])
    directions = fitted.book.unseen_directions() * missing
    cover = cover + directions.T @ directions
    gradient = slope[:, 0]
    now = _width(gradient, cover, fitted)
    best: tuple[float, str] | None = None
    for what, pinned in candidates.items():
        if what == "training-step":
            continue
        rows = [names.index(name) for name in pinned if abs(gradient[names.index(name)]) > 1e-9]
        if not rows:
            continue
        then = _width(gradient, _after(cover, rows), fitted)
        if best is None or then < best[0]:
            best = (then, what)
    if best is None or best[0] >= now:
        return None
    return Narrowing(what=best[1], width_now=now, width_then=best[0], command=f"sapper chips show {subject.chip}")


def _after(cover: Floats, rows: list[int]) -> Floats:
    """Covariance once the constants in ``rows`` were measured with MEASURED_SD (Gaussian conditioning)."""
    block = cover[np.ix_(rows, rows)] + MEASURED_SD**2 * np.eye(len(rows))
    gain = cover[:, rows] @ np.linalg.inv(block)
    return np.asarray(cover - gain @ cover[rows], float)


def _width(gradient: Floats, cover: Floats, fitted: Fitted) -> float:
    variance = float(gradient @ cover @ gradient) + fitted.noise_sd**2
    deviation = np.sqrt(max(variance, 0.0)) * fitted.widen
    return float(np.exp(2 * Z80 * deviation) - 1.0)
