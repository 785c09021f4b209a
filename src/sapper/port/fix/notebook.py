"""Notebooks: edits of the lines of their code cells that keep every other byte of the JSON.

A cell's source is one string, or a list of strings that Jupyter ends after each line. A changed line is spliced into the
string that holds it, from its first to its last character that differs; a new line becomes a string of the list, with
the white space that stands between the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from sapper.port import notebook
from sapper.port.finding import Unread
from sapper.port.fix.text import Piece, Span, applied
from sapper.port.source import Source

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)
_UNIT = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
"""A character as a string of JSON writes it."""


@dataclass(frozen=True)
class _Character:
    value: str
    span: Span
    literal: int
    """Which of the cell's strings holds it."""


@dataclass
class _Line:
    """A line of a cell: its characters, and its line end where it has one."""

    characters: list[_Character]
    end: _Character | None

    @property
    def text(self) -> str:
        return "".join(one.value for one in self.characters)


@dataclass
class _Cell:
    literals: list[Span]
    """Spans of its strings, quotes included."""
    listed: bool
    lines: list[_Line]


def edited(document: str, source: Source, *, new: str) -> str | None:
    """``document`` with the module ``source`` of its code cells turned into ``new``.

    Returns:
        None where the lines cannot be told apart in the JSON, or where a line of IPython's would have to change.
    """
    cells = _cells(document)
    if cells is None or any(cell.number not in cells for cell in source.cells):
        return None
    owners = [(cells[cell.number], at) for cell in source.cells for at in range(len(cells[cell.number].lines))]
    old = source.text.split("\n")
    if len(owners) != len(old):
        return None
    writer = _Writer(document, owners, old)
    try:
        changed = applied(document, writer.pieces(new.split("\n")))
    except ValueError:  # a line that cannot be edited, or edits that overlap
        return None
    return changed if _is_meant(document, changed, source, new) else None


class _Writer:
    """Edits of the JSON for edits of lines."""

    def __init__(self, document: str, owners: Sequence[tuple[_Cell, int]], old: Sequence[str]) -> None:
        self._document = document
        self._ascii = document.isascii()
        self._owners = owners
        self._old = old

    def pieces(self, new: Sequence[str]) -> list[Piece]:
        """All of them.

        Raises:
            ValueError: A line would change that is not Python's, or is not whole in one string, or goes.
        """
        found: list[Piece] = []
        for tag, first, last, start, end in SequenceMatcher(None, self._old, new, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            if end - start < last - first:
                raise ValueError("a line goes")
            found += [self._replaced(first + step, new[start + step]) for step in range(last - first)]
            added = list(new[start + last - first : end])
            if added:
                found.append(self._inserted(last - 1, added))
        return found

    def _line(self, index: int) -> _Line:
        cell, at = self._owners[index]
        line = cell.lines[at]
        if line.text != self._old[index]:
            raise ValueError("a line of IPython")
        return line

    def _replaced(self, index: int, text: str) -> Piece:
        line = self._line(index)
        old = line.text
        head = _common(old, text)
        tail = min(_common(old[::-1], text[::-1]), len(old) - head, len(text) - head)
        middle = line.characters[head : len(old) - tail]
        if not middle:  # something is put between two characters
            at = line.characters[head - 1].span.end if head else self._start(index)
            return Piece(Span(at, at), self._encoded(text[head : len(text) - tail]))
        if len({one.literal for one in middle}) > 1:
            raise ValueError("a line in two strings")
        return Piece(Span(middle[0].span.start, middle[-1].span.end), self._encoded(text[head : len(text) - tail]))

    def _start(self, index: int) -> int:
        """Where a line's first character stands or would stand."""
        cell, at = self._owners[index]
        line = cell.lines[at]
        first = [*line.characters, *([line.end] if line.end else [])]
        if first:
            return first[0].span.start
        return cell.literals[-1].end - 1

    def _inserted(self, index: int, added: list[str]) -> Piece:
        """New lines below line ``index``; above all where it is -1."""
        if index < 0:
            self._line(0)
            cell, at = self._owners[0][0], self._start(0)
            if cell.listed and at == cell.literals[0].start + 1:
                strings = "".join(f'"{self._encoded(line)}\\n"{self._between(cell, 0)}' for line in added)
                return Piece(Span(at - 1, at - 1), strings)
            return Piece(Span(at, at), "".join(f"{self._encoded(line)}\\n" for line in added))
        self._line(index)
        cell, at = self._owners[index]
        end = cell.lines[at].end
        if end is None:
            return self._at_the_end(cell, cell.lines[at], added)
        literal = cell.literals[end.literal]
        if cell.listed and end.span.end == literal.end - 1:
            strings = "".join(f'{self._between(cell, end.literal)}"{self._encoded(line)}\\n"' for line in added)
            return Piece(Span(literal.end, literal.end), strings)
        return Piece(Span(end.span.end, end.span.end), "".join(f"{self._encoded(line)}\\n" for line in added))

    def _at_the_end(self, cell: _Cell, line: _Line, added: list[str]) -> Piece:
        """Below the last line of a cell, which has no line end."""
        if not line.characters:
            raise ValueError("an empty last line")
        last = line.characters[-1]
        literal = cell.literals[last.literal]
        if not cell.listed or last.span.end != literal.end - 1:
            return Piece(Span(last.span.end, last.span.end), "".join(f"\\n{self._encoded(one)}" for one in added))
        between = self._between(cell, last.literal)
        strings = [f'"{self._encoded(one)}\\n"' for one in added[:-1]] + [f'"{self._encoded(added[-1])}"']
        return Piece(Span(last.span.end, literal.end), '\\n"' + "".join(f"{between}{one}" for one in strings))

    def _between(self, cell: _Cell, index: int) -> str:
        """What stands between two strings of a cell's list."""
        spans = cell.literals
        if len(spans) > 1:
            at = min(index, len(spans) - 2)
            return self._document[spans[at].end : spans[at + 1].start]
        start = spans[0].start
        return "," + self._document[self._document.rindex("[", 0, start) + 1 : start]

    def _encoded(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=self._ascii)[1:-1]


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))


