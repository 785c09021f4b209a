"""Which rule a C++ name belongs to: exact names first, then the pattern with the most letters of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sapper.port.rule import Rule

WORD = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_~]\w*)*")
"""An identifier with its qualification."""

_PART = re.compile(r"\*|\[[^\]]*\]")
_JOINED = re.compile(r"\w|::[A-Za-z_~]")
_MOST_KNOWN = 200_000
"""Words that are remembered; more than any project has."""


class _Pattern(NamedTuple):
    letters: int
    code: str
    literal: str
    """Stands in every word that matches: a cheap test before the expression."""
    expression: re.Pattern[str]
    """For whole lines, one word each."""


def places(code: str, word: str) -> Iterator[int]:
    """Where ``word`` stands as a whole, neither part of an identifier nor of a longer qualified name."""
    length = len(word)
    at = code.find(word)
    while at >= 0:
        end = at + length
        if not (code[at - 1 : at].isalnum() or code[at - 1 : at] == "_" or _JOINED.match(code, end) or _qualified(code, at)):
            yield at
        at = code.find(word, end)


def _qualified(code: str, at: int) -> bool:
    return code[at - 2 : at] == "::" and (code[at - 3 : at - 2].isalnum() or code[at - 3 : at - 2] == "_")


class Names:
    """The names of a set of rules; ``*`` and ``[A-Z]`` in a name are as in a shell."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, str | None] = {}
        self._patterns: list[_Pattern] = []
        for rule in rules:
            for name in rule.match.names:
                if _PART.search(name):
                    self._patterns.append(_pattern(name, rule.code))
                else:
                    self._exact[name] = rule.code
        self._patterns.sort(key=lambda pattern: (-pattern.letters, pattern.code))
        self._known = dict(self._exact)

    def codes(self, words: set[str]) -> dict[str, str]:
        """The rule's code of each word that belongs to one."""
        known = self._known
        new = words.difference(known)
        if new:
            if len(known) > _MOST_KNOWN:
                known = self._known = dict(self._exact)
            known.update(self._learned(new))
        return {word: code for word in words if (code := known.get(word)) is not None}

    def _learned(self, words: Iterable[str]) -> dict[str, str | None]:
        """All words at once, pattern by pattern: a tenth of the time that word by word takes."""
        found: dict[str, str | None] = dict.fromkeys(words)
        lines = "\n".join(found)
        for pattern in self._patterns:
            if pattern.literal in lines:
                for word in pattern.expression.findall(lines):
                    if found[word] is None:
                        found[word] = pattern.code
        return found


def _pattern(name: str, code: str) -> _Pattern:
    literals = _PART.split(name)
    expression = "".join(r"[^\n]*" if part == "*" else part if part.startswith("[") else re.escape(part) for part in _parts(name))
    return _Pattern(sum(map(len, literals)), code, max(literals, key=len), re.compile(f"^{expression}$", re.MULTILINE))


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\*|\[[^\]]*\])", name) if part]
