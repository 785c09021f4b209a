"""Branches of scripts and build files that run only where CUDA was asked for: ``if command -v nvidia-smi``, ``if(USE_CUDA)``."""

from __future__ import annotations

import re
from typing import NamedTuple

from sapper.port.finding import Standing
from sapper.port.source import Language, Source


class _Syntax(NamedTuple):
    """How a language writes a branch; each pattern is matched against a whole line, ``test`` is its condition."""

    opens: re.Pattern[str]
    turns: re.Pattern[str]
    closes: re.Pattern[str]


_SHELL = _Syntax(
    re.compile(r"\s*(?:RUN\s+)?if\s+(?P<test>.*)"),
    re.compile(r"\s*(?:elif\s+(?P<test>.*)|else\b.*)"),
    re.compile(r"\s*fi\b.*"),
)
_SYNTAX: dict[Language, _Syntax] = {
    "shell": _SHELL,
    "docker": _SHELL,
    "yaml": _SHELL,
    "cmake": _Syntax(
        re.compile(r"\s*if\s*\((?P<test>.*)", re.IGNORECASE),
        re.compile(r"\s*(?:elseif\s*\((?P<test>.*)|else\s*\(.*)", re.IGNORECASE),
        re.compile(r"\s*endif\s*\(.*", re.IGNORECASE),
    ),
    "make": _Syntax(
        re.compile(r"\s*(?P<test>if(?:eq|neq|def|ndef)\b.*)"),
        re.compile(r"\s*else\b(?P<test>.*)"),
        re.compile(r"\s*endif\b.*"),
    ),
}
_ASKS = re.compile(r"cuda|nvidia|nvcc|\bgpu", re.IGNORECASE)
_DENIES = re.compile(r"(?:^|\s)(?:!|NOT\b|-z\b)|!=|ifneq|ifndef|[=\s\"'(](?:0|OFF|false|no|FALSE|False)[\"')\s;\]]|-eq 0", re.MULTILINE)
_OTHERS = re.compile(r"rocm|\bhip|npu|ascend|xpu|sycl|musa|\bmlu|hpu|gaudi|gcu|\btpu|metal|\bmps|dcu|maca", re.IGNORECASE)


_DEEPEST = 100
"""Branches that are nested deeper are not followed."""


class _Branch(NamedTuple):
    """An open ``if``: where the part begun last starts, whether it runs only with CUDA, and the parts that did."""

    start: int
    asks: bool
    parts: list[tuple[int, int]]
    others: bool


def guarded(source: Source, text: str) -> dict[int, Standing]:
    """How lines (from 1) inside branches stand; lines that are not here stand by themselves.

    ``vendor`` where another branch of the same ``if`` asks for another vendor's device.
    """
    syntax = _SYNTAX.get(source.language)
    result: dict[int, Standing] = {}
    if syntax is None:
        return result
    stack: list[_Branch] = []
    for number, line in enumerate(text.split("\n"), 1):
        opens = syntax.opens.fullmatch(line.rstrip("\r"))
        if opens is not None:
            whole = source.language not in ("cmake", "make") and re.search(r"\bfi\s*;?\s*$", line) is not None
            if not whole and len(stack) < _DEEPEST:
                stack.append(_Branch(number + 1, _asks(opens["test"]), [], bool(_OTHERS.search(opens["test"]))))
            continue
        if not stack:
            continue
        turns = syntax.turns.fullmatch(line.rstrip("\r"))
        closes = turns is None and syntax.closes.fullmatch(line.rstrip("\r")) is not None
        if turns is None and not closes:
            continue
        branch = stack.pop()
        if branch.asks:
            branch.parts.append((branch.start, number))
        if turns is not None:
            test = turns["test"] or ""
            stack.append(branch._replace(start=number + 1, asks=_asks(test), others=branch.others or bool(_OTHERS.search(test))))
            continue
        for first, stop in branch.parts:
            for inside in range(first, stop):
                if result.get(inside) != "vendor":
                    result[inside] = "vendor" if branch.others else "guarded"
    return result


def _asks(test: str) -> bool:
    return bool(_ASKS.search(test)) and not _DENIES.search(test)
