"""A file's text with the bytes behind it: places of syntax nodes, and edits that keep every other byte.

Offsets count characters of the decoded text. Python counts a line's columns in bytes of UTF-8 and knows three line ends
(LF, CR LF, CR) and no other, which ``str.splitlines`` does not.
"""

from __future__ import annotations

import ast
import functools
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, order=True)
class Span:
    """Characters from ``start`` to before ``end``."""

    start: int
    end: int

    def holds(self, other: Span) -> bool:
        """Whether ``other`` lies inside."""
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True, order=True)
class Piece:
    """Characters that another text takes the place of; an empty span inserts."""

    span: Span
    text: str


class Text:
    """The text of a file, with the offsets of its lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0, *(found.end() for found in _LINE_END.finditer(text))]

    @functools.cached_property
    def line_end(self) -> str:
        """The line end that the file uses first; LF where it has none."""
        found = _LINE_END.search(self.text)
        return found[0] if found else "\n"

    def line(self, number: int) -> str:
        """Line ``number``, from 1, with its line end."""
        end = self.starts[number] if number < len(self.starts) else len(self.text)
        return self.text[self.starts[number - 1] : end]

    def offset(self, line: int, column_utf8: int) -> int:
        """Offset of a place as a syntax node has it: line from 1, column in bytes of UTF-8."""
        start = self.starts[line - 1]
        head = self.text[start : start + column_utf8]
        if head.isascii():
            return start + column_utf8
        return start + len(self.line(line).encode("utf-8", "surrogatepass")[:column_utf8].decode("utf-8", "surrogatepass"))

    def place(self, offset: int) -> tuple[int, int]:
        """Line from 1 and column from 0, in characters, of an offset."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1]

    def lines(self, span: Span) -> range:
        """The lines that ``span`` touches, from 1."""
        return range(self.place(span.start)[0], self.place(span.end)[0] + 1)

    def span(self, node: ast.expr | ast.stmt | ast.alias | ast.keyword | ast.arg) -> Span:
        """The characters of a node; of a decorated definition without its decorators."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return Span(self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset))

    def of(self, node: ast.expr | ast.stmt | ast.alias | ast.keyword | ast.arg) -> str:
        """The source of a node."""
        span = self.span(node)
        return self.text[span.start : span.end]


def applied(text: str, pieces: Sequence[Piece]) -> str:
    """``text`` with all pieces put in; insertions at one place stand in the order given.

    Raises:
        ValueError: Two pieces overlap.
    """
    out: list[str] = []
    at = 0
    for piece in sorted(pieces, key=lambda piece: (piece.span.start, piece.span.end)):
        if piece.span.start < at:
            raise ValueError(f"edits overlap at {piece.span.start}")
        out += [text[at : piece.span.start], piece.text]
        at = piece.span.end
    return "".join([*out, text[at:]])


def spliced(raw: bytes, text: str, *, pieces: Sequence[Piece], encoding: str) -> bytes | None:
    """``raw`` with all pieces put in, in its encoding; every byte outside of them as it was.

    Args:
        raw: The file.
        text: ``raw``, decoded.
        pieces: What to put in.
        encoding: Codec of ``text``; ``utf-8-sig`` where the file has a byte-order mark.

    Returns:
        None where ``text`` does not give ``raw`` back (a codec with states, an overlong sequence), so that bytes outside
        the edits could change; or where the codec has no character that a piece needs.
    """
    mark = b"\xef\xbb\xbf" if encoding == "utf-8-sig" else b""
    codec = "utf-8" if encoding == "utf-8-sig" else encoding
    out = [mark]
    try:
        if mark + text.encode(codec) != raw:
            return None
        at = 0
        for piece in sorted(pieces, key=lambda piece: (piece.span.start, piece.span.end)):
            out += [text[at : piece.span.start].encode(codec), piece.text.encode(codec)]
            at = piece.span.end
        out.append(text[at:].encode(codec))
    except UnicodeError:
        return None
    changed = b"".join(out)
    back = applied(text, pieces)
    return changed if _decoded(changed[len(mark) :], codec) == back else None


def _decoded(raw: bytes, codec: str) -> str | None:
    try:
        return raw.decode(codec)
    except UnicodeError:
        return None
