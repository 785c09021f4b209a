"""As much of LLVM's FileCheck as HIPIFY's unit tests use: CHECK, CHECK-NEXT, CHECK-NOT, ``{{...}}``; runs of blanks are one.

FileCheck stops at the first line that is missing; here each counts for itself, and the search goes on from where it was.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIRECTIVE = re.compile(r"//\s*CHECK(-NEXT|-NOT)?:\s*(.*?)\s*$", re.MULTILINE)
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}")


class Checked(NamedTuple):
    """Directives that hold, of all."""

    matched: int
    total: int


def check(output: str, expected: str) -> Checked:
    """The directives in ``expected`` on ``output``, whose comments are cut as HIPIFY's test runner cuts them."""
    text = re.sub(r"[ \t]+", " ", re.sub(r"//.+", "// ", output))
    at = matched = total = 0
    forbidden: list[str] = []
    for kind, body in _DIRECTIVE.findall(expected):
        if kind == "-NOT":
            forbidden.append(body)
            continue
        total += 1
        found = _pattern(body).search(text, *_window(text, at, kind))
        matched += found is not None
        for other in forbidden:
            total += 1
            matched += found is None or _pattern(other).search(text, at, found.start()) is None
        forbidden = []
        if found is not None:
            at = found.end()
        elif kind == "-NEXT":
            at = _window(text, at, kind)[0]
    return Checked(matched, total)


def _window(text: str, at: int, kind: str) -> tuple[int, int]:
    """Where the directive may match: the whole rest, or the next line alone."""
    if kind != "-NEXT":
        return at, len(text)
    end = text.find("\n", at)
    start = len(text) if end < 0 else end + 1
    end = text.find("\n", start)
    return start, len(text) if end < 0 else end


def _pattern(body: str) -> re.Pattern[str]:
    """The directive's text as an expression."""
    body = re.sub(r"[ \t]+", " ", body)
    parts, end = [], 0
    for match in _EXPRESSION.finditer(body):
        parts += [re.escape(body[end : match.start()]), f"(?:{match[1]})"]
        end = match.end()
    return re.compile("".join([*parts, re.escape(body[end:])]))
