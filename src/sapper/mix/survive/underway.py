"""Whether the run of a folder is under way, by the journals in it, and where it can be joined.

Where hosts share the folder it holds the journals of all members, else those of this host, whose views name the members elsewhere. Whether
a member of this host lives its system says. Of others it is asked at their doors; where none answers, a journal that is still written to
is a sign of life too, as a door may be cut off while the folder is not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sapper.mix.survive.launch import JOURNALS

QUIET_S = 60.0
"""After which a journal that nobody writes to is no sign of life."""
_ASKED_S = 1.0
_ASKED_AT_ONCE = 32
_LOOK_S = 0.5


@dataclass(frozen=True)
class Told:
    """What one journal says of its member."""

    host: str
    pid: int
    door: str
    """``HOST:PORT``."""
    doors: tuple[str, ...]
    """Of all members, when last heard; its own at least."""
    has_ended: bool
    written_s: float
    """When it was last written to, since the epoch."""


def members(folder: Path) -> list[Told]:
    """Those who have met, as their journals tell; the newest journal first."""
    return sorted(_members(folder), key=lambda one: one.written_s, reverse=True)


def has_ended(folder: Path, *, host: str, pid: int) -> bool:
    """Whether the worker ``pid`` of ``host`` came to the end of the run."""
    return any(one.has_ended and (one.host, one.pid) == (host, pid) for one in members(folder))


def doors(folder: Path, *, host: str, pids: Collection[int]) -> tuple[str, ...]:
    """Where the run of ``folder`` can be joined; empty: none is under way.

    Waits while that is not known: up to :data:`QUIET_S` after the last line of a journal of another host none of whose doors answers.

    Args:
        folder: Of the run.
        host: This one.
        pids: Workers of this host that live.
    """
    while told := members(folder):
        newest = told[0]
        if any(one.host == host and one.pid in pids for one in told):
            return newest.doors
        if newest.has_ended:
            return ()
        gone = {one.door for one in told if one.host == host}
        elsewhere = tuple(door for door in newest.doors if door not in gone)
        if _answer(elsewhere):
            return elsewhere
        if not any(one.host != host and time.time() - one.written_s < QUIET_S for one in told):
            return ()
        time.sleep(_LOOK_S)
    return ()


def _members(folder: Path) -> Iterator[Told]:
    for path in folder.glob(JOURNALS):
        with contextlib.suppress(FileNotFoundError):  # of an earlier run, and removed meanwhile
            told = _told(path)
            if told is not None:
                yield told


def _told(path: Path) -> Told | None:
    """The last membership in a journal; None: there is none."""
    start: dict[str, object] | None = None
    own, has_ended = "", False
    known: tuple[str, ...] = ()
    with open(path, "rb") as file:
        for raw in file:
            if not raw.endswith(b"\n") or raw.startswith(b'{"kind":"step"'):  # cut short, or one of very many
                continue
            line = json.loads(raw)
            if line["kind"] == "door":
                start, own, has_ended = line, _door(*line["door"]), False
                known = (own,)
            elif line["kind"] in ("view", "change"):
                known = tuple(_door(host, port) for _, host, port in line["members"])
            has_ended = has_ended or line["kind"] == "end"
    if start is None:
        return None
    return Told(str(start.get("host")), int(str(start["pid"])), own, known, has_ended, path.stat().st_mtime)


def _door(host: str, port: int) -> str:
    return f"{host}:{port}"


def _answer(doors: Sequence[str]) -> bool:
    """Whether somebody listens at one of ``doors`` at least."""
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as asking:
        return any(asking.map(_listens, doors))


def _listens(door: str) -> bool:
    host, _, port = door.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=_ASKED_S):
        return True
    return False
