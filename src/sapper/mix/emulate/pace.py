"""Emulation by cooperation: the emulated process sleeps for what a slower chip or link would have taken.

Robust on a busy machine and without any right, but it measures coordination only: results are to be labelled ``paced``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

VARIABLE = "SAPPER_MIX_PACE"
"""Environment of a paced process: its share of a core."""
TOLL_VARIABLE = "SAPPER_MIX_TOLL"
"""Environment of a process whose link is emulated by sleeping: ``BYTES_PER_S,LATENCY_S``."""


class Pace:
    """Stretches work to what it would take at a share of the core.

    Args:
        share: 0.5 makes each piece of work take twice its own processor time.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Pace:
        """The pace that the starter of this process asked for; 1 where it asked for none."""
        return cls(float((os.environ if environment is None else environment).get(VARIABLE, "1")))

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Around a piece of work: sleeps after it, by the processor time of this thread, so that neighbours do not count twice."""
        start_s, own_s = time.monotonic(), time.thread_time()
        yield
        due_s = start_s + (time.thread_time() - own_s) / self.share
        if self.share < 1.0 and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(left_s)


class Toll:
    """A link by sleeping: messages follow each other at its rate, and each is under way for its latency.

    Args:
        rate_bytes_per_s: Of the link.
        latency_s: Of each message.
    """

    def __init__(self, *, rate_bytes_per_s: float, latency_s: float = 0.0) -> None:
        self.rate_bytes_per_s = rate_bytes_per_s
        self.latency_s = latency_s
        self._free_s = 0.0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Toll | None:
        """The toll that the starter of this process asked for; None where it asked for none."""
        text = (os.environ if environment is None else environment).get(TOLL_VARIABLE)
        if not text:
            return None
        rate, latency = text.split(",")
        return cls(rate_bytes_per_s=float(rate), latency_s=float(latency))

    def pay(self, size_bytes: float) -> None:
        """Sleep until a message of that size, sent now, would have arrived."""
        start_s = max(time.monotonic(), self._free_s)
        self._free_s = start_s + size_bytes / self.rate_bytes_per_s
        time.sleep(max(0.0, self._free_s + self.latency_s - time.monotonic()))
