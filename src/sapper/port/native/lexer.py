"""C++ and CUDA sources as three layers: code, literals, headers; comments are in none of them.

Tolerant, and one pass of one regular expression: it knows comments, strings, raw strings, character literals, digit
separators, included headers and continued lines, and no grammar. Broken files lex too: an open string ends with its line,
an open comment with the file.
"""

from __future__ import annotations

import bisect
import itertools
import re
from typing import NamedTuple

_PIECE = re.compile(
    r"""
    [/"'R\#]
    (?: (?P<comment> (?<=/)(?: /[^\n\\]*(?:\\.[^\n\\]*)*\\? | \*.*?(?:\*/|\Z) ) )
      | (?P<string>  (?<=")(?:[^"\\\n]|\\.)*"? )
      | (?P<char>    (?:(?<!\w')(?<=')|(?<=\b[uUL]')|(?<=\bu8'))(?:[^'\\\n]|\\.)+' )
      | (?P<raw>     (?<=R)"(?P<delimiter>[^()\\\s"]{0,16})\(.*?(?:\)(?P=delimiter)"|\Z) )
      | (?<=\#)[ \t]*(?:include|include_next|import)[ \t]*(?P<header> <[^>\n]*> | "[^"\n]*" )
    )
    """,
    re.VERBOSE | re.DOTALL,
)
"""The first character is a set of its own, and the alternatives look back at it: so the engine skips to it in C."""


class Span(NamedTuple):
    """Part of a text, the end exclusive."""

    start: int
    end: int


class Lexed(NamedTuple):
    """A file's layers. Offsets hold in ``text`` and in ``code`` alike."""

    text: str
    code: str
    """The text with comments, the insides of literals, and headers blanked; line ends stay where they are."""
    strings: list[Span]
    """String literals with their quotes (of raw ones with their ``R``), in order; headers are no strings."""
    headers: list[Span]
    """What is included, with its quotes or angle brackets."""
    comments: list[Span]

    def strings_between(self, start: int, end: int) -> list[Span]:
        """The string literals that begin in a range."""
        first = bisect.bisect_left(self.strings, (start, start))
        last = bisect.bisect_left(self.strings, (end, end))
        return self.strings[first:last]


def lex(text: str) -> Lexed:
    """Split a C++ or CUDA source into layers."""
    parts: list[str] = []
    strings: list[Span] = []
    headers: list[Span] = []
    comments: list[Span] = []
    end = 0
    for match in _PIECE.finditer(text):
        kind = match.lastgroup
        start, stop = match.span("header") if kind == "header" else match.span()
        parts.append(text[end:start])
        piece = text[start:stop]
        if kind == "string" and len(piece) > 1 and piece[-1] == '"':
            parts += ['"', blank(piece[1:-1]), '"']
        else:
            parts.append(blank(piece))
        if kind in ("string", "raw"):
            strings.append(Span(start, stop))
        elif kind == "header":
            headers.append(Span(start, stop))
        elif kind == "comment":
            comments.append(Span(start, stop))
        end = stop
    parts.append(text[end:])
    return Lexed(text, "".join(parts), strings, headers, comments)


def blank(text: str) -> str:
    """Spaces of the same length; line feeds stay."""
    if "\n" not in text:
        return " " * len(text)
    return "\n".join(" " * len(line) for line in text.split("\n"))


class Lines:
    """Lines and columns of offsets; both as :class:`~sapper.port.finding.Place` counts them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *itertools.accumulate(len(line) + 1 for line in text.split("\n")[:-1])]

    def __len__(self) -> int:
        return len(self._starts)

    def at(self, offset: int) -> tuple[int, int]:
        """Line from 1, column from 0."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1]

    def offset(self, line: int, column: int) -> int:
        """The other way round."""
        return self._starts[line - 1] + column

    def line(self, number: int) -> str:
        """The text of a line, without its end."""
        start = self._starts[number - 1]
        end = self._starts[number] if number < len(self._starts) else len(self._text)
        return self._text[start:end].rstrip("\r\n")
