"""The lines of a text in which certain words stand, as a text of their own.

Of a megabyte of configuration a few lines hold a word of the field, and most expressions match inside of one line: they are
run over those lines alone, set one below the other.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import NamedTuple

from sapper.port.vocabulary import Vocabulary, lowered, positions


class Excerpt(NamedTuple):
    """Lines of a text."""

    text: str
    starts: list[int]
    """Offsets of the lines in the excerpt..."""
    origins: list[int]
    """...and in the text that they are from."""

    def offset(self, at: int) -> int:
        """Where in the text an offset of the excerpt lies."""
        line = bisect.bisect_right(self.starts, at) - 1
        return self.origins[line] + at - self.starts[line]


def whole(text: str) -> Excerpt:
    """A text as the excerpt that has all its lines."""
    return Excerpt(text, [0], [0])


class Words:
    """Which words of a vocabulary a text holds, and the lines in which they stand."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._text = text
        self._lowered = lowered(text)
        self.said = vocabulary.said(self._lowered.encode("utf-8", "surrogatepass"))
        self._excerpts: dict[frozenset[str], Excerpt] = {}

    def lines_with(self, words: Iterable[str]) -> Excerpt:
        """The lines in which one of ``words`` stands, without regard to case."""
        wanted = self.said.intersection(words)
        key = frozenset(wanted)
        if key not in self._excerpts:
            text = self._text
            origins = sorted({text.rfind("\n", 0, at) + 1 for at in positions(self._lowered, wanted)})
            parts, starts, length = [], [], 0
            for origin in origins:
                stop = text.find("\n", origin)
                parts.append(text[origin : stop if stop >= 0 else None])
                starts.append(length)
                length += len(parts[-1]) + 1
            self._excerpts[key] = Excerpt("\n".join(parts), starts, origins)
        return self._excerpts[key]
