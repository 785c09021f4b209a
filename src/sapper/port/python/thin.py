"""Most statements of a file hold nothing of interest, and most of a scan's time is the parser's: leave them out of the parse.

``thin`` blanks whole statements, at any depth, and keeps the heads of the compound statements around those that stay, so that
all that stays keeps its line and column. A function or a class that holds nothing becomes one line that binds its name, as
cheaply as can be.

Statements are told by indentation, without a grammar: strings in triple quotes and lines joined by a backslash are
recognised, and brackets must close inside of what is taken away or kept as one. Where that does not hold, and where the
result does not parse, the text is parsed whole.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import NamedTuple

_TRIPLE = re.compile(r"\"\"\"|'''")
_KEYWORD = re.compile(r"@|[a-z]+")
_DEFINED = re.compile(r"[ \t]*(?:async[ \t]+)?(def|class)[ \t]+(\w+)")
_QUOTED = re.compile(r"\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.DOTALL)
_CLAUSES = frozenset(("elif", "else", "except", "finally"))
_COMPOUND = frozenset(("if", "for", "while", "with", "try", "async"))
_DEFINES = frozenset(("def", "class"))
_BINDING = frozenset(("import", "from", "global", "nonlocal"))
"""Statements that decide what a name stands for elsewhere."""
_NO_STARTER = frozenset("#)]}")
"""What a line that begins a statement does not begin with."""


class Thinned(NamedTuple):
    """A text to parse, and the lines (from 1, both inclusive) that are left out of it."""

    text: str
    left_out: list[tuple[int, int]]


class _Unsure(Exception):
    """Where statements begin and end cannot be told."""


class _Chain(NamedTuple):
    """A statement: the lines (from 0) at which its clauses, or its decorators and then itself, begin; and its keyword."""

    parts: list[int]
    keyword: str
    stop: int


class _Block(NamedTuple):
    """The statements below a head."""

    first: int
    last: int
    """Index of the first line that begins a statement in it, and of the first one after it."""
    stop: int
    """The line after it."""
    head: str
    """Keyword of the statement whose block it is; empty for the file."""
    asked_for: bool
    """What it does, statement by statement, tells what the test of an ``if``, or an import that may fail, is for."""
    tail: bool
    """A definition ends where it ends."""


def thin(lines: Sequence[str], interest: Sequence[int]) -> Thinned:
    """The lines of a file without the statements that hold none of the lines (from 1, sorted) of ``interest``."""
    try:
        return _Thinner(lines, interest).thinned()
    except _Unsure:
        return Thinned("\n".join(lines), [])


class _Thinner:
    """Works on one file; lines count from 0."""

    def __init__(self, lines: Sequence[str], interest: Sequence[int]) -> None:
        self.lines = lines
        self.interest = interest
        self.out = list(lines)
        self.gone: list[tuple[int, int]] = []
        """Runs of lines that are left out, in order, the end exclusive."""
        self._functions = 0
        """How many functions are around what is being thinned."""
        self.inside = _in_strings(lines)
        self.starters, self.widths = _starters(lines, self.inside)

    def thinned(self) -> Thinned:
        if self.starters:
            self._block(_Block(0, len(self.starters), len(self.lines), "", asked_for=False, tail=False))
        for first, stop in self.gone:
            self._check(first, stop)
        return Thinned("\n".join(self.out), [(first + 1, stop) for first, stop in self.gone])

    def _block(self, block: _Block) -> None:
        chains = self._chains(block)
        for number, chain in enumerate(chains):
            last = number == len(chains) - 1
            start, keyword = chain.parts[0], chain.keyword
            if self._holds(start, chain.stop) or (block.asked_for and keyword not in _DEFINES):
                self._keep(chain, tail=block.tail and last)
            elif keyword in _DEFINES:
                self._stub(chain, tail=block.tail and last)
            elif keyword in _COMPOUND and self._imports(start, chain.stop):
                self._keep(chain, tail=block.tail and last)
            elif keyword in _BINDING or (keyword == "return" and "skip" in self.lines[start]):
                self._check(start, chain.stop)
            else:
                self._leave_out(chain, first=bool(block.head) and number == 0, tail=block.tail and last)

    def _leave_out(self, chain: _Chain, *, first: bool, tail: bool) -> None:
        """Blank a statement; ``first`` and ``tail`` of a block leave something where the block begins and where it ends."""
        start = chain.parts[0]
        indent = self._indent(start)
        if tail:
            at, end = self._code_end(chain)
            if end <= len(indent):
                self._keep(chain, tail=True)
                return
            self._drop(start, chain.stop)
            self.out[at] = indent + "_" * (end - len(indent))
            first = first and at != start
        else:
            self._drop(start, chain.stop)
        if first:
            self.out[start] = indent + "pass"

    def _stub(self, chain: _Chain, *, tail: bool) -> None:
        """Leave of a function or a class one line that binds its name; ``tail`` of a block also where it ends."""
        head = chain.parts[-1]
        found = _DEFINED.match(self.lines[head])
        if found is None:
            raise _Unsure
        start, indent = chain.parts[0], self._indent(head)
        stub = f"{indent}class {found[2]}:" if found[1] == "class" else f"{indent}def {found[2]}():"
        if not tail:
            self._drop(start, chain.stop)
            # Inside of a function the syntax tree tells functions and variables apart; elsewhere a tuple is bound as well.
            self.out[start] = f"{stub} pass" if self._functions else f"{indent}{found[2]} = ()"
            return
        at, end = self._code_end(chain)
        if at == head or end <= len(indent) + 1:
            self._keep(chain, tail=True)
            return
        self._drop(start, chain.stop)
        self.out[start] = stub
        self.out[at] = f"{indent} ".ljust(end, "_")

    def _code_end(self, chain: _Chain) -> tuple[int, int]:
        """The last line of a statement, and the column after it; the column 0 where it cannot be told."""
        for at in range(chain.stop - 1, chain.parts[0] - 1, -1):
            line = self.lines[at].rstrip()
            if line and (at in self.inside or not line.lstrip().startswith("#")):
                if "#" in line:
                    if at in self.inside:
                        return at, 0
                    line = _QUOTED.sub(lambda found: "" if found[0][0] == "#" else found[0], line).rstrip()
                return at, len(line) if line.isascii() and "\t" not in line else 0
        raise _Unsure

    def _chains(self, block: _Block) -> list[_Chain]:
        """The statements of a block."""
        starters, widths, lines = self.starters, self.widths, self.lines
        indent = widths[block.first]
        inside = zip(starters[block.first : block.last], widths[block.first : block.last], strict=True)
        own = [at for at, width in inside if width == indent]
        parts: list[list[int]] = []
        keywords: list[str] = []
        for at in own:
            found = _KEYWORD.match(lines[at], indent)
            keyword = found[0] if found else ""
            if keyword == "async" and _DEFINED.match(lines[at]):
                keyword = "def"
            if parts and keyword in _CLAUSES and keywords[-1] in _COMPOUND:
                parts[-1].append(at)
            elif parts and keywords[-1] == "@":
                parts[-1].append(at)
                keywords[-1] = keyword
            else:
                parts.append([at])
                keywords.append(keyword)
        stops = [*(one[0] for one in parts[1:]), block.stop]
        return [_Chain(*chain) for chain in zip(parts, keywords, stops, strict=True)]

    def _keep(self, chain: _Chain, *, tail: bool) -> None:
        """Keep a statement, thinned inside."""
        if chain.keyword in _DEFINES:
            self._functions += chain.keyword == "def"
            self._inside(chain.parts[-1], chain.stop, chain.keyword, tail=True)
            self._functions -= chain.keyword == "def"
        elif chain.keyword in _COMPOUND:
            clauses = list(zip(chain.parts, [*chain.parts[1:], chain.stop], strict=True))
            ends = [self._head_end(start, stop) for start, stop in clauses]
            asked_for = (chain.keyword == "try" and self._imports(chain.parts[0], chain.stop)) or (
                chain.keyword == "if" and any(self._holds(start, end or stop) for (start, stop), end in zip(clauses, ends, strict=True))
            )
            for start, stop in clauses:
                self._inside(start, stop, chain.keyword, asked_for=asked_for, tail=tail and stop == chain.stop)
        else:
            self._check(chain.parts[0], chain.stop)

    def _inside(self, start: int, stop: int, head: str, *, tail: bool, asked_for: bool = False) -> None:
        """Thin the block of a clause or a definition that begins at a line."""
        end = self._head_end(start, stop)
        if end is None:  # all in one line
            return
        first, last = bisect.bisect_left(self.starters, end), bisect.bisect_left(self.starters, stop)
        if first == last or self.widths[first] <= len(self._indent(start)):
            raise _Unsure
        self._block(_Block(first, last, stop, head, asked_for=asked_for, tail=tail))

    def _head_end(self, start: int, stop: int) -> int | None:
        """The line after the head of a compound statement; None where its block is not on lines of its own."""
        depth, at = 0, start
        while at < stop:
            line = self.lines[at]
            if "#" in line or '"' in line or "'" in line:
                if '"""' in line or "'''" in line:
                    raise _Unsure
                line = _QUOTED.sub("", line)
            depth += line.count("(") + line.count("[") + line.count("{") - line.count(")") - line.count("]") - line.count("}")
            line = line.rstrip()
            at += 1
            if depth == 0 and not line.endswith("\\"):
                return at if line.endswith(":") else None
        raise _Unsure

    def _drop(self, start: int, stop: int) -> None:
        self.out[start:stop] = [""] * (stop - start)
        if self.gone and self.gone[-1][1] == start:
            self.gone[-1] = (self.gone[-1][0], stop)
        else:
            self.gone.append((start, stop))

    def _indent(self, at: int) -> str:
        line = self.lines[at]
        return line[: len(line) - len(line.lstrip())]

    def _check(self, start: int, stop: int) -> None:
        if not self._closed(start, stop):
            raise _Unsure

    def _holds(self, start: int, stop: int) -> bool:
        at = bisect.bisect_right(self.interest, start)
        return at < len(self.interest) and self.interest[at] <= stop

    def _imports(self, start: int, stop: int) -> bool:
        return any("import " in self.lines[at] for at in range(start, stop))

    def _closed(self, start: int, stop: int) -> bool:
        """Whether brackets that open in these lines close there."""
        text = self.lines[start] if stop == start + 1 else "\n".join(self.lines[start:stop])
        return _balanced(text) or _balanced(_QUOTED.sub("", text))