def _is_meant(before: str, after: str, source: Source, new: str) -> bool:
    """Whether nothing but the sources of code cells differs, and they are the module ``new``."""
    try:
        old_tree, new_tree = json.loads(before), json.loads(after)
    except (ValueError, RecursionError):
        return False
    read = notebook.source(after, source.path, encoding=source.encoding)
    if isinstance(read, Unread) or read.text != new or read.shell.split() != source.shell.split():
        return False
    for cell in (*old_tree["cells"], *new_tree["cells"]):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            cell["source"] = None
    return bool(old_tree == new_tree)


# -- Where a cell's lines stand --------------------------------------------------------------------------------------------


def _cells(document: str) -> dict[int, _Cell] | None:
    """Cells of a notebook of format 4 by number, from 1; None where they cannot be told, or one has a source twice."""
    found: dict[int, tuple[list[Span], bool]] = {}
    for path, span in _strings(document):
        if len(path) in (3, 4) and path[0] == "cells" and path[2] == "source":
            number, listed = int(path[1]) + 1, len(path) == 4
            spans, before = found.setdefault(number, ([], listed))
            if before != listed or (spans and not listed) or (listed and path[3] != len(spans)):
                return None
            spans.append(span)
    return {number: _Cell(spans, listed, _lines(document, spans)) for number, (spans, listed) in found.items()}


def _strings(document: str) -> Iterator[tuple[tuple[Any, ...], Span]]:
    """Strings that are values, with the keys and indices that lead there."""
    path: list[Any] = []
    keyed: list[bool] = []
    waits = False
    """Whether an object waits for a key."""
    for token in _TOKEN.finditer(document):
        sign = token[0][0]
        if sign in "{[":
            keyed.append(sign == "{")
            path.append(None if sign == "{" else 0)
            waits = sign == "{"
        elif sign in "}]":
            keyed.pop()
            path.pop()
            waits = False
        elif sign == "," and keyed[-1]:
            waits = True
        elif sign == ",":
            path[-1] += 1
        elif waits:
            path[-1], waits = json.loads(token[0], strict=False), False
        else:
            yield tuple(path), Span(token.start(), token.end())


def _lines(document: str, literals: Sequence[Span]) -> list[_Line]:
    lines = [_Line([], None)]
    for index, literal in enumerate(literals):
        for unit in _UNIT.finditer(document, literal.start + 1, literal.end - 1):
            value = unit[0] if unit[0][0] != "\\" else json.loads(f'"{unit[0]}"')
            character = _Character(value, Span(unit.start(), unit.end()), index)
            if value == "\n":
                lines[-1].end = character
                lines.append(_Line([], None))
            else:
                lines[-1].characters.append(character)
    return lines
