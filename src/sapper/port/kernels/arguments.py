"""Arguments that another runtime wants wrapped: symbols by name, kernels by address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sapper.port.kernels.resolve import Edit
from sapper.port.native.names import places

_TOKEN = re.compile(r"[()\[\]{},]|(?<=\w)<[\w\s:,*&]*>")
"""What separates arguments, and template arguments as a whole."""
_MOST = 4000
"""Characters of a call's arguments; more is no call that we read rightly."""


def wrapped(code: str, functions: Mapping[str, Sequence[tuple[int, str]]]) -> Iterator[Edit]:
    """Insertions around arguments.

    Args:
        code: Blanked code.
        functions: By name: the arguments, from 0, with what they are wrapped in.
    """
    for name, wraps in functions.items():
        if name not in code:
            continue
        for at in places(code, name):
            spans = _arguments(code, at + len(name))
            for index, wrapper in wraps:
                if index < len(spans) and not code.startswith(wrapper.split("<")[0], spans[index][0]):
                    start, end = spans[index]
                    yield Edit(start, start, f"{wrapper}(")
                    yield Edit(end, end, ")")


def _arguments(code: str, at: int) -> list[tuple[int, int]]:
    """Where the arguments of a call stand, without the space around them; none if no call stands there."""
    opening = re.compile(r"\s*\(").match(code, at)
    if not opening:
        return []
    spans: list[tuple[int, int]] = []
    depth, start = 0, opening.end()
    for match in _TOKEN.finditer(code, opening.end(), opening.end() + _MOST):
        if match[0] in "([{":
            depth += 1
        elif depth and match[0] in ")]}":
            depth -= 1
        elif depth == 0 and match[0][0] != "<":
            spans.append(_trimmed(code, start, match.start()))
            start = match.end()
            if match[0] == ")":
                return [span for span in spans if span[0] < span[1]]
    return []


def _trimmed(code: str, start: int, end: int) -> tuple[int, int]:
    text = code[start:end]
    return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))
