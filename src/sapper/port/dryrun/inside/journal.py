"""What a process has seen, on disk as soon as it is seen: a process may end at any moment, by any signal."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from sapper.port.dryrun.inside import frames
from sapper.port.dryrun.inside.frames import Where
from sapper.port.dryrun.session import Kind, Note, Outcome, Touch, current


class Journal:
    """The file of this process.

    A touch is written when it is first seen, and again with its count when that has doubled and when the process ends, so
    that a loop does not fill the disk; the last line of a touch counts.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._endings: list[Callable[[], None]] = []
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.end)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._file: int | None = None
        self._touches: dict[tuple[Any, ...], Touch] = {}
        self._remarks: list[Note] = []
        self.torch: str | None = str(vars(sys.modules["torch"]).get("__version__")) if "torch" in sys.modules else None
        self._pid = os.getpid()
        self.write("begin", self._unit())

    def _unit(self) -> dict[str, Any]:
        rank = os.environ.get("RANK")
        return {"process": os.getpid(), "parent": os.getppid(), "command": list(sys.orig_argv), "rank": rank, "torch": self.torch}

    def write(self, what: str, record: dict[str, Any] | Touch) -> None:
        """Append one line."""
        line = msgspec.json.encode({"what": what, **(msgspec.to_builtins(record) if isinstance(record, Touch) else record)}) + b"\n"
        with self._lock:
            if self._file is None:
                name = f"{os.getpid()}-{time.time_ns()}.jsonl"
                self._file = os.open(os.path.join(current().folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.write(self._file, line)

    def touch(self, kind: Kind, symbol: str, *, outcome: Outcome, where: Where, says: str | Note | None = None) -> None:
        """Count a touch at a place."""
        key = (kind, symbol, outcome, where.path, where.line)
        with self._lock:
            known = self._touches.get(key)
            if known is None:
                known = self._touches[key] = Touch(
                    kind=kind, symbol=symbol, outcome=outcome, path=where.path, line=where.line, end_line=where.end_line,
                    function=where.function, owner=where.package, via=where.via, literal=where.literal,
                    says=says if isinstance(says, str) else None, note=says if isinstance(says, Note) else None,
                    thread=threading.current_thread().name, process=os.getpid(), rank=os.environ.get("RANK"),
                )  # fmt: skip
            else:
                known.count += 1
                if known.count & (known.count - 1):
                    return
            self.write("touch", known)

    def remark(self, note: Note) -> None:
        """Write down what a reader of the result has to know of the emulation, once."""
        if note not in self._remarks:
            self._remarks.append(note)
            self.write("remark", msgspec.to_builtins(note))

    def at_end(self, action: Callable[[], None]) -> None:
        """Call ``action`` when the process ends, before the last lines are written."""
        self._endings.append(action)

    def end(self) -> None:
        """Write last counts; called at exit, and again does no harm."""
        if os.getpid() != self._pid:
            return
        for action in self._endings:
            action()
        for known in self._touches.values():
            if known.count & (known.count - 1):
                self.write("touch", known)
        self.write("end", self._unit())


JOURNAL: Journal
"""Set by :func:`start`; one for each process."""


def start() -> Journal:
    """Begin to write."""
    global JOURNAL
    JOURNAL = Journal()
    return JOURNAL


def exempt(where: Where) -> bool:
    """Whether a line is CUDA's own by intent, so that a touch of it is no finding."""
    lines = current().exempt.get(where.path, ())
    return any(line in lines for line in range(where.line, where.end_line + 1))


class _Asking(threading.local):
    depth = 0


_ASKING = _Asking()


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """PyTorch is asked what it would do without us: everything that is watched goes its plain way meanwhile."""
    _ASKING.depth += 1
    try:
        yield
    finally:
        _ASKING.depth -= 1


def seen(*, through_torch: bool = False) -> Where | None:
    """Where a touch comes from that is to be recorded; None where it is PyTorch's own affair, or our question to it."""
    return None if _ASKING.depth else frames.caller(through_torch=through_torch)
