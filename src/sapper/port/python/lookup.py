"""From names to the nodes that say them, without a walk over the whole tree."""

from __future__ import annotations

import ast
import bisect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from sapper.port.python import memo, names, tree

if TYPE_CHECKING:
    from sapper.port.python.module import Module

T = TypeVar("T", bound=ast.AST)


@memo.per_module
def _starts(module: Module) -> list[int]:
    return [first for first, _last in module.headers]


def candidates(module: Module, *types: type[T]) -> Iterator[T]:
    """The candidates of these types, type by type, each in the order of the file: one pass serves all detectors."""
    yield from module.of(*types)


def statements_on(module: Module, names: Iterable[str]) -> Iterator[ast.stmt]:
    """Statements on a line worth a look, or with one of ``names``, in their own lines (a compound statement: in its head)."""
    starts = _starts(module)
    last = -1
    for line in module.lines_with(names):
        at = bisect.bisect_right(starts, line) - 1
        first = at
        while first > 0 and starts[first - 1] == starts[at]:
            first -= 1
        for index in range(max(first, last + 1), at + 1):
            if line <= module.headers[index][1]:
                last = index
                yield module.statements[index]


def nodes_on(module: Module, names: Iterable[str]) -> Iterator[ast.AST]:
    """Expressions (and imports) of :func:`statements_on`, outer before inner."""
    for statement in statements_on(module, names):
        stack: list[ast.AST] = [child for child in tree.children(statement) if not isinstance(child, ast.stmt)]
        while stack:
            node = stack.pop()
            if isinstance(node, (ast.ExceptHandler, ast.match_case)):
                stack.extend(child for child in (getattr(node, "type", None), getattr(node, "pattern", None)) if child is not None)
                continue
            yield node
            stack.extend(tree.children(node))


def statements_in(module: Module, function: ast.AST) -> Iterator[ast.stmt]:
    """Statements of a function, without those of functions inside it."""
    stack: list[ast.AST] = [function]
    while stack:
        node = stack.pop()
        for block in names.blocks(node):
            for statement in block:
                yield statement
                if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    stack.append(statement)
