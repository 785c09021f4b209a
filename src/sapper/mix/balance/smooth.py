"""A chip's time for one piece of work, from noisy measurements: steady while it is steady, new at once when it has changed.

Works on logarithms, because chips err and slow down by shares. The time is a mean of the steps since the last change, by what each is
worth, in which none counts as further than two standard deviations from their median (P. J. Huber, Robust estimation of a location
parameter, Ann. Math. Stat. 35, 1964; one step of it): a few slow steps do not move it. Two measurements in a row that are far off on
the same side are a change, and the window begins anew with them. One alone is a hiccup, and waits for the next, unless it is a whole
step that is far off in both its parts. A step that was at two speeds counts as two measurements.

How far is far, the run itself says: the spread is taken from the differences of neighbours, which a change enters once only, and from
what the micro-batches of a step differ by. So a machine that is shared is believed less from its first steps on.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

PRIOR_SD = 0.03
"""Standard deviation of a measurement's logarithm before any is known, counted as :data:`_PRIOR_COUNT` measurements."""
_PRIOR_COUNT = 4.0
_LEAST_SD = 0.005
_BETWEEN_SD = 0.02
"""What steps are taken to differ by beyond their micro-batches, where measurements are weighed."""
_LEAST_DIFFERENCES = 3
"""Before the median of fewer of them is asked: one real change would be half of it."""
_FAR = 2.0
"""Standard deviations; two measurements in a row beyond it on one side happen by chance once in a thousand."""
_SURE = 3.5
"""The same for one step whose two parts say the same: no hiccup is as long as a step."""
_APART = 4.0
"""Standard deviations between the parts of a step that were not at one speed."""
_WINDOW = 16
"""Measurements that are remembered: what is older has drifted."""
_RARE_COUNT = 10.0
"""Steps without a hiccup that a chip is taken to have had."""
_FORGET = 0.95
SD_OF_MEDIAN = 1.0 / (0.6745 * math.sqrt(2.0))
"""Standard deviation of normal values, from the median of the sizes of differences of neighbours (von Neumann 1941, made robust)."""


class Smoothed:
    """One quantity.

    Args:
        sd: Standard deviation of a measurement's logarithm, where earlier measurements of the same chip say it.
    """

    def __init__(self, sd: float = PRIOR_SD) -> None:
        self._prior_sd = sd
        self._logs: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        """Since the last change, each with its error by its micro-batches."""
        self._differences: deque[float] = deque(maxlen=_WINDOW)
        self._last: float | None = None
        self._inside = 0.0
        self._pending: tuple[float, float] | None = None
        self._mean = 0.0

    @property
    def value(self) -> float:
        """The estimate, in the unit of what was added."""
        return math.exp(self._mean)

    @property
    def sd(self) -> float:
        """Standard deviation of the logarithm of one measurement."""
        squares, weight = _PRIOR_COUNT * self._prior_sd**2, _PRIOR_COUNT
        if len(self._differences) >= _LEAST_DIFFERENCES:
            squares += len(self._differences) * (SD_OF_MEDIAN * statistics.median(self._differences)) ** 2
            weight += len(self._differences)
        return max(_LEAST_SD, self._inside, math.sqrt(squares / weight))

    @property
    def error(self) -> float:
        """Standard deviation of the logarithm of :attr:`value`."""
        return self.sd / math.sqrt(max(len(self._logs), 1))

    def add(self, *measured: float, error: float = 0.0) -> None:
        """Take what was measured in one step.

        Args:
            measured: Greater than 0: its time, or the times of its two parts in their order.
            error: Standard error of the logarithm of the step's mean, as its micro-batches say it.
        """
        logs = [math.log(one) for one in measured]
        self._inside = max(error, 0.9 * self._inside)
        if abs(logs[-1] - logs[0]) > _APART * self.sd:
            for one in logs:
                self._take(one, error)
        else:
            self._take(sum(logs) / len(logs), error, parts=logs if len(logs) > 1 else ())

    def _take(self, now: float, error: float, *, parts: Sequence[float] = ()) -> None:
        if self._last is not None:
            self._differences.append(abs(now - self._last))
        self._last = now
        if not self._logs:
            self._keep((now, error))
            return
        off = now - self._mean
        # The sum of two errors where the estimate is young: its own and that of the measurement.
        noise = math.hypot(self.sd, self.error if len(self._logs) < 3 else 0.0)
        if abs(off) <= _FAR * noise:
            self._pending = None
            self._keep((now, error))
        elif self._pending is not None and (self._pending[0] - self._mean) * off > 0.0:
            # Of two that differ the latter holds: the chip went on changing.
            agree = abs(now - self._pending[0]) <= _APART * self.sd
            self._anew(*([self._pending] if agree else []), (now, error))
        elif parts and abs(off) > _SURE * noise and all((one - self._mean) * off > 0.0 for one in parts):
            self._anew((now, error))
        else:
            self._pending = now, error

    def _anew(self, *logs: tuple[float, float]) -> None:
        self._pending = None
        self._logs.clear()
        self._keep(*logs)

    def _keep(self, *logs: tuple[float, float]) -> None:
        self._logs.extend(logs)
        middle, reach = statistics.median(one for one, _ in self._logs), _FAR * self.sd
        inside = [max(middle - reach, min(middle + reach, one)) for one, _ in self._logs]
        # Many micro-batches say more than few, but no more than what steps differ by allows.
        self._mean = statistics.fmean(inside, weights=[1.0 / (error**2 + _BETWEEN_SD**2) for _, error in self._logs])


class Rare:
    """What rare events add to a time: believed as slowly as they are rare."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    @property
    def value(self) -> float:
        """Share that they add, drawn to 0 while few steps are known."""
        return self._sum / (self._weight + _RARE_COUNT)

    def add(self, share: float) -> None:
        """Take what one step says."""
        self._sum = _FORGET * self._sum + share
        self._weight = _FORGET * self._weight + 1.0
