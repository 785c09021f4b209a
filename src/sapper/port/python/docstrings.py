"""Where docstrings stand, told from the text: a word in one is no reason to look at the code around it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BEFORE = re.compile(r"[ \t]*[rRuU]?")
_HEAD = re.compile(r"[ \t]*(?:async[ \t]+def|def|class)\b.*:[ \t]*(?:#.*)?|.*\)[ \t]*(?:->[^\"'#]*)?:[ \t]*(?:#.*)?")
"""The last line before a docstring: a definition's head, or the end of one over several lines."""
_LONGEST_HEAD = 1000
"""Characters; a longer line was generated, and what follows it is looked at."""


def spans(text: str) -> list[tuple[int, int]]:
    """Offsets of the docstrings of a text, the end exclusive; none where strings cannot be told from what is in them."""
    found: list[tuple[int, int]] = []
    for start, stop in triple_quoted(text):
        if start < 0:
            return []
        line = text.rfind("\n", 0, start) + 1
        if _BEFORE.fullmatch(text, line, start) and not _rest(text, stop) and _follows_head(text, line):
            found.append((line, stop))
    return found


def triple_quoted(text: str) -> Iterator[tuple[int, int]]:
    """Start and stop of each string in triple quotes; ``(-1, -1)`` where that cannot be told."""
    at = 0
    double, single = text.find('"""'), text.find("'''")
    while double >= 0 or single >= 0:
        start = double if single < 0 or 0 <= double < single else single
        mark = text[start : start + 3]
        before = text[text.rfind("\n", 0, start) + 1 : start]
        if before.lstrip().startswith("#"):
            at = text.find("\n", start)
            if at < 0:
                return
        else:
            stop = text.find(mark, start + 3)
            while stop >= 0 and text[stop - 1] == "\\":
                stop = text.find(mark, stop + 1)
            if stop < 0 or "#" in before or before.count('"') % 2 or before.count("'") % 2:
                yield -1, -1
                return
            at = stop + 3
            yield start, at
        double = text.find('"""', at) if 0 <= double < at else double
        single = text.find("'''", at) if 0 <= single < at else single


def _rest(text: str, stop: int) -> str:
    """What stands behind a place on its line, but for a comment."""
    end = text.find("\n", stop)
    return text[stop : end if end >= 0 else None].partition("#")[0].strip()


def _follows_head(text: str, line: int) -> bool:
    """Whether the last line of code above the one that begins at an offset is the end of a definition's head, or there is none."""
    while line > 0:
        above = text.rfind("\n", 0, line - 1) + 1
        said = text[above : line - 1].strip()
        if said and not said.startswith("#"):
            return (
                line - above < _LONGEST_HEAD and _HEAD.fullmatch(text, above, line - 1 - text.endswith("\r", above, line - 1)) is not None
            )
        line = above
    return True