def _balanced(text: str) -> bool:
    return text.count("(") == text.count(")") and text.count("[") == text.count("]") and text.count("{") == text.count("}")


def _starters(lines: Sequence[str], inside: set[int]) -> tuple[list[int], list[int]]:
    """Lines that begin a statement, or go on with one further in, and how far in each stands."""
    starters: list[int] = []
    widths: list[int] = []
    tabs = spaces = joined = False
    for at, line in enumerate(lines):
        code = line.lstrip()
        if not code:
            joined = False
            continue
        if code[0] not in _NO_STARTER and not joined and at not in inside:
            width = len(line) - len(code)
            starters.append(at)
            widths.append(width)
            if width:
                tabs, spaces = tabs or line[0] == "\t", spaces or line[0] == " "
        joined = line[-1] == "\\"
    if tabs and spaces:
        raise _Unsure
    return starters, widths


def _in_strings(lines: Sequence[str]) -> set[int]:
    """Lines that begin inside a string in triple quotes."""
    inside: set[int] = set()
    opened: tuple[str, int] | None = None
    for at, line in enumerate(lines):
        if '"""' not in line and "'''" not in line:
            continue
        for found in _TRIPLE.finditer(line):
            if opened is None:
                before = line[: found.start()]
                if before.lstrip().startswith("#"):
                    break
                if "#" in before or before.count('"') % 2 or before.count("'") % 2:
                    raise _Unsure
                opened = (found[0], at)
            elif found[0] == opened[0] and not line[: found.start()].endswith("\\"):
                inside.update(range(opened[1] + 1, at + 1))
                opened = None
    if opened is not None:
        raise _Unsure
    return inside
