"""Couplings in files that are neither Python nor C++: containers, dependencies, shell, configuration, build files.

``find`` reads one file. Rules look at the text without its comments and without what is prose (what ``echo`` prints,
descriptions, names of steps); dependencies are read as what they are, by the syntax of each kind of list.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

from sapper.port.finding import Context, Finding, Place
from sapper.port.rule import Rule
from sapper.port.source import Language, Source
from sapper.port.text.prose import masked

_CONTEXT: dict[Language, Context] = {"docker": "build", "requirements": "build", "pyproject": "build", "setup": "build",
                                     "conda": "build", "cmake": "build", "make": "build", "shell": "config", "yaml": "config",
                                     "config": "config"}  # fmt: skip


def find(source: Source, rules: Mapping[str, Rule]) -> list[Finding]:
    """The couplings of one file; of several rules that see the same span, the one with the lowest number."""
    lines = Lines(source)
    found: list[Finding] = []
    taken: list[tuple[int, int]] = []
    text = masked(source)
    for rule in rules.values():
        if source.language not in rule.match.languages:
            continue
        for start, end in _spans(rule, text):
            if not any(start < other_end and other_start < end for other_start, other_end in taken):
                taken.append((start, end))
                found.append(lines.finding(rule, start, end, source.text[start:end]))
    return found


def _spans(rule: Rule, text: str) -> Iterator[tuple[int, int]]:
    for pattern in rule.match.patterns:
        for match in compiled(pattern).finditer(text):
            group = "symbol" if "symbol" in match.re.groupindex and match["symbol"] is not None else 0
            if match.end(group) > match.start(group):
                yield match.span(group)


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A rule's pattern: ``^`` and ``$`` are those of a line; a group ``symbol`` narrows what is shown."""
    return re.compile(pattern, re.MULTILINE)


class Lines:
    """Offsets of a text as places."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._starts = [0, *(match.end() for match in re.finditer("\n", source.text))]

    def finding(self, rule: Rule, start: int, end: int, symbol: str, **values: str) -> Finding:
        """A finding at a span of the text."""
        line, column = self._at(start)
        end_line, end_column = self._at(end)
        text = self._source.text
        first = self._starts[line - 1]
        stop = text.find("\n", first)
        return Finding(
            code=rule.code,
            place=Place(self._source.path, line, column, end_line, end_column),
            symbol=symbol,
            excerpt=text[first : stop if stop >= 0 else None].rstrip("\r"),
            context=_CONTEXT.get(self._source.language, "build"),
            values=values,
        )

    def _at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1]


def of_language(rules: Iterable[Rule], language: Language) -> dict[str, Rule]:
    """The rules that look at files of ``language``."""
    return {rule.code: rule for rule in rules if language in rule.match.languages}
