"""What a rename leaves: findings of the scan that the tables of the stack do not settle, with their lines."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import msgspec

from sapper.port.finding import Finding
from sapper.port.kernels.resolve import Edit
from sapper.port.kernels.tables import Table
from sapper.port.kernels.work import Work, work_of
from sapper.port.native.lexer import Lexed, Lines
from sapper.port.native.names import WORD, places

_COMPARISON = re.compile(r"[<>]=?|[=!]=")
_NUMBER = "architecture"
_FOREIGN = ("ptx", "tensor")
MISSING = "name"
"""The work where the stack is known to have no such name."""


class Left(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A place that a person has to look at."""

    line: int
    """Of the original, from 1."""
    work: str
    """A name of ``data/kernels/work.toml``, or :data:`MISSING`."""
    symbol: str
    excerpt: str


def foreign(findings: Sequence[Finding], text: str) -> list[int]:
    """Where code stands that only NVIDIA's chips execute, in order."""
    lines = Lines(text)
    works = ((finding.place, work_of(finding)) for finding in findings)
    return sorted(lines.offset(place.line, place.column) for place, work in works if work is not None and work.name in _FOREIGN)


def left(findings: Sequence[Finding], lexed: Lexed, names: Table, edits: Sequence[Edit]) -> tuple[Left, ...]:
    """What the edits do not settle of the findings of a file, one of each kind on a line."""
    lines = Lines(lexed.text)
    edited = _Edited(edits)
    found: dict[tuple[int, str], Left] = {}
    for finding in findings:
        work = work_of(finding)
        place = finding.place
        edit = edited.at(lines.offset(place.line, place.column))
        if work is not None and not _settled(finding, work, names, edit):
            found.setdefault((place.line, work.name), Left(line=place.line, work=work.name, symbol=finding.symbol, excerpt=finding.excerpt))
    for word in {word for word in WORD.findall(lexed.code) if names.missing(word)}:
        for start in places(lexed.code, word):
            line = lines.at(start)[0]
            said = any(one.line == line and one.symbol == word for one in found.values())
            if edited.at(start) is None and not said:
                found.setdefault((line, MISSING), Left(line=line, work=MISSING, symbol=word, excerpt=lines.line(line)))
    return tuple(sorted(found.values()))


def _settled(finding: Finding, work: Work, names: Table, edit: Edit | None) -> bool:
    if edit is not None and not edit.text:
        return True  # the line is gone
    if not work.settled:
        return False
    if work.name == _NUMBER and _COMPARISON.search(finding.excerpt):
        return edit is not None and any(char.isdigit() for char in edit.text)
    return edit is not None and names.settles(work.name, finding.symbol)


class _Edited:
    """Edits by place."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits
        self._starts = [edit.start for edit in edits]

    def at(self, offset: int) -> Edit | None:
        """The edit that covers an offset."""
        index = bisect.bisect_right(self._starts, offset) - 1
        return self._edits[index] if index >= 0 and offset < self._edits[index].end else None
