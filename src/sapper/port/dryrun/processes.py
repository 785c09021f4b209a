"""Waiting for the program, and ending it with all the processes that it started when its time is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

GRACE_S = 10.0
"""For a program that was asked to end; launchers pass the request on to their workers."""


def wait(child: subprocess.Popen[bytes], folder: Path, *, limit_s: float | None) -> tuple[int, bool]:
    """Exit code, and whether time ran out. Ctrl-C goes to the program, whose last words are waited for.

    Args:
        child: The program.
        folder: Where each of its watched processes keeps a file that is named after its number.
        limit_s: Seconds it may take; None: any.
    """
    end = None if limit_s is None else time.monotonic() + limit_s
    while True:
        try:
            return child.wait(None if end is None else max(0.0, end - time.monotonic())), False
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
        except subprocess.TimeoutExpired:
            return _end(child, folder), True


def _end(child: subprocess.Popen[bytes], folder: Path) -> int:
    """Ask the program to end; then take it and what is left of its processes down."""
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
    for number in sorted({int(path.name.partition("-")[0]) for path in folder.glob("*.jsonl")}):
        if number not in (child.pid, os.getpid()) and _is_of(number, folder):
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was asked
                os.kill(number, signal.SIGKILL)
    return child.wait()


def _is_of(number: int, folder: Path) -> bool:
    """Whether a process is still one of the session's: numbers are used again, and systems without ``/proc`` do not say."""
    try:
        return os.fsencode(folder) in Path(f"/proc/{number}/environ").read_bytes()
    except OSError:
        return False
