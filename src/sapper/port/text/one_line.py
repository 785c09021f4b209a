"""Whether a regular expression can match across a line end, told from its parsed form."""

from __future__ import annotations

import re
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_LINE_FEED = ord("\n")
_OF_LINE_FEEDS = (sre.CATEGORY_SPACE, sre.CATEGORY_NOT_WORD, sre.CATEGORY_NOT_DIGIT)
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
_OF_NO_WIDTH = (sre.AT, sre.ASSERT, sre.ASSERT_NOT)
"""What stands around a match is the end of a line, whichever line comes before or behind."""


def in_one_line(pattern: str) -> bool:
    """Whether whatever ``pattern`` matches lies in one line; False also where that cannot be told."""
    return not _takes_line_feed(parser.parse(pattern, re.MULTILINE))


def _takes_line_feed(parsed: Any) -> bool:
    return any(_item_takes_line_feed(kind, value) for kind, value in parsed)


def _item_takes_line_feed(kind: Any, value: Any) -> bool:
    if kind in _OF_NO_WIDTH or kind is sre.ANY:  # a dot: DOTALL is not set
        return False
    if kind is sre.LITERAL:
        return bool(value == _LINE_FEED)
    if kind is sre.NOT_LITERAL:
        return bool(value != _LINE_FEED)
    if kind is sre.IN:
        negated = value[0][0] is sre.NEGATE
        return any(_in_set(*item) for item in value) is not negated
    if kind in _REPEATS:
        return _takes_line_feed(value[2])
    if kind is sre.SUBPATTERN:
        return _takes_line_feed(value[-1])
    if kind is sre.BRANCH:
        return any(map(_takes_line_feed, value[1]))
    return True


def _in_set(kind: Any, value: Any) -> bool:
    if kind is sre.RANGE:
        return bool(value[0] <= _LINE_FEED <= value[1])
    return (kind is sre.LITERAL and value == _LINE_FEED) or (kind is sre.CATEGORY and value in _OF_LINE_FEEDS)
