"""Most statements of a file hold nothing of interest, and most of a scan's time is the parser's: leave them out of the parse.

``thin`` blanks whole statements, at any depth, and keeps the heads of the compound statements around those that stay, so that
all that stays keeps its line and column. A function or a class that holds nothing becomes one line that binds its name, as
cheaply as can be.

Statements are told by indentation, without a grammar: strings in triple quotes and lines joined by a backslash are
recognised, and brackets must close inside of what is taken away or kept as one. Where that does not hold, and where the
result does not parse, the text is parsed whole.

What is not looked into costs no step of Python: the statements of a block are found by one regular expression that begins
with a line feed and the block's indentation, and nothing goes through the lines of a function that holds nothing.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from sapper.port.python.docstrings import triple_quoted
from sapper.port.python.lines import Lines

_DEFINED = re.compile(r"\n[ \t]*(?:async[ \t]+)?(def|class)[ \t]+(\w+)")
_QUOTED = re.compile(r"\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.DOTALL)
_BEGINS = r"(@|[a-z]+|[^\s#)\]}])"
"""What a line that begins a statement begins with: its keyword, or the first character of something else."""
_FIRST = re.compile(rf"\n([^\S\n]*){_BEGINS}")
_CLAUSES = frozenset(("elif", "else", "except", "finally"))
_COMPOUND = frozenset(("if", "for", "while", "with", "try", "async"))
_DEFINES = frozenset(("def", "class"))
_BINDING = frozenset(("import", "from", "global", "nonlocal"))
"""Statements that decide what a name stands for elsewhere."""


class Thinned(NamedTuple):
    """A text to parse, and the lines (from 1, both inclusive) that are left out of it."""

    text: str
    left_out: list[tuple[int, int]]


class _Unsure(Exception):
    """Where statements begin and end cannot be told."""


_Chain = tuple[list[int], str, int]
"""A statement: where its clauses, or its decorators and then itself, begin; its keyword; and where the next statement begins."""


class _Block(NamedTuple):
    """The statements below a head."""

    start: int
    """Where the first of them begins."""
    stop: int
    indent: str
    head: str
    """Keyword of the statement whose block it is; empty for the file."""
    asked_for: bool
    """What it does, statement by statement, tells what the test of an ``if``, or an import that may fail, is for."""
    tail: bool
    """A definition ends where it ends."""


class _Gone(NamedTuple):
    """Lines that are left out, and what stands in their place: on the first of them, and on another one."""

    start: int
    stop: int
    first: str
    at: int
    other: str


def thin(lines: Lines, interest: Sequence[int]) -> Thinned:
    """A text without the statements that hold none of the lines (from 1, sorted) of ``interest``."""
    try:
        return _Thinner(lines, interest).thinned()
    except _Unsure:
        return Thinned("\n".join(lines.all), [])


class _Thinner:
    """Works on one file. The place of a line is that of the line feed before it, in a text that begins with one."""

    def __init__(self, lines: Lines, interest: Sequence[int]) -> None:
        self.text = "\n" + "\n".join(lines.all)
        if "\n\t" in self.text and "\n " in self.text:
            raise _Unsure  # how far in a line stands is for the parser to say
        self.code = _strings_in_one_line(self.text)
        self.places = [0, *lines.ends]
        """Of all lines, and the end of the text."""
        self.interest = [*(self.places[line - 1] for line in interest), len(self.text)]
        """Places of the lines of interest, and the end of the text."""
        self.gone: list[_Gone] = []
        """In order."""
        self._functions = 0
        """How many functions are around what is being thinned."""

    def thinned(self) -> Thinned:
        first = self._first(0, len(self.text))
        if first is not None:
            self._block(_Block(first.start(), len(self.text), first[1], "", asked_for=False, tail=False))
        runs: list[tuple[int, int]] = []
        parts: list[str] = []
        at = 0
        for gone in self.gone:
            parts += (self.text[at : gone.start], self._in_place_of(gone))
            at = gone.stop
            joins = bool(runs) and runs[-1][1] == gone.start
            runs[-1:] = [(runs[-1][0], gone.stop)] if joins else [*runs[-1:], (gone.start, gone.stop)]
        for start, stop in runs:
            self._check(start, stop)
        parts.append(self.text[at:])
        number = functools.partial(bisect.bisect_left, self.places)
        return Thinned("".join(parts)[1:], [(number(start) + 1, number(stop)) for start, stop in runs])

    def _block(self, block: _Block) -> None:
        chains = self._chains(block)
        due = -1
        for number, chain in enumerate(chains):
            parts, keyword, stop = chain
            start = parts[0]
            if due < start:
                due = self.interest[bisect.bisect_left(self.interest, start)]
            tail = block.tail and number == len(chains) - 1
            if due < stop or (block.asked_for and keyword not in _DEFINES):
                self._keep(chain, block.indent, tail=tail)
            elif keyword in _DEFINES:
                self._stub(chain, block.indent, tail=tail)
            elif keyword in _COMPOUND and self._imports(start, stop):
                self._keep(chain, block.indent, tail=tail)
            elif keyword in _BINDING or (keyword == "return" and self.code.find("skip", start, self._line_end(start)) >= 0):
                self._check(start, stop)
            else:
                self._leave_out(chain, block.indent, first=bool(block.head) and number == 0, tail=tail)

    def _chains(self, block: _Block) -> list[_Chain]:
        """The statements of a block."""
        code = self.code
        parts: list[list[int]] = []
        keywords: list[str] = []
        last = ""
        for found in _statement(block.indent).finditer(code, block.start, block.stop):
            at, keyword = found.start(), found[1]
            if code[at - 1] == "\\" and at:
                continue  # joined to the line before
            if keyword == "async" and _DEFINED.match(code, at):
                keyword = "def"
            if keyword in _CLAUSES and last in _COMPOUND:
                parts[-1].append(at)
                continue
            if last == "@":
                parts[-1].append(at)
                keywords[-1] = keyword
            else:
                parts.append([at])
                keywords.append(keyword)
            last = keyword
        stops = [*(one[0] for one in parts[1:]), block.stop]
        return list(zip(parts, keywords, stops, strict=True))

    def _leave_out(self, chain: _Chain, indent: str, *, first: bool, tail: bool) -> None:
        """Blank a statement; ``first`` and ``tail`` of a block leave something where the block begins and where it ends."""
        start, stop = chain[0][0], chain[2]
        stands_in = f"{indent}pass" if first else ""
        if not tail:
            self.gone.append(_Gone(start, stop, stands_in, start, stands_in))
            return
        at, end = self._code_end(start, stop)
        if end <= len(indent):
            self._keep(chain, indent, tail=True)
        else:
            self.gone.append(_Gone(start, stop, stands_in, at, indent.ljust(end, "_")))

    def _stub(self, chain: _Chain, indent: str, *, tail: bool) -> None:
        """Leave of a function or a class one line that binds its name; ``tail`` of a block also where it ends."""
        parts, _keyword, stop = chain
        start, head = parts[0], parts[-1]
        found = _DEFINED.match(self.code, head)
        if found is None:
            raise _Unsure
        stub = f"{indent}class {found[2]}:" if found[1] == "class" else f"{indent}def {found[2]}():"
        if not tail:
            # Inside of a function the syntax tree tells functions and variables apart; elsewhere a tuple is bound as well.
            bound = f"{stub} pass" if self._functions else f"{indent}{found[2]} = ()"
            self.gone.append(_Gone(start, stop, bound, start, bound))
            return
        at, end = self._code_end(start, stop)
        if at == head or end <= len(indent) + 1:
            self._keep(chain, indent, tail=True)
        else:
            self.gone.append(_Gone(start, stop, stub, at, f"{indent} ".ljust(end, "_")))

    def _code_end(self, start: int, stop: int) -> tuple[int, int]:
        """The last line of a statement, and the column after it; the column 0 where it cannot be told."""
        while start < stop:
            at = self.code.rfind("\n", start, stop)
            line = self.code[at + 1 : stop].rstrip()
            if line and not line.lstrip().startswith("#"):
                if "#" in line:
                    line = _QUOTED.sub(lambda found: "" if found[0][0] == "#" else found[0], line).rstrip()
                end = at + 1 + len(line)
                at = self.text.rfind("\n", 0, end)  # behind all but the last line of a string
                line = self.text[at + 1 : end]
                return at, len(line) if line.isascii() and "\t" not in line else 0
            stop = at
        raise _Unsure

    def _keep(self, chain: _Chain, indent: str, *, tail: bool) -> None:
        """Keep a statement, thinned inside."""
        parts, keyword, stop = chain
        if keyword in _DEFINES:
            self._functions += keyword == "def"
            self._inside(self._head_end(parts[-1], stop), stop, indent, keyword, tail=True)
            self._functions -= keyword == "def"
        elif keyword in _COMPOUND:
            stops = [*parts[1:], stop]
            ends = list(map(self._head_end, parts, stops))
            asked_for = (keyword == "try" and self._imports(parts[0], stop)) or (
                keyword == "if" and any(self._holds(start, end or stop) for start, end, stop in zip(parts, ends, stops, strict=True))
            )
            for end, its_stop in zip(ends, stops, strict=True):
                self._inside(end, its_stop, indent, keyword, asked_for=asked_for, tail=tail and its_stop == stop)
        else:
            self._check(parts[0], stop)

    def _inside(self, head_end: int | None, stop: int, indent: str, head: str, *, tail: bool, asked_for: bool = False) -> None:
        """Thin the block of a clause or a definition, whose own ``indent`` and head are given."""
        if head_end is None:  # all in one line
            return
        first = self._first(head_end, stop)
        if first is None or len(first[1]) <= len(indent):
            raise _Unsure
        self._block(_Block(first.start(), stop, first[1], head, asked_for=asked_for, tail=tail))

    def _first(self, start: int, stop: int) -> re.Match[str] | None:
        """The first line between two places that begins a statement."""
        for found in _FIRST.finditer(self.code, start, stop):
            if not found.start() or self.code[found.start() - 1] != "\\":
                return found
        return None

    def _head_end(self, start: int, stop: int) -> int | None:
        """The line after the head of a compound statement; None where its block is not on lines of its own."""
        depth, at = 0, start
        while at < stop:
            end = self._line_end(at)
            line = self.code[at + 1 : end]
            if "#" in line or '"' in line or "'" in line:
                if '"""' in line or "'''" in line:
                    raise _Unsure
                line = _QUOTED.sub("", line)
            depth += line.count("(") + line.count("[") + line.count("{") - line.count(")") - line.count("]") - line.count("}")
            line = line.rstrip()
            at = end
            if depth == 0 and not line.endswith("\\"):
                return at if line.endswith(":") else None
        raise _Unsure

    def _line_end(self, at: int) -> int:
        end = self.code.find("\n", at + 1)
        return end if end >= 0 else len(self.code)

    def _holds(self, start: int, stop: int) -> bool:
        return self.interest[bisect.bisect_left(self.interest, start)] < stop

    def _imports(self, start: int, stop: int) -> bool:
        return self.code.find("import ", start, stop) >= 0

    def _check(self, start: int, stop: int) -> None:
        """Brackets that open in these lines must close there."""
        code = self.code[start:stop]
        if not (_balanced(code) or _balanced(_QUOTED.sub("", code))):
            raise _Unsure

    def _in_place_of(self, gone: _Gone) -> str:
        """As many lines as are gone."""
        before, after = self.text.count("\n", gone.start, gone.at), self.text.count("\n", gone.at, gone.stop)
        return "\n".join(("", *([gone.first] if before else []), *[""] * (before - 1), gone.other, *[""] * (after - 1)))


@functools.lru_cache(maxsize=256)
def _statement(indent: str) -> re.Pattern[str]:
    """Finds the lines that begin a statement of a block: the search for what all of them begin with goes through the text fast."""
    return re.compile(rf"\n{re.escape(indent)}{_BEGINS}")


def _balanced(text: str) -> bool:
    return text.count("(") == text.count(")") and text.count("[") == text.count("]") and text.count("{") == text.count("}")


def _strings_in_one_line(text: str) -> str:
    """A text of the same length, without what strings in triple quotes over several lines hold."""
    parts: list[str] = []
    at = 0
    for start, stop in triple_quoted(text):
        if start < 0:
            raise _Unsure
        if text.find("\n", start, stop) >= 0:
            parts += (text[at : start + 3], "_" * (stop - start - 6))
            at = stop - 3
    return "".join((*parts, text[at:])) if parts else text
