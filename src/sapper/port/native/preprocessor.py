"""Branches of the preprocessor: which lines are compiled on what.

Nothing is evaluated but ``0`` and ``1``: a build's macros are not known to a scan. What can be said from the text alone is
who a branch is for: a macro that names another vendor, or one that switches CUDA on.
"""

from __future__ import annotations

import bisect
import functools
import re
from typing import NamedTuple

from sapper.port.finding import Standing

_DIRECTIVE = re.compile(r"#[ \t]*(ifdef|ifndef|if|elifdef|elifndef|elif|else|endif)\b((?:\\\r?\n|[^\n])*)")
_OTHERS = re.compile(r"\b\w*(?:ROCM|HIPCC|HIP|MUSA|ASCEND|CANN|NPU|MLU|SYCL|XPU|HPU|GCU|COREX|ILUVATAR|MACA|METAX|DTK|DCU)(?![A-Z])\w*")
"""Macros that name another vendor's stack: ``USE_ROCM``, ``__HIP_PLATFORM_AMD__``, ``MMCV_WITH_MLU``, ..."""
_CUDA = re.compile(r"\b(?:\w*(?:USE|WITH|ENABLE|HAVE|HAS|BUILD|SUPPORT)_?CUDA\w*|\w*CUDA_(?:ENABLED|AVAILABLE)\w*|__CUDACC__|__NVCC__)")
"""Macros that are set where CUDA is built for."""
_NOT = re.compile(r"!\s*(?:defined\b)?\s*\(?\s*$")


class Directive(NamedTuple):
    """A conditional directive: offsets of its whole line (with its end), keyword, and the rest without continuations."""

    start: int
    end: int
    keyword: str
    condition: str


class _Level(NamedTuple):
    """An open conditional: the conditions of the branches before this one, and of this one (None is ``else``)."""

    before: tuple[str, ...]
    now: str | None


def directives(code: str) -> list[Directive]:
    """The conditional directives of blanked code, in order."""
    found = []
    for match in _DIRECTIVE.finditer(code):
        line_start = code.rfind("\n", 0, match.start()) + 1
        if code[line_start : match.start()].strip():
            continue
        end = match.end() + 1 if match.end() < len(code) else match.end()
        condition = re.sub(r"\\\r?\n", " ", match[2]).strip()
        found.append(Directive(line_start, end, match[1], condition))
    return found


def expression(directive: Directive) -> str | None:
    """The condition as ``#if`` would have it; None of ``else`` and ``endif``."""
    name = directive.condition.split()[0] if directive.condition.split() else ""
    match directive.keyword:
        case "ifdef" | "elifdef":
            return f"defined({name})"
        case "ifndef" | "elifndef":
            return f"!defined({name})"
        case "if" | "elif":
            return directive.condition
        case _:
            return None


class Branches:
    """What the preprocessor says of each place of a file."""

    def __init__(self, code: str) -> None:
        self._starts = [0]
        self._states: list[Standing | None] = ["ties"]
        stack: list[_Level] = []
        for directive in directives(code) if "#" in code else []:
            condition = expression(directive)
            if directive.keyword in ("if", "ifdef", "ifndef"):
                stack.append(_Level((), condition))
            elif directive.keyword == "endif":
                if stack:
                    stack.pop()
            elif stack:
                level = stack.pop()
                stack.append(_Level((*level.before, level.now or "1"), condition))
            self._starts.append(directive.end)
            self._states.append(_state(stack))

    def standing(self, offset: int) -> Standing | None:
        """Of code at an offset: ``ties``, ``guarded`` or ``vendor``; None where it is never compiled."""
        return self._states[bisect.bisect_right(self._starts, offset) - 1]


def _state(stack: list[_Level]) -> Standing | None:
    state: Standing = "ties"
    for level in stack:
        own = _of(level)
        if own is None:
            return None
        if own == "vendor" or (own == "guarded" and state == "ties"):
            state = own
    return state


def _of(level: _Level) -> Standing | None:
    if level.now == "0" or (level.now is None and "1" in level.before):
        return None
    if level.now is None:
        return "vendor" if any(_positive(_OTHERS, condition) for condition in level.before) else "ties"
    if _positive(_OTHERS, level.now) and _positive(_CUDA, level.now):
        return "guarded"  # CUDA or another, by the same code
    if _positive(_OTHERS, level.now) or any(_positive(_OTHERS, condition) for condition in level.before):
        return "vendor"
    return "guarded" if _positive(_CUDA, level.now) else "ties"


@functools.lru_cache(maxsize=4096)
def _positive(macro: re.Pattern[str], condition: str) -> bool:
    """Does the condition ask that such a macro be set?"""
    return any(not _NOT.search(condition[: match.start()]) for match in macro.finditer(condition))
