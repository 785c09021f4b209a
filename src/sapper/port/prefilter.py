"""Which files can hold a finding at all: a few words, looked for before anything is decoded or parsed.

A file without one of them cannot name CUDA. It may still carry what another file asked CUDA for; those files are found by
what they import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sapper.port import native
from sapper.port.rule import Rule
from sapper.port.source import Language
from sapper.port.text import SCRIPTS, commands
from sapper.port.vocabulary import Vocabulary

_OURS = "sapper:"
"""A comment that keeps nothing is seen too."""

_NATIVE = tuple(sign.encode() for sign in native.SIGNS)


class Prefilter:
    """The words of a set of rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = tuple(rules)
        self._packages = frozenset(word for rule in rules for word in _packages(rule))
        self._patterns: dict[str, frozenset[str]] = {}
        for language in {language for rule in rules for language in rule.match.languages}:
            own = (rule for rule in rules if language in rule.match.languages and rule.match.patterns)
            self._patterns[language] = frozenset(word.lower() for rule in own for word in rule.match.words) | {_OURS}
        self._vocabulary = Vocabulary({_OURS, *commands.TOOLS, *self._packages, *frozenset().union(*self._patterns.values())})

    def hits(self, data: bytes, language: Language) -> bool:
        """May ``data``, a file of ``language``, hold a finding? The scanner of Python looks for its words itself, and once."""
        if language in ("python", "notebook", "cuda"):
            return True
        if language == "cpp":
            return any(sign in data for sign in _NATIVE)
        said = self._vocabulary.said(data.lower())
        if not said.isdisjoint(self._patterns.get(language, ())):
            return True
        asks = language not in SCRIPTS or not said.isdisjoint(commands.TOOLS)
        return asks and not said.isdisjoint(self._packages)


def _packages(rule: Rule) -> set[str]:
    names = (re.sub(r"^\w+:|\[.*|[=*].*", "", name.lower()) for name in rule.match.packages)
    return {max(re.split(r"[-_.]", name), key=len) for name in names} - {""}
