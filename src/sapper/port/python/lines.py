"""A text by lines, as Python's parser counts them, and where words stand in it."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Words(NamedTuple):
    """Pieces of text, in lower case, by which a line is worth a look."""

    anywhere: tuple[str, ...]
    imported: tuple[str, ...]
    """Those that count on a line that speaks of importing: names of packages, which are used by what is imported."""


class Lines:
    """The lines of ``text``; lines count from 1, positions and columns from 0, in characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._said: tuple[Words, list[int]] | None = None

    @functools.cached_property
    def all(self) -> list[str]:
        """The lines without their ends."""
        text = self.text
        return (text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text).split("\n")

    @functools.cached_property
    def _ends(self) -> list[int]:
        if "\r" in self.text:
            return [match.end() for match in re.finditer(r"\r\n|\n|\r", self.text)]
        return list(itertools.accumulate(len(line) + 1 for line in self.all))

    def line_at(self, position: int) -> int:
        """The line in which a position is."""
        return bisect.bisect_right(self._ends, position) + 1

    def column(self, line: int, column_bytes: int) -> int:
        """The parser's column, which counts bytes of UTF-8, in characters."""
        text = self.all[line - 1] if line <= len(self.all) else ""
        return column_bytes if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:column_bytes].decode("utf-8", "ignore"))

    def positions(self, words: Iterable[str], *, lower: bool = False, whole: bool = False) -> Iterator[int]:
        """Where ``words`` stand, one position for each line and word.

        Args:
            words: What to look for.
            lower: Case does not count, and ``words`` are in lower case.
            whole: Not as a part of a longer name.
        """
        text = self._lowered if lower else self.text
        for word in words:
            at = text.find(word)
            while at >= 0:
                if whole and not _stands_alone(text, at, at + len(word)):
                    at = text.find(word, at + 1)
                    continue
                yield at
                following = text.find("\n", at)
                at = text.find(word, following + 1) if following >= 0 else -1

    def said(self, words: Words) -> list[int]:
        """Positions of ``words`` without regard to case; worked out once for the same words."""
        if self._said is None or self._said[0] is not words:
            self._said = (words, [*self.positions(words.anywhere, lower=True), *self._imported(words.imported)])
        return self._said[1]

    def _imported(self, words: Sequence[str]) -> Iterator[int]:
        """Starts of lines that speak of importing one of ``words``."""
        lowered = self._lowered
        starts = [lowered.rfind("\n", 0, at) + 1 for at in self.positions(("import",), lower=True)]
        ends = [lowered.find("\n", start) for start in starts]
        lines = [lowered[start : end if end >= 0 else None] for start, end in zip(starts, ends, strict=True)]
        together = "\n".join(lines)
        present = [word for word in words if word in together]
        if present:
            yield from (start for start, line in zip(starts, lines, strict=True) if any(word in line for word in present))

    @functools.cached_property
    def _lowered(self) -> str:
        lowered = self.text.lower()
        # A few letters have a lower case of two characters, after which positions no longer fit.
        return lowered if len(lowered) == len(self.text) else self.text.translate(_ASCII_LOWER)


def _stands_alone(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before == "_" or before.isalnum() or after == "_" or after.isalnum())
