"""Undoes what an emulation set up, however the process that set it up ends: a script that runs alone, beside it.

Reads one undoing a line from stdin (``kill PGID``, ``group PATH``, ``netns NAME``) and carries them out, last first, when stdin
closes, which a killed parent does too. It imports nothing but the standard library, so that it starts in a moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

PATIENCE_S = 5.0


def kill(pgid: str) -> None:
    """Kill a process group, a stopped one too."""
    with contextlib.suppress(OSError):
        os.killpg(int(pgid), signal.SIGKILL)


def group(path: str) -> None:
    """Kill whoever is left in a control group and remove it."""
    end = time.monotonic() + PATIENCE_S
    while os.path.isdir(path) and time.monotonic() < end:
        with contextlib.suppress(OSError), open(os.path.join(path, "cgroup.procs")) as procs:
            for line in procs:
                with contextlib.suppress(OSError):
                    os.kill(int(line), signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.rmdir(path)
            return
        time.sleep(0.02)


def netns(name: str) -> None:
    """Remove a network namespace, the links that end in it with it."""
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


UNDOINGS = {"kill": kill, "group": group, "netns": netns}


def main() -> None:
    """Wait for the end of stdin, then undo."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    lines = [line.split(None, 1) for line in sys.stdin if line.strip()]
    for verb, argument in reversed(lines):
        UNDOINGS[verb](argument.strip())


if __name__ == "__main__":
    main()
