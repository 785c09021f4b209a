"""Faults that end, stop or starve the process, for real."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable

import torch
from sapper.backends.papertiger.memory import LEDGER
from sapper.backends.papertiger.personality import Fault

BLOW_UP_BYTES = 64 * 2**30
"""How far a blow-up goes where nothing stops it."""
_STEP_BYTES = 256 * 2**20


def crash(fault: Fault) -> None:
    """End the process by a signal, as a driver that follows a wild pointer does."""
    number = signal.Signals[fault.signal]
    faulthandler.disable()
    if fault.signal == "SIGABRT":
        os.abort()
    signal.signal(number, signal.SIG_DFL) if fault.signal != "SIGKILL" else None
    os.kill(os.getpid(), number)
    time.sleep(60)


def hang(fault: Fault) -> None:
    """Never return; ``amount``: seconds until it does all the same."""
    until_s = time.monotonic() + (fault.amount if fault.amount is not None else float("inf"))
    while time.monotonic() < until_s:
        time.sleep(min(until_s - time.monotonic(), 3600))


def out_of_memory(fault: Fault) -> None:
    """Raise as a device does; with ``amount``: take so many bytes of the host, in pages that are written."""
    if fault.amount is None:
        raise torch.OutOfMemoryError(f"{LEDGER.device.upper()} out of memory. Tried to allocate {BLOW_UP_BYTES / 2**30:.2f} GiB.")
    held: list[bytearray] = []
    while sum(map(len, held)) < min(fault.amount, BLOW_UP_BYTES):
        held.append(bytearray(b"\xff" * _STEP_BYTES))


ENDING: dict[str, Callable[[Fault], None]] = {"crash": crash, "hang": hang, "out-of-memory": out_of_memory}
