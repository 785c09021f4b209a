"""Findings for a reader: one line each (``concise``), or with the source, a caret under the span and the verdicts (``full``)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from sapper import messages
from sapper.port.finding import Place
from sapper.port.report.judged import Judged
from sapper.port.report.rulepage import grouped, read, title
from sapper.port.rule import Grade
from sapper.port.verdict import Cell

_TAB = 4
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}


def concise(one: Judged) -> str:
    """``path:line:column: CODE title [silent]``, as editors and CI read it."""
    marks = [messages.text(f"port.silence.{one.quiet}")] if one.quiet else []
    if one.finding.standing != "ties":
        marks = [messages.text(f"port.standing.{one.finding.standing}")]
    tail = f" [{', '.join(marks)}]" if marks else ""
    return f"{spot(one.finding.place)}: {one.finding.code} {heading(one)}{tail}"


def full(one: Judged) -> str:
    """The finding as a compiler would show it, and what becomes of it on each target."""
    gutter = " " * len(str(one.finding.place.line))
    lines = [f"{one.finding.code} {heading(one)}", f"{gutter}--> {spot(one.finding.place)}"]
    if one.finding.excerpt.strip():
        source, caret = _underlined(one)
        lines += [f"{gutter} |", f"{one.finding.place.line} | {source}", f"{gutter} | {caret}", f"{gutter} |"]
    lines += [f"{gutter} = {note}" for note in _notes(one)]
    lines += [f"help: {_help(one.rule.fix)}"]
    return "\n".join(lines)


def heading(one: Judged) -> str:
    """The rule's title with the symbol of the finding, on one line and without control characters."""
    return plain(title(one.rule, of=one.finding.symbol))


def plain(text: str) -> str:
    """``text`` on one line, with control characters as escapes: names come from files that anybody may have written."""
    return " ".join(text.split()).translate(_CONTROL)


def spot(place: Place) -> str:
    """``path:line:column``, the column from 1 as editors count; of a notebook with the cell."""
    cell = f":{messages.text('port.cell', number=place.cell)}" if place.cell is not None else ""
    return f"{place.path.translate(_CONTROL)}{cell}:{place.line}:{place.column + 1}"


def _notes(one: Judged) -> Iterator[str]:
    finding, text = one.finding, messages.text
    loud = text(f"port.silence.{one.quiet}") if one.quiet else text("port.silence.loud")
    standing, context = text(f"port.standing.{finding.standing}"), text(f"port.context.{finding.context}")
    yield text("port.about", klass=text(f"port.class.{one.rule.klass}"), loud=loud, standing=standing, context=context)
    if finding.because:
        yield text("port.because", place=finding.because)
    for names, cell in grouped(one.cells):
        yield f"{', '.join(names)}: {told(cell)}"


def in_words(cells: Mapping[str, Cell]) -> str:
    """The word for each target, in a line: ``shim: ascend, mlu; works: rocm``."""
    by_word: dict[str, list[str]] = {}
    for name, cell in cells.items():
        by_word.setdefault(messages.text(f"port.status.{cell.status}"), []).append(name)
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in by_word.items())


def told(cell: Cell, lang: str | None = None) -> str:
    """What a cell says, in one line with its source."""
    text = messages.text(f"port.status.{cell.status}", lang)
    if cell.silence:
        text += f" ({messages.text(f'port.silence.{cell.silence}', lang)})"
    note = cell.note_zh if (lang or messages.language()) == "zh" else cell.note_en
    more = "; ".join(filter(None, (cell.equivalent, note)))
    source = "".join(f" <{url}, {date}>" for url, date in read(cell).items())
    return plain(f"{text}{': ' if more else ''}{more}{source}")


def _help(fix: Grade) -> str:
    return messages.text(f"port.help.{fix}")


def _underlined(one: Judged) -> tuple[str, str]:
    """The source line with tabs as spaces, and the carets under the span, by the width that characters have on a terminal."""
    place, excerpt = one.finding.place, one.finding.excerpt
    end = place.end_column if place.end_line == place.line else len(excerpt.rstrip())
    start, stop = (_width(excerpt[:column].translate(_CONTROL)) for column in (place.column, end))
    return excerpt.translate(_CONTROL).expandtabs(_TAB).rstrip(), " " * start + "^" * max(1, stop - start)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text.expandtabs(_TAB))
