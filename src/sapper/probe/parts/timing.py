"""How a case is timed: warm-up, samples of many calls between two waits, median and quartiles; and the time budget."""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from sapper.probe.parts.device import Device
from sapper.probe.parts.talk import Unsupported, first_line

SAMPLE_S = 0.02
"""Least length of a sample: a clock's tick and the wait itself are then below a per mille."""

REPEATS = 9
LEAST_REPEATS = 3
MOST_CALLS = 2000


class Timing(NamedTuple):
    """Seconds of one call, over the samples."""

    median_s: float
    low_s: float
    """First quartile."""
    high_s: float
    """Third quartile."""
    calls: int
    """Calls per sample, issued back to back and waited for once."""
    repeats: int

    def conditions(self) -> dict[str, Any]:
        """What a record says of how it was timed."""
        return {"time_s": self.median_s, "calls": self.calls, "repeats": self.repeats}

    def rates(self, amount: float) -> dict[str, float]:
        """Value and quartiles of a rate of ``amount`` per call."""
        return {"value": amount / self.median_s, "low": amount / self.high_s, "high": amount / self.low_s}

    def times(self) -> dict[str, float]:
        """Value and quartiles of the time itself."""
        return {"value": self.median_s, "low": self.low_s, "high": self.high_s}


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, by linear interpolation."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return at(0.25), at(0.5), at(0.75)


def sample(device: Device, call: Callable[[], Any], calls: int) -> float:
    """Seconds per call of ``calls`` calls back to back."""
    device.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
        device.step()
    device.synchronize()
    return (time.perf_counter() - start) / calls


def measure(device: Device, call: Callable[[], Any], *, limit_s: float) -> Timing:
    """Time ``call``.

    Args:
        device: Where it runs.
        call: One case; it is called some twenty to some thousand times.
        limit_s: About how long it may take; a slow case gets fewer samples, never less than three.
    """
    start = time.perf_counter()
    once_s = sample(device, call, 1)  # compiles, loads, allocates
    if once_s < limit_s / 4:
        once_s = min(sample(device, call, 1), sample(device, call, 2))
    calls = max(1, min(MOST_CALLS, int(SAMPLE_S / max(once_s, 1e-7))))
    samples: list[float] = []
    while len(samples) < LEAST_REPEATS or (len(samples) < REPEATS and time.perf_counter() - start < limit_s):
        samples.append(sample(device, call, calls))
    low, median, high = quartiles(samples)
    return Timing(median, low, high, calls, len(samples))


_NOT_THERE = (
    "not implemented", "could not run", "not support", "unsupported", "no kernel", "not available", "only supported",
    "not compiled",
)
"""Words by which PyTorch and its plug-ins say that they lack an operation."""


def outcome(error: BaseException) -> dict[str, Any]:
    """Status and note of a case that raised: ``unsupported`` where the stack has no such thing, else ``failed``."""
    text = str(error).lower()
    missing = isinstance(error, (Unsupported, AttributeError)) or any(words in text for words in _NOT_THERE)
    return {"status": "unsupported" if missing else "failed", "note": first_line(error)}


class Budget:
    """Time, dealt out to the sections by weight; what one leaves, the later ones have."""

    def __init__(self, total_s: float, weights: dict[str, float]) -> None:
        self._end = time.monotonic() + total_s
        self._weights = dict(weights)
        self.deadline = self._end
        self.share_s = total_s

    def begin(self, section: str) -> None:
        """Start the clock of ``section``."""
        whole = sum(self._weights.values())
        self.share_s = max(0.0, self._end - time.monotonic()) * self._weights.pop(section) / whole
        self.deadline = time.monotonic() + self.share_s

    def left_s(self) -> float:
        """Seconds that the section still has."""
        return self.deadline - time.monotonic()
