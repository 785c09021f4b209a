"""Notes in a run's folder, ``kept-*.json``: which workers there are and who keeps each, so that a keeper finds one that it did not start.

Processes are looked up in ``/proc``, so a note says something only on the host that it bears.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sapper.files import write_atomic

_LOOK_S = 0.1
_LEAVE_S = 5.0
"""For a process to end when it is told to."""


class Known(msgspec.Struct, frozen=True):
    """A process, told from a later one of the same number."""

    pid: int
    born: str | None
    """See :func:`born`."""

    @property
    def lives(self) -> bool:
        """Whether it is still there."""
        return self.born is not None and born(self.pid) == self.born


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Of a worker."""

    host: str
    local: str
    """``LOCAL_RANK``: its place on the host. Its other numbers are dealt anew whenever the hosts meet again."""
    group: str
    errors: str
    worker: Known
    keeper: Known
    agent: Known
    """Who started the keeper."""

    @property
    def is_kept(self) -> bool:
        """Whether it has a keeper; one whose agent is gone keeps for nobody."""
        return self.keeper.lives and self.agent.lives


class Found:
    """A worker that another keeper started; a :class:`~sapper.mix.survive.launch.Process`.

    Args:
        worker: The process.
        has_ended: Whether it came to the end of the run, once it is gone: its system tells its exit code to its parent alone.
    """

    def __init__(self, worker: Known, *, has_ended: Callable[[], bool]) -> None:
        self.pid, self._known, self._has_ended = worker.pid, worker, has_ended
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """See :class:`~sapper.mix.survive.launch.Process`; one that did not come to the end counts as killed."""
        if self.returncode is None and not self._known.lives:
            self.returncode = 0 if self._has_ended() else -signal.SIGKILL
        return self.returncode

    def wait(self) -> int:
        """See :class:`~sapper.mix.survive.launch.Process`."""
        while (code := self.poll()) is None:
            time.sleep(_LOOK_S)
        return code


def born(pid: int) -> str | None:
    """When a process was started, in ticks of its system, as a later one may have its number; None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def known(pid: int) -> Known:
    """The process that has this number now."""
    return Known(pid, born(pid))


def own_host() -> str:
    """By which processes of this host are told from those of others."""
    return os.uname().nodename


def own_note(worker: int, *, group: str, errors: str) -> Note:
    """Of a worker that this process keeps."""
    return Note(
        host=own_host(), local=os.environ.get("LOCAL_RANK", "0"), group=group, errors=errors,
        worker=known(worker), keeper=known(os.getpid()), agent=known(os.getppid()),
    )  # fmt: skip


def write(folder: Path, note: Note) -> None:
    """Keep ``note``, and none of this host's workers that are gone."""
    for path, old in _notes(folder):
        if old.host == note.host and not old.worker.lives:
            path.unlink(missing_ok=True)
    write_atomic(folder / f"kept-{note.host}-{note.local}-{note.worker.pid}.json", msgspec.json.encode(note))


def living(folder: Path) -> list[Note]:
    """Of the workers of this host that are there."""
    return [note for _, note in _notes(folder) if note.host == own_host() and note.worker.lives]


def release(note: Note) -> None:
    """End a keeper whose agent is gone: its worker goes on."""
    if note.keeper.lives:
        with contextlib.suppress(ProcessLookupError):
            os.kill(note.keeper.pid, signal.SIGTERM)
        _await_end(note.keeper)


def end(note: Note) -> None:
    """End a worker that has nothing to lose, even one that is stopped."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(note.worker.pid, signal.SIGKILL)
    _await_end(note.worker)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """As the only keeper of this host that looks for a worker."""
    with open(folder / f"keepers-{own_host()}.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _notes(folder: Path) -> Iterator[tuple[Path, Note]]:
    for path in sorted(folder.glob("kept-*.json")):
        with contextlib.suppress(OSError, msgspec.DecodeError):  # gone meanwhile, or of another version
            yield path, msgspec.json.decode(path.read_bytes(), type=Note)


def _await_end(process: Known) -> None:
    due = time.monotonic() + _LEAVE_S
    while process.lives and time.monotonic() < due:
        time.sleep(_LOOK_S)
