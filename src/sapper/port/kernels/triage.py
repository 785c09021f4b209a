"""Sorting kernels: what each file of C++ or CUDA asks for on another chip, with the lines.

A file is of the kind of its hardest line. ``rename`` is never said of a file in which lanes of a warp are counted on, or
which holds assembly, whatever the names would become.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from sapper.port import native, read, rule, walk
from sapper.port.finding import Finding, Place, Unread
from sapper.port.kernels.work import KINDS, Kind, work_of, works
from sapper.port.source import Language, Source
from sapper.port.target import Target
from sapper.port.verdict import Cell
from sapper.port.verdicts import verdict

_KERNEL = "__global__"
_NATIVE: tuple[Language, ...] = ("cuda", "cpp")


class Line(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A line that asks for more than a new name."""

    line: int
    work: str
    """A name of ``data/kernels/work.toml``."""
    code: str
    """The rule of the scan that found it."""
    symbol: str
    excerpt: str


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    """One file, sorted."""

    path: str
    kind: Kind
    kernels: int
    """Functions that are launched (``__global__``)."""
    couplings: int
    """Findings of the scan in this file, of every rule."""
    lines: tuple[Line, ...]
    """In order; one of each work on a line."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a tree, sorted."""

    root: str
    files: tuple[Triage, ...]
    """Those that are coupled to CUDA, by path."""
    unread: tuple[Unread, ...]

    def count(self) -> dict[Kind, int]:
        """Files of each kind."""
        found = Counter(file.kind for file in self.files)
        return {kind: found[kind] for kind in KINDS}

    def representatives(self) -> list[Line]:
        """One line of each work that occurs, the most frequent symbol of it, in the order of the table."""
        lines: dict[str, list[Line]] = {}
        for file in self.files:
            for line in file.lines:
                lines.setdefault(line.work, []).append(line)
        return [_commonest(lines[work.name]) for work in works() if work.name in lines]


def triage(source: Source) -> Triage | None:
    """A file sorted; None where nothing in it is coupled to CUDA."""
    found = native.find(source, rule.rules())
    if not found:
        return None
    lines: dict[tuple[int, str], Line] = {}
    kind: Kind = "rename"
    for finding in found:
        work = work_of(finding)
        if work is not None:
            line = finding.place.line
            lines.setdefault(
                (line, work.name),
                Line(line=line, work=work.name, code=finding.code, symbol=finding.symbol, excerpt=finding.excerpt.strip()),
            )
            kind = max(kind, work.kind, key=KINDS.index)
    kernels = sum(finding.symbol == _KERNEL for finding in found)
    return Triage(path=source.path, kind=kind, kernels=kernels, couplings=len(found), lines=tuple(sorted(lines.values())))


def survey(root: str | os.PathLike[str], *, exclude: Sequence[str] = ()) -> Survey:
    """All C++ and CUDA files of a tree.

    Raises:
        BadFile: SP-READ-001: ``root`` is not there.
    """
    tree = walk.walk(root, exclude=exclude)
    files: list[Triage] = []
    unread: list[Unread] = []
    for source in sources(tree.files):
        if isinstance(source, Unread):
            unread.append(source)
        elif (one := triage(source)) is not None:
            files.append(one)
    return Survey(root=walk.shown(os.fspath(root)), files=tuple(files), unread=tuple(unread))


def sources(files: Iterable[walk.File]) -> Iterable[Source | Unread]:
    """The C++ and CUDA files among ``files``, as text."""
    for file in files:
        if file.language in _NATIVE:
            data = read.load(file.path, file.relative, file.language)
            yield data if isinstance(data, Unread) else read.decoded(data, file.relative, file.language)


def consequence(line: Line, path: str, target: Target) -> Cell:
    """What becomes of a line on a target: the verdict on its finding."""
    place = Place(path, line.line, 0, line.line, 0)
    return verdict(Finding(code=line.code, place=place, symbol=line.symbol, excerpt=line.excerpt), target)


def _commonest(lines: list[Line]) -> Line:
    symbol, _ = Counter(line.symbol for line in lines).most_common(1)[0]
    return next(line for line in lines if line.symbol == symbol)
