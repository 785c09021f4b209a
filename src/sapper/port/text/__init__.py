"""Couplings in files that are neither Python nor C++: containers, dependencies, shell, configuration, build files.

``find`` reads one file. Rules look at the text without its comments and without what is prose (what ``echo`` prints,
descriptions, names of steps); dependencies are read as what they are, by the syntax of each kind of list.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sapper.port.finding import Context, Finding, Place, Standing
from sapper.port.rule import Rule
from sapper.port.source import Language, Source
from sapper.port.text import commands, lists
from sapper.port.text.excerpt import Words, whole
from sapper.port.text.guards import guarded
from sapper.port.text.names import Known
from sapper.port.text.one_line import in_one_line
from sapper.port.text.prose import in_documentation, is_sentence, masked
from sapper.port.vocabulary import Vocabulary

SCRIPTS: tuple[Language, ...] = ("docker", "shell", "yaml", "make", "config", "notebook", "cmake")
"""Languages in which install commands stand."""

REST = "other-cuda-word"
"""Name of the rule of words that no other rule explains: it speaks once, on a line where none of the others does."""

_CONTEXT: dict[Language, Context] = {"docker": "build", "requirements": "build", "pyproject": "build", "setup": "build",
                                     "conda": "build", "cmake": "build", "make": "build", "shell": "config", "yaml": "config",
                                     "config": "config"}  # fmt: skip


def find(source: Source, rules: Mapping[str, Rule]) -> list[Finding]:
    """The couplings of one file; of several rules that see the same span, the one with the lowest number."""
    if source.language == "python" and not lists.asks_for_packages(source):
        return []
    text = masked(source)
    every = sorted(_seen(source, text, compiled(rules, source.language)), key=lambda seen: (seen.rule.code, seen.start))
    if not every:
        return []
    lines = Lines(source)
    taken = bytearray(len(text))
    found: list[Finding] = []
    said: set[int] = set()
    inside, documented = guarded(source, text), in_documentation(source.path)
    for seen in every:
        if not any(taken[seen.start : seen.end]):
            taken[seen.start : seen.end] = b"\1" * (seen.end - seen.start)
            line = lines.number(seen.start)
            if seen.rule.name == REST and (line in said or documented or is_sentence(lines.text(line))):
                said.add(line)
                continue
            said.update(range(line, lines.number(seen.end) + 1))
            found.append(lines.finding(seen, inside))
    return found


class Seen(NamedTuple):
    """What a rule sees at a span of the text."""

    rule: Rule
    start: int
    end: int
    symbol: str
    standing: Standing = "ties"
    values: Mapping[str, str] = MappingProxyType({})


def _seen(source: Source, text: str, own: Compiled) -> Iterator[Seen]:
    words = Words(text, own.vocabulary)
    listed = lists.entries(source, text)
    asked_for = () if words.said.isdisjoint(own.tools) else commands.installed(text)
    for asked, kind, optional in (*listed, *asked_for):
        rule = own.packages.rule_of(asked, kind)
        if rule is not None:
            values = {} if asked.version is None else {"version": asked.version}
            yield Seen(rule, asked.start, asked.end, asked.name, "guarded" if optional else "ties", values)
    for rule, written in own.patterns:
        if words.said.isdisjoint(rule.match.words):
            continue
        pattern, in_a_line = _ready(written)
        read = words.lines_with(rule.match.words) if in_a_line else whole(text)
        for match in pattern.finditer(read.text):
            group = "symbol" if "symbol" in pattern.groupindex and match["symbol"] is not None else 0
            if match.end(group) > match.start(group):
                start = read.offset(match.start(group))
                yield Seen(rule, start, start + match.end(group) - match.start(group), match[group])


class Compiled(NamedTuple):
    """Rules as files of one language are matched against them."""

    packages: Known
    patterns: tuple[tuple[Rule, str], ...]
    """Rule and expression, as it is written: of the hundreds a tree needs a few. ``^`` and ``$`` are those of a line; a group
    ``symbol`` narrows what is shown."""
    tools: tuple[str, ...]
    """Words of which a text holds one where it installs something; none in languages in which nothing is installed."""
    vocabulary: Vocabulary
    """The words of which a text holds one where a pattern matches, and those of ``tools``."""


_compiled: dict[tuple[int, Language], tuple[Mapping[str, Rule], Compiled]] = {}


def compiled(rules: Mapping[str, Rule], language: Language) -> Compiled:
    """``rules`` for files of ``language``, made once: a scan asks with the same rules for every file."""
    key = (id(rules), language)
    if key not in _compiled or _compiled[key][0] is not rules:
        own = [rule for rule in rules.values() if language in rule.match.languages]
        patterns = tuple((rule, pattern) for rule in own for pattern in rule.match.patterns if language != "python")
        tools = commands.TOOLS if language in SCRIPTS else ()
        vocabulary = Vocabulary((*tools, *(word for rule, _ in patterns for word in rule.match.words)))
        _compiled[key] = (rules, Compiled(Known(own), patterns, tools, vocabulary))
    return _compiled[key][1]


@functools.cache
def _ready(pattern: str) -> tuple[re.Pattern[str], bool]:
    """An expression ready for use, and whether what it matches lies in one line, as of most: then lines without a word of its rule
    need not be read."""
    return re.compile(pattern, re.MULTILINE), in_one_line(pattern)


class Lines:
    """Offsets of a text as places."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._starts = [0, *(match.end() for match in re.finditer("\n", source.text))]

    def finding(self, seen: Seen, inside: Mapping[int, Standing]) -> Finding:
        """What was seen, as a finding; ``inside`` says how lines in branches stand."""
        line, column = self._at(seen.start)
        end_line, end_column = self._at(seen.end)
        return Finding(
            code=seen.rule.code,
            place=Place(self._source.path, line, column, end_line, end_column),
            symbol=seen.symbol,
            excerpt=self.text(line),
            standing=inside.get(line, "ties") if seen.standing == "ties" else seen.standing,
            context=_CONTEXT.get(self._source.language, "build"),
            values=dict(seen.values),
        )

    def number(self, offset: int) -> int:
        """The line, from 1, that an offset lies in."""
        return bisect_right(self._starts, offset)

    def text(self, number: int) -> str:
        """A line without its end."""
        first = self._starts[number - 1]
        stop = self._source.text.find("\n", first)
        return self._source.text[first : stop if stop >= 0 else None].rstrip("\r")

    def _at(self, offset: int) -> tuple[int, int]:
        line = self.number(offset)
        return line, offset - self._starts[line - 1]
