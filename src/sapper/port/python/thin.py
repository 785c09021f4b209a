"""Most of a file's functions hold nothing of interest, and most of a scan's time is the parser's: leave them out of the parse.

``thin`` replaces the text of such a function or class by one line that binds its name, and blank lines, so that all that
stays keeps its line and column. Where a block ends is told by indentation; a text in which that is wrong (a string or a
bracket whose lines begin further left) has an odd number of triple quotes in the block, or does not parse, and is then
parsed whole.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_STARTER = re.compile(r"^(    |\t|  |)(?:((?:async[ \t]+)?def|class)[ \t]+(\w+)|(?=[^\s)\]}#]))", re.MULTILINE)
"""A line that begins a statement at the left margin or one level in. A closing bracket or a comment begins none."""
_MIN_LINES = 3


class _Starter(NamedTuple):
    at: int
    indent: str
    kind: str | None
    name: str | None


def thin(text: str, interest: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """``text`` without what holds no position of ``interest``, which is sorted; and the spans that were left out."""
    starters = [_Starter(match.start(), *match.groups()) for match in _STARTER.finditer(text)]
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    done = 0
    for start, end, starter in _blocks(starters, len(text), interest):
        if text.count('"""', start, end) % 2 or text.count("'''", start, end) % 2:
            continue
        lines = text.count("\n", start, end)
        if lines < _MIN_LINES:
            continue
        stub = f"class {starter.name}: pass" if starter.kind == "class" else f"def {starter.name}(): pass"
        pieces += [text[done:start], starter.indent, stub, "\n" * lines]
        spans.append((start, end))
        done = end
    return ("".join([*pieces, text[done:]]), spans) if spans else (text, spans)


def _blocks(starters: list[_Starter], size: int, interest: Sequence[int]) -> Iterator[tuple[int, int, _Starter]]:
    """Start, end and head of each function and class without interest; inside a class with interest, of its members."""
    margin = [index for index, starter in enumerate(starters) if not starter.indent]
    for index, following in zip(margin, [*margin, len(starters)][1:], strict=True):
        head = starters[index]
        if head.kind is None:
            continue
        end = starters[following].at if following < len(starters) else size
        if not _holds(interest, head.at, end):
            yield head.at, end, head
        elif head.kind == "class" and following > index + 1:
            yield from _members(starters[index + 1 : following], end, interest)


def _members(starters: list[_Starter], size: int, interest: Sequence[int]) -> Iterator[tuple[int, int, _Starter]]:
    indent = starters[0].indent
    members = [starter for starter in starters if len(starter.indent) <= len(indent)]
    for head, end in zip(members, [*(starter.at for starter in members[1:]), size], strict=True):
        if head.kind is not None and not _holds(interest, head.at, end):
            yield head.at, end, head


def _holds(interest: Sequence[int], start: int, end: int) -> bool:
    at = bisect.bisect_left(interest, start)
    return at < len(interest) and interest[at] < end
