"""Holding a process to a share of a core without root: it is stopped while it is ahead of its share and continued after.

What ``cpulimit`` does by sampling, done by the process's own clock of processor time, which Linux lets anybody read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

TICK_S = 0.004
BURST_S = 0.02
"""How far a process that has waited may run ahead of its share, in wall time: the period of the kernel's quota."""


def clock_of(pid: int) -> int:
    """The clock of processor time of all threads of ``pid`` (Linux: clock_getcpuclockid(3), as the kernel numbers them)."""
    return (~pid << 3) | 2


class DutyCycle:
    """A thread that stops and continues one process until :meth:`close`; the process must lead its own group.

    Args:
        pid: The process.
        share: Processor seconds per second.
    """

    def __init__(self, pid: int, *, share: float) -> None:
        self._pid = pid
        self._share = share
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"duty-cycle-{pid}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the process run free."""
        self._over.set()
        self._thread.join()

    def slow_to(self, share: float) -> None:
        """Another share from now on."""
        self._share = share

    def _hold(self) -> None:
        clock, stopped = clock_of(self._pid), False
        budget_s, last_s = 0.0, time.monotonic()
        with contextlib.suppress(OSError):  # the process has ended
            used_s = time.clock_gettime(clock)
            while not self._over.wait(TICK_S):
                now_s, now_used_s = time.monotonic(), time.clock_gettime(clock)
                budget_s = min(budget_s + self._share * (now_s - last_s), self._share * BURST_S) - (now_used_s - used_s)
                last_s, used_s = now_s, now_used_s
                if (budget_s < 0) != stopped:
                    stopped = not stopped
                    os.killpg(self._pid, signal.SIGSTOP if stopped else signal.SIGCONT)
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGCONT)


def allows() -> str | None:
    """What stands against a duty cycle; None where it works."""
    try:
        time.clock_gettime(clock_of(os.getpid()))
    except OSError as error:
        return error.strerror
    return None if sys.platform == "linux" else sys.platform
