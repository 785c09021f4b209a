"""What a step says of a chip's speed, from the times of its micro-batches: its parts, its hiccups, and how sure they are.

A step in which a chip slows down is measured in part at the old speed, and its mean is the speed of neither part. So the times of a
step are told in two parts: before and after its greatest shift where that is beyond chance, else the first half and the second.
The test is the maximum of the two-sample statistic over all places, with a noise that a shift does not enter (D. M. Hawkins, Testing a
sequence of observations for a shift in location, J. Am. Stat. Assoc. 72, 1977; noise from differences of neighbours: J. von Neumann,
Ann. Math. Stat. 12, 1941). Single micro-batches that are far slower than all others are told apart: in one step they say little of the
next.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sapper.mix.balance.smooth import SD_OF_MEDIAN

_BEYOND_CHANCE = 4.0
"""Without a shift the statistic's maximum over the places exceeds it in 1 of 120 steps of 60 normal times and in 1 of 40 of 12, as their
noise is not known but taken from them (simulated, 12,000 and 20,000 steps): such a step is told in two parts of unlike length, no more."""
_LEAST = 3
"""Micro-batches of a part that a shift may cut off: one or two slow ones are a hiccup."""
_HICCUP = 5.0
"""Standard deviations above the median."""
_RARE = 8
"""One micro-batch of so many may be a hiccup: more of them are how the chip runs, under a quota for instance."""
_LONGEST = 2
"""Hiccups in a row."""


@dataclass(frozen=True)
class Passes:
    """The micro-batches of one chip in one step."""

    parts_s: tuple[float, ...]
    """Mean times of the two parts of the step, in their order, without hiccups; one where there was one micro-batch, none where none."""
    error: float = 0.0
    """Standard error of the logarithm of their mean; 0: too few to say."""
    hiccups: float = 0.0
    """What hiccups add to the mean, as a share of it."""


def parts_of(passes_s: Sequence[float]) -> Passes:
    """What a step says.

    Args:
        passes_s: Times of its micro-batches in their order, greater than 0.
    """
    if len(passes_s) < 2:
        return Passes(tuple(passes_s))
    logs = [math.log(one) for one in passes_s]
    noise = SD_OF_MEDIAN * statistics.median(abs(b - a) for a, b in itertools.pairwise(logs))
    far = _hiccups(logs, noise)
    kept = [one for at, one in enumerate(passes_s) if at not in far]
    at = _shift([one for k, one in enumerate(logs) if k not in far], noise) or len(kept) // 2
    return Passes(
        parts_s=(statistics.fmean(kept[:at]), statistics.fmean(kept[at:])), error=noise / math.sqrt(len(kept)),
        hiccups=statistics.fmean(passes_s) / statistics.fmean(kept) - 1.0,
    )  # fmt: skip


def _hiccups(logs: Sequence[float], noise: float) -> set[int]:
    """Places of micro-batches that are far slower than all others, few and not many in a row."""
    limit = statistics.median(logs) + _HICCUP * noise
    far = [at for at, one in enumerate(logs) if one > limit]
    runs = (sum(1 for _ in run) for slow, run in itertools.groupby(one > limit for one in logs) if slow)
    return set(far) if len(far) * _RARE <= len(logs) and max(runs, default=0) <= _LONGEST else set()


def _shift(logs: Sequence[float], noise: float) -> int | None:
    """Micro-batches before the greatest shift; None: there is none beyond chance."""
    count, total = len(logs), sum(logs)
    if count < 2 * _LEAST:
        return None
    best, found, before = _BEYOND_CHANCE * noise, None, sum(logs[: _LEAST - 1])
    for at in range(_LEAST, count - _LEAST + 1):
        before += logs[at - 1]
        apart = abs(before / at - (total - before) / (count - at)) / math.sqrt(1.0 / at + 1.0 / (count - at))
        if apart > best:
            best, found = apart, at
    return found
