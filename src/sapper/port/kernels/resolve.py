"""Branches of the preprocessor that are decided on the other stack: a macro that no build of it sets, a number of NVIDIA's.

``#if __CUDA_ARCH__ >= 530`` would be false for ever where the second generation is 220, and what it guards would vanish
without a word. What cannot be decided is left as it is.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sapper.port.kernels.tables import Table, Threshold
from sapper.port.native.lexer import Lexed
from sapper.port.native.preprocessor import Directive, directives, expression

_DEFINED = re.compile(r"defined\s*\(?\s*(\w+)\s*\)?")
_COMPARED = re.compile(r"\b(\w+)\s*(>=|<=|>|<)\s*(\d+)")


class Edit(NamedTuple):
    """A replacement in the original text, the end exclusive."""

    start: int
    end: int
    text: str


def line_end(text: str) -> str:
    """How lines of a file end."""
    return "\r\n" if "\r\n" in text else "\n"


class _Branch(NamedTuple):
    directive: Directive
    end: int
    """Where the next directive of the same conditional begins."""


def resolved(lexed: Lexed, table: Table, *, foreign: Sequence[int] = ()) -> list[Edit]:
    """Cuts and rewritten conditions, in order and apart from each other.

    Args:
        lexed: The file.
        table: Of the stack.
        foreign: Where code stands that only NVIDIA's chips execute (assembly, tensor cores), in order. A conditional that has it
            in a branch keeps its numbers: the stack's own are lower, so that it takes the way for older chips, which is right.
    """
    macros = {*table.undefined, *(threshold.macro for threshold in table.thresholds)}
    if not any(macro in lexed.code for macro in macros):
        return []
    edits: list[Edit] = []
    for branches, close in _conditionals(directives(lexed.code)):
        if not any(_spills(lexed, branch.directive) for branch in branches):
            guards = bisect.bisect_left(foreign, close.start) > bisect.bisect_left(foreign, branches[0].directive.end)
            edits += _decided(lexed, branches, close, _Judge(table, () if guards else tuple(table.thresholds)))
    return _outermost(edits)


def _conditionals(found: list[Directive]) -> Iterator[tuple[list[_Branch], Directive]]:
    """Each conditional: its branches and its ``#endif``. Unbalanced ones are passed over."""
    open_: list[list[Directive]] = []
    for directive in found:
        if directive.keyword in ("if", "ifdef", "ifndef"):
            open_.append([directive])
        elif open_ and directive.keyword != "endif":
            open_[-1].append(directive)
        elif open_:
            own = open_.pop()
            yield [_Branch(one, following.start) for one, following in zip(own, [*own[1:], directive], strict=True)], directive


def _spills(lexed: Lexed, directive: Directive) -> bool:
    """Does a comment that begins on the directive's line go on after it?"""
    return any(start < directive.end <= end - 1 and directive.start <= start for start, end in lexed.comments if start < directive.end)


def _decided(lexed: Lexed, branches: list[_Branch], close: Directive, judge: _Judge) -> list[Edit]:
    truths = [judge.truth(expression(branch.directive)) for branch in branches]
    if not any(isinstance(one, bool) for one in truths):
        return [
            Edit(*_condition(branch.directive, lexed), changed)
            for branch, changed in zip(branches, truths, strict=True)
            if isinstance(changed, str) and changed != expression(branch.directive)
        ]
    edits: list[Edit] = []
    kept = 0
    over = False
    for branch, one in zip(branches, truths, strict=True):
        line = branch.directive
        if over or one is False:
            edits.append(Edit(line.start, branch.end, ""))
        elif one is True or (one is None and kept == 0):
            over = True
            edits.append(Edit(line.start, line.end, f"#else{line_end(lexed.text)}" if kept else ""))
        else:
            if isinstance(one, str) and kept == 0 and line.keyword.startswith("el"):
                edits.append(Edit(line.start, line.end, f"#if {one}{line_end(lexed.text)}"))
            elif isinstance(one, str) and one != expression(line):
                edits.append(Edit(*_condition(line, lexed), one))
            kept += 1
    if not kept:
        edits.append(Edit(close.start, close.end, ""))
    return edits


def truth(condition: str | None, table: Table) -> bool | str | None:
    """A condition's value on the other stack; what is left of it where a part is open; None of ``else``."""
    return _Judge(table, tuple(table.thresholds)).truth(condition)


class _Judge(NamedTuple):
    """What is known of conditions."""

    table: Table
    thresholds: tuple[Threshold, ...]

    def truth(self, condition: str | None) -> bool | str | None:
        if condition is None:
            return None
        for sign, absorbing in (("&&", False), ("||", True)):
            operands = _split(condition, sign)
            if len(operands) > 1:
                values = [self.truth(operand) for operand in operands]
                if absorbing in values:
                    return absorbing
                left = [value for value in values if isinstance(value, str)]
                return f" {sign} ".join(left) if left else not absorbing
        bare = condition.strip()
        while bare.startswith("(") and bare.endswith(")") and _closes(bare):
            bare = bare[1:-1].strip()
        if bare != condition.strip() and re.search(r"&&|\|\|", bare):
            inner = self.truth(bare)
            return inner if isinstance(inner, bool) else condition if inner == bare else f"({inner})"
        value = self._atom(bare)
        return condition if value is None else value if isinstance(value, bool) else condition.replace(bare, value)

    def _atom(self, condition: str) -> bool | str | None:
        """Of ``[!]defined(X)``, ``[!]X``, or ``X >= number``; None where it is open."""
        negated = condition.startswith("!")
        positive = condition[1:].strip() if negated else condition
        match = _DEFINED.fullmatch(positive) or re.fullmatch(r"(\w+)", positive)
        if match:
            return negated if match[1] in self.table.undefined else None
        compared = _COMPARED.fullmatch(condition)
        threshold = next((one for one in self.thresholds if compared and one.macro == compared[1]), None)
        if not compared or threshold is None:
            return None
        return _compared(compared[1], compared[2], int(compared[3]), threshold)


def _compared(macro: str, sign: str, number: int, threshold: Threshold) -> bool | str | None:
    if number <= threshold.always:
        return sign in (">=", ">")
    own = threshold.equivalent.get(str(number))
    return None if own is None else f"{macro} {sign} {own}"


def _split(condition: str, sign: str) -> list[str]:
    """Operands of ``sign`` outside of all brackets; the condition alone where there is none."""
    operands, depth, start = [], 0, 0
    for match in re.finditer(r"[()]|&&|\|\|", condition):
        if match[0] in "()":
            depth += 1 if match[0] == "(" else -1
        elif depth == 0 and match[0] == sign:
            operands.append(condition[start : match.start()].strip())
            start = match.end()
    if not operands or (sign == "&&" and len(_split(condition, "||")) > 1):
        return [condition]
    return [*operands, condition[start:].strip()]


def _closes(text: str) -> bool:
    """Does the first bracket close at the end?"""
    depth = 0
    for index, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth == 0:
            return index == len(text) - 1
    return False


def _condition(directive: Directive, lexed: Lexed) -> tuple[int, int]:
    """Where the condition stands in the text."""
    match = re.compile(r"[ \t]*#[ \t]*\w+[ \t]*").match(lexed.code, directive.start)
    start = match.end() if match else directive.start
    return start, start + len(lexed.code[start : directive.end].rstrip())


def _outermost(edits: list[Edit]) -> list[Edit]:
    """In order, without those that lie in a cut."""
    kept: list[Edit] = []
    for edit in sorted(edits, key=lambda one: (one.start, -one.end)):
        if not kept or edit.start >= kept[-1].end:
            kept.append(edit)
    return kept
