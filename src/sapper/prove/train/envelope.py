"""The envelope of correct runs: how far a run of the working precision may be from the truth, step by step.

For each thing that is watched (the loss, the outputs, each parameter's gradient and update) and each step, members of the
ensemble lie at distances ``d_m`` from the fp64 truth. A run leaves the envelope where its own distance exceeds

    allowed = factor * max(rms_m(d_m), BETWEEN[dtype] * d_reference)

``factor`` comes from the ensemble itself. For each member m, ``T_m = max(d_m / rms of the other members)`` over all things of a
group and all steps: how far the worst excursion of a run that is correct by construction goes when it is judged by the others.
The largest of many comparisons is thus taken over the same many comparisons as for the device, with their correlations and
tails (the max-T of Westfall and Young, "Resampling-Based Multiple Testing", 1993, section 2.3). Then

    factor = exp(mean(log T) + t * sd(log T) * sqrt(1 + 1/M))

is the upper prediction limit for one more run, with Student's t at level :data:`LEVEL` shared by the groups and the deviation
pooled over them; that of scalars and other small tensors, whose distances scatter more, over their own groups. ``BETWEEN`` is how
much farther from the truth other healthy stacks lie than the unperturbed reference does; the perturbed members are mostly farther
already, since their perturbation comes on top of the reference's own rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 1e-3
"""Share of correct stacks' whole runs that may leave the envelope."""
BETWEEN = {"fp32": 1.7, "bf16": 2.0, "fp16": 2.2}
"""Error of another healthy stack over the reference's own: 99th percentile of 367 outputs of a GPT step by another compiler."""
SMALL = 16
"""Elements up to which a tensor is judged among scalars: their distances scatter more than those of large ones."""
IS_SMALL = " (small)"
"""End of the name of a group of such tensors."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What correct runs do. Arrays are of steps x things."""

    allowed: Floats
    """Distance from the truth up to which a run is inside."""
    inner: Floats
    """The same by the members alone."""
    factors: dict[str, float]
    """By group."""
    members: int


def envelope(distances: Floats, reference: Floats, *, floor: Floats, groups: Sequence[str], dtype: str) -> Envelope:
    """The envelope of an ensemble.

    Args:
        distances: Members x steps x things.
        reference: Steps x things: the unperturbed run's distances.
        floor: Steps x things: a distance that rounding alone explains, where all members agree exactly.
        groups: Group of each thing.
        dtype: Working dtype, ``fp32``, ``bf16`` or ``fp16``.
    """
    members = distances.shape[0]
    squares = np.maximum(distances, floor) ** 2
    rms = np.sqrt(squares.mean(0))
    others = np.sqrt((squares.sum(0) - squares) / (members - 1))
    ratios = np.sqrt(squares) / others
    names = sorted(set(groups))
    logs = {name: np.log(ratios[:, :, [one == name for one in groups]].max(axis=(1, 2))) for name in names}
    factors: dict[str, float] = {}
    small = [name for name in names if name.endswith(IS_SMALL)]
    for asked, pooled in ((small, small), ([name for name in names if name not in small], names)):
        sd = math.sqrt(sum(float(np.var(logs[name], ddof=1)) for name in pooled) / max(1, len(pooled)))
        for name in asked:
            reach = student(LEVEL / len(names), len(pooled) * (members - 1)) * sd * math.sqrt(1 + 1 / members)
            factors[name] = math.exp(float(logs[name].mean()) + reach)
    scale = np.array([factors[name] for name in groups])
    return Envelope(
        allowed=scale * np.maximum(rms, BETWEEN[dtype] * reference), inner=scale * rms, factors=factors, members=members
    )  # fmt: skip


@functools.lru_cache
def student(level: float, freedom: int) -> float:
    """The value that Student's t with ``freedom`` degrees exceeds with probability ``level``, by bisection of its integral."""
    norm = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def above(t: float) -> float:
        # substituting x = sqrt(freedom) tan(a) makes the integral finite and smooth
        angles = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 2001)
        heights = np.cos(angles) ** (freedom - 1)
        area = float(heights[1:].sum() + heights[:-1].sum()) / 2 * float(angles[1] - angles[0])
        return norm * math.sqrt(freedom) * area

    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > level else (low, middle)
    return high
