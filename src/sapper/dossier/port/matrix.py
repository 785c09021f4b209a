"""The verdict matrix: what the code uses down, targets across; and the sources that the cells rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sapper.port.report.judged import QUIET, Judged
from sapper.port.report.rulepage import title
from sapper.port.report.text import told
from sapper.port.verdict import Cell, Silence, Status

MOST_ROWS = 60
MOST_PLACES, MOST_SYMBOLS = 3, 4


class Square(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the matrix."""

    status: Status
    silence: Silence | None
    """Of the quiet kinds only."""
    text: str
    """All that the table says, with the source."""
    source: int | None
    """Number in the list of sources; None: nobody was read."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule finds and of which the same is known on every target: one API or package, or several."""

    code: str
    symbols: tuple[str, ...]
    """The most frequent ones."""
    more_symbols: int
    title: str
    """Of the most frequent one."""
    klass: str
    quiet: Silence | None
    count: int
    files: int
    places: tuple[str, ...]
    """``path:line`` of the first ones."""
    squares: tuple[Square, ...]


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, silent rows first, then by how often they occur."""

    rows: tuple[Row, ...]
    left_out_rows: int
    left_out: int
    """Findings of the rows that are left out."""
    sources: tuple[tuple[str, str], ...]
    """URL and date of reading, by number from 1."""


def matrix(ties: Sequence[Judged], lang: str, *, most: int = MOST_ROWS) -> Matrix:
    """The matrix of what ties."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for one in ties:
        groups.setdefault((one.finding.code, *one.cells.values()), []).append(one)
    ranked = sorted(groups.values(), key=_rank)
    sources: dict[tuple[str, str], int] = {}
    rows = tuple(_row(group, sources, lang) for group in ranked[:most])
    rest = ranked[most:]
    return Matrix(rows=rows, left_out_rows=len(rest), left_out=sum(map(len, rest)), sources=tuple(sources))


def _rank(group: Sequence[Judged]) -> tuple[int, int, str, str]:
    one = group[0]
    return (QUIET.index(one.quiet) if one.quiet else len(QUIET), -len(group), one.finding.code, one.finding.symbol)


def _row(group: Sequence[Judged], sources: dict[tuple[str, str], int], lang: str) -> Row:
    one = group[0]
    places = dict.fromkeys(f"{other.finding.place.path}:{other.finding.place.line}" for other in group)
    symbols = [symbol for symbol, _ in Counter(other.finding.symbol for other in group).most_common()]
    return Row(
        code=one.finding.code, symbols=tuple(symbols[:MOST_SYMBOLS]), more_symbols=len(symbols[MOST_SYMBOLS:]),
        title=title(one.rule, lang, of=symbols[0]), klass=one.rule.klass, quiet=one.quiet, count=len(group),
        files=len({other.finding.place.path for other in group}), places=tuple(places)[:MOST_PLACES],
        squares=tuple(_square(one, name, cell, sources, lang) for name, cell in one.cells.items()),
    )  # fmt: skip


def _square(one: Judged, name: str, cell: Cell, sources: dict[tuple[str, str], int], lang: str) -> Square:
    number = sources.setdefault((cell.source, cell.date or ""), len(sources) + 1) if cell.source else None
    silence = one.silence(name)
    return Square(status=cell.status, silence=silence if silence in QUIET else None, text=told(cell, lang), source=number)
