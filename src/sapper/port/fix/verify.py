"""Is the edited text what was meant: it parses, and its syntax outside the edits is that of the original?"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from sapper.port.fix.text import Piece, Span, Text


def parsed(text: str) -> ast.Module | None:
    """The syntax of Python source; None where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the file is not ours to report
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def faithful(before: str, after: str, *, pieces: Sequence[Piece], anchors: Sequence[Span], removed: Sequence[Span] = ()) -> bool:
    """Whether ``after`` parses, and differs from ``before`` in the anchors and in what was inserted between statements alone.

    Args:
        before: The original.
        after: The original with ``pieces`` put in.
        pieces: All edits.
        anchors: Spans of the nodes of ``before`` that the edits change.
        removed: Spans of statements that go.
    """
    old, new = parsed(before), parsed(after)
    if old is None or new is None:
        return False
    check = _Comparison(Text(before), Text(after), pieces=pieces, anchors=anchors, removed=removed)
    try:
        return check.equal(old, new)
    except RecursionError:
        return False


class _Comparison:
    def __init__(self, before: Text, after: Text, *, pieces: Sequence[Piece], anchors: Sequence[Span], removed: Sequence[Span]) -> None:
        self.before = before
        self.after = after
        self.anchors = frozenset(anchors)
        self.removed = frozenset(removed)
        self.inserted = _inserted(pieces)

    def equal(self, old: ast.AST, new: ast.AST) -> bool:
        if isinstance(old, (ast.expr, ast.stmt)) and self.before.span(old) in self.anchors:
            return isinstance(new, ast.expr) == isinstance(old, ast.expr)
        if type(old) is not type(new):
            return False
        return all(self._field(getattr(old, name, None), getattr(new, name, None)) for name in old._fields)

    def _field(self, old: object, new: object) -> bool:
        if isinstance(old, list) and isinstance(new, list):
            new = [item for item in new if not self._was_inserted(item)]
            kept = [item for item in old if not self._was_removed(item)]
            return len(kept) == len(new) and all(self._field(*pair) for pair in zip(kept, new, strict=True))
        if isinstance(old, ast.AST) and isinstance(new, ast.AST):
            return self.equal(old, new)
        return type(old) is type(new) and (old == new or old != old)  # a nan is not equal to itself

    def _was_inserted(self, node: object) -> bool:
        return isinstance(node, ast.stmt) and any(span.holds(self.after.span(node)) for span in self.inserted)

    def _was_removed(self, node: object) -> bool:
        return isinstance(node, ast.stmt) and self.before.span(node) in self.removed


def _inserted(pieces: Sequence[Piece]) -> list[Span]:
    """Where insertions stand in the edited text."""
    spans = []
    moved = 0
    for piece in sorted(pieces, key=lambda piece: (piece.span.start, piece.span.end)):
        start = piece.span.start + moved
        if piece.span.start == piece.span.end:
            spans.append(Span(start, start + len(piece.text)))
        moved += len(piece.text) - (piece.span.end - piece.span.start)
    return spans
