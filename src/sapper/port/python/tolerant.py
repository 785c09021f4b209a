"""Files that do not parse: Python 2, templates, half-written ones. As much of them as can be is read all the same.

The line at which the parser stops is mended, column by column, where it is Python 2's (``print x``, ``except E, e``), and
otherwise left out; then the parser is asked again. What is left out is searched by its text alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

_MAX_PARSED_BYTES = 8 * 2**20
"""All readings of a file together; beyond, a file is no program that a person broke."""
_PRINT = re.compile(r"^(\s*)print\s(.*?)\s*(#.*)?$")
_EXCEPT = re.compile(r"^(\s*except\s[^,(]*)(,\s*\w+)(\s*:.*)$")
_CHAIN = re.compile(r"\btorch(?:\.\w+)+")
_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|#.*")


class Repaired(NamedTuple):
    """A text that parses, line by line the size of the broken one."""

    text: str
    lost: tuple[int, ...]
    """Lines that are left out of it."""


def repair(text: str) -> Repaired | None:
    """``text`` with what does not parse mended or left out; None where that does not help."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lost: set[int] = set()
    parsed_bytes = 0
    while (parsed_bytes := parsed_bytes + len(text)) <= _MAX_PARSED_BYTES:
        whole = "\n".join(lines)
        try:
            ast.parse(whole)
        except SyntaxError as error:
            line = min(max(error.lineno or 1, 1), len(lines))
            mended = _mended(lines[line - 1])
            if mended is None:
                line = _to_leave_out(lines, line, lost)
                if not line:
                    return None
                lost.add(line)
                mended = _indent(lines[line - 1]) + "pass"
            lines[line - 1] = mended
        except (ValueError, RecursionError, MemoryError):
            return None
        else:
            return Repaired(whole, tuple(sorted(lost)))
    return None


def _mended(line: str) -> str | None:
    printed = _PRINT.match(line)
    if printed is not None and not printed[2].startswith((">>", "(")):
        return f"{printed[1]}print({printed[2]})"
    caught = _EXCEPT.match(line)
    return f"{caught[1]}{' ' * len(caught[2])}{caught[3]}" if caught is not None else None


def _to_leave_out(lines: list[str], line: int, lost: set[int]) -> int:
    """The line to leave out for a fault at ``line``: itself, or the nearest above that is still there; 0 for none."""
    return next((at for at in range(line, 0, -1) if at not in lost and lines[at - 1].strip()), 0)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def names(line: str) -> Iterator[tuple[int, str]]:
    """Column and name of each ``torch.NAME`` in a line, strings and comments left out."""
    plain = _QUOTED.sub(lambda match: " " * len(match[0]), line)
    yield from ((match.start(), match[0]) for match in _CHAIN.finditer(plain))
