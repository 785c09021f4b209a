"""A chip's time for one piece of work, from noisy measurements: steady while it is steady, new at once when it has changed.

Works on logarithms, because chips err and slow down by shares. A mean that forgets slowly follows drift; two measurements in a row
that are far off on the same side are a change, and the mean starts anew from them. One alone is a hiccup, and waits for the next, unless it
is a whole step that is far off in both its parts. A step that was at two speeds counts as two measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_PRIOR_SD = 0.03
"""Standard deviation of a measurement's logarithm before any is known, counted as :data:`_PRIOR_COUNT` measurements."""
_PRIOR_COUNT = 4.0
_LEAST_SD = 0.005
_FAR = 2.0
"""Standard deviations; two measurements in a row beyond it on one side happen by chance once in a thousand."""
_SURE = 3.5
"""The same for one step whose two parts say the same: no hiccup is as long as a step."""
_APART = 4.0
"""Standard deviations between the parts of a step that were not at one speed."""
_LEAST_GAIN = 0.1
_FORGET = 0.95


class Smoothed:
    """One quantity."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0
        self._pending: float | None = None
        self._squares = _PRIOR_COUNT * _PRIOR_SD**2
        self._weight = _PRIOR_COUNT

    @property
    def value(self) -> float:
        """The estimate, in the unit of what was added."""
        return math.exp(self._mean)

    @property
    def sd(self) -> float:
        """Standard deviation of the logarithm of one measurement."""
        return max(_LEAST_SD, math.sqrt(self._squares / self._weight))

    @property
    def error(self) -> float:
        """Standard deviation of the logarithm of :attr:`value`."""
        gain = max(_LEAST_GAIN, 1.0 / max(self._count, 1))
        return self.sd * math.sqrt(gain / (2.0 - gain)) if self._count > 1 else self.sd

    def add(self, *measured: float) -> None:
        """Take what was measured in one step, greater than 0: its time, or the times of its two parts in their order."""
        logs = [math.log(one) for one in measured]
        if abs(logs[-1] - logs[0]) > _APART * self.sd:
            for one in logs:
                self._take(one)
        else:
            self._take(sum(logs) / len(logs), parts=logs if len(logs) > 1 else ())

    def _take(self, now: float, *, parts: Sequence[float] = ()) -> None:
        if not self._count:
            self._mean, self._count = now, 1
            return
        off = now - self._mean
        # The sum of two errors where the mean is young: that of the mean and that of the measurement.
        noise = math.hypot(self.sd, self.error if self._count < 3 else 0.0)
        if abs(off) <= _FAR * noise:
            self._pending = None
            self._count += 1
            self._mean += max(_LEAST_GAIN, 1.0 / self._count) * off
            self._squares = _FORGET * self._squares + off * off
            self._weight = _FORGET * self._weight + 1.0
        elif self._pending is not None and self._pending * off > 0.0:
            # Of two that differ the latter holds: the chip went on changing.
            agree = abs(off - self._pending) <= _APART * self.sd
            self._mean += (self._pending + off) / 2.0 if agree else off
            self._count, self._pending = (2 if agree else 1), None
        elif parts and abs(off) > _SURE * noise and all((one - self._mean) * off > 0.0 for one in parts):
            self._mean, self._count, self._pending = now, 1, None
        else:
            self._pending = off
