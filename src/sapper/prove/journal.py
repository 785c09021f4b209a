"""The journal of a campaign: one JSON line for each case that is done, on disk before the next one begins.

Killed at any moment, a campaign begun anew goes on where it was: a torn last line is dropped, and nothing is done twice. A
journal of another question is refused, with what differs first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sapper.errors import BadFile

HEADER = "header"
"""The key of the first line."""


class Journal:
    """An open journal; a context manager.

    Args:
        path: JSONL; made where it is missing, its folder too.
        header: What the campaign asks, and with which versions.
        key: Under which each line has its id.
        volatile: Keys of the header that may differ when a campaign goes on, such as ``date``; those of the first run stay.

    Raises:
        BadFile: It belongs to another question, is no journal, is being written by another process, or cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Mapping[str, Any], *, key: str = "id", volatile: tuple[str, ...] = ("date",)
    ) -> None:
        self.path = Path(path)
        self.done: dict[str, dict[str, Any]] = {}
        self._key = key
        given = msgspec.json.decode(msgspec.json.encode(dict(header)))
        with self._refusals():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            self.header: dict[str, Any] = self._opened(given, volatile)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def add(self, id: str, value: Mapping[str, Any]) -> None:
        """Write a case down.

        Raises:
            BadFile: The disk is full, say; the journal is as it was before.
        """
        line = {self._key: id, **value}
        self._append(line)
        self.done[id] = line

    def _append(self, line: Mapping[str, Any]) -> None:
        size = os.fstat(self._file).st_size
        rest = msgspec.json.encode(line) + b"\n"
        with self._refusals():
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise

    def _opened(self, header: dict[str, Any], volatile: tuple[str, ...]) -> dict[str, Any]:
        raw = b"".join(iter(lambda: os.read(self._file, 1 << 20), b""))
        lines = raw.split(b"\n")
        if lines.pop():  # torn: the process was killed while it wrote
            with self._refusals():
                os.ftruncate(self._file, raw.rfind(b"\n") + 1)
        if not lines:
            self._append({HEADER: header})
            return header
        parsed = [self._parsed(line, number) for number, line in enumerate(lines, 1)]
        found = parsed[0].get(HEADER)
        if not isinstance(found, dict):
            raise BadFile("SP-RUN-005", where=f"{self.path}:1")
        for name in (*header, *found):
            if name not in volatile and header.get(name) != found.get(name):
                raise BadFile(
                    "SP-RUN-004", where=str(self.path), name=name, now=_short(header.get(name)), then=_short(found.get(name))
                )
        self.done = {str(line[self._key]): line for line in parsed[1:] if self._key in line}
        return found

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise BadFile("SP-RUN-005", where=f"{self.path}:{number}") from error

    def _lock(self) -> None:
        """Two campaigns that wrote into one journal would each do what the other does."""
        try:
            import fcntl
        except ImportError:  # no POSIX system
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadFile("SP-RUN-006", where=str(self.path)) from error

    @contextlib.contextmanager
    def _refusals(self) -> Any:
        try:
            yield
        except OSError as error:
            raise BadFile("SP-RUN-003", where=str(self.path), problem=error.strerror or str(error)) from error


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode("utf-8")
    return text if len(text) <= 200 else f"{text[:197]}..."
