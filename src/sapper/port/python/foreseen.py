"""Which lines will be asked for once a file is parsed, told from its text: they are then in the tree from the first.

A variable that keeps what CUDA answered is followed (:mod:`~sapper.port.python.carried`), and where its uses were left out of
the tree, the file is parsed again with them. Most such variables show on the line that asks: ``count = torch.cuda.device_count()``.
A wrong guess changes no finding: of lines too many each costs its parse, one too few costs another parse of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sapper.port.python import carried
from sapper.port.python.lines import Lines

_ASKS = re.compile(rf"\b(?:{carried.ASKING})\b")
_KEEPS = re.compile(
    r"""(?P<indent>[ \t]*)
    (?: return\b | (?:self|cls)\.(?P<attribute>\w+)[ ]*= | (?P<names>\w+(?:,[ ]*\w+)*)[ ]*(?::[^=]*)?= )(?!=)
    (?!.*[ ]if[ ])""",
    re.VERBOSE,
)
"""A line that gives a name something, or returns it. A choice by an answer (``8 if fast else 4``) is not what CUDA said."""
_DEF = re.compile(r"([ \t]*)(?:async[ \t]+)?def[ \t]+(\w+)")


def lines(text: Lines, interest: Iterable[int]) -> set[int]:
    """Lines that say names for what CUDA answered on the lines of ``interest``, and names for those again."""
    found: set[int] = set()
    saying = {line for line in interest if _ASKS.search(text.all[line - 1])}
    for _ in range(carried.STEPS):
        saying = {other for line in saying for other in _with_name_from(text, line)} - found
        found |= saying
    return found


def _with_name_from(text: Lines, line: int) -> set[int]:
    """Lines with the name that a line gives a value, where the name holds: in a function, or in the whole file."""
    kept = _KEEPS.match(text.all[line - 1])
    if kept is None:
        return set()
    if kept["attribute"]:
        return text.lines_of((kept["attribute"],), whole=True)
    head = _head(text.all, line, kept["indent"])
    names = kept["names"].replace(" ", "").split(",") if kept["names"] else [head[2]] if head else []
    local = head is not None and kept["names"] is not None
    return text.lines_of(names, whole=True, span=(line, _end(text.all, line, head[1])) if head and local else None)


def _head(of: list[str], line: int, indent: str) -> re.Match[str] | None:
    """The head of the function around a line that stands so far in; None outside of functions."""
    for number in range(line - 2, -1, -1):
        if not indent:
            break
        above = of[number].lstrip(" \t")
        if above and above[0] not in "#)" and len(of[number]) - len(above) < len(indent):
            head = _DEF.match(of[number])
            if head is not None:
                return head
            indent = of[number][: -len(above)]
    return None


def _end(of: list[str], line: int, indent: str) -> int:
    """The last line of the function around ``line`` whose head stands so far in."""
    inside = range(line, len(of))
    return next((number for number in inside if of[number] and not of[number][: len(indent) + 1].isspace()), len(of))
