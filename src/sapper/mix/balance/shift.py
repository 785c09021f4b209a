"""Where in a step a chip became slower or faster, from the times of its micro-batches.

A step in which a chip slows down is measured in part at the old speed, and its mean is the speed of neither part. So the times of a
step are told in two parts: before and after its greatest shift where that is beyond chance, else the first half and the second.
The test is the maximum of the two-sample statistic over all places, with a noise that a shift does not enter (D. M. Hawkins, Testing a
sequence of observations for a shift in location, J. Am. Stat. Assoc. 72, 1977; noise from differences of neighbours: J. von Neumann,
Ann. Math. Stat. 12, 1941).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

_BEYOND_CHANCE = 4.0
"""Without a shift the statistic's maximum over the places exceeds it in 1 of 120 steps of 60 normal times and in 1 of 40 of 12, as their
noise is not known but taken from them (simulated, 12,000 and 20,000 steps): such a step is told in two parts of unlike length, no more."""
_LEAST = 3
"""Micro-batches of a part that a shift may cut off: one or two slow ones are a hiccup."""
_SD_OF_MEDIAN = 1.0 / (0.6745 * math.sqrt(2.0))
"""Standard deviation of normal times, from the median of the sizes of differences of neighbours."""


def parts_of(passes_s: Sequence[float]) -> tuple[float, ...]:
    """Mean times of the two parts of a step, in their order; one where there was one micro-batch, none where there was none.

    Args:
        passes_s: Times of its micro-batches in their order, greater than 0.
    """
    count = len(passes_s)
    if count < 2:
        return tuple(passes_s)
    at = _shift(passes_s) or count // 2
    return statistics.fmean(passes_s[:at]), statistics.fmean(passes_s[at:])


def _shift(passes_s: Sequence[float]) -> int | None:
    """Micro-batches before the greatest shift; None: there is none beyond chance."""
    logs = [math.log(one) for one in passes_s]
    count, total = len(logs), sum(logs)
    if count < 2 * _LEAST:
        return None
    noise = _SD_OF_MEDIAN * statistics.median(abs(b - a) for a, b in itertools.pairwise(logs))
    best, found, before = _BEYOND_CHANCE * noise, None, sum(logs[: _LEAST - 1])
    for at in range(_LEAST, count - _LEAST + 1):
        before += logs[at - 1]
        apart = abs(before / at - (total - before) / (count - at)) / math.sqrt(1.0 / at + 1.0 / (count - at))
        if apart > best:
            best, found = apart, at
    return found
