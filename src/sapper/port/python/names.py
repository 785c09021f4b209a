"""What the names of one file stand for: imports, aliases by assignment, and the scopes that hide them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from sapper.port.python import tree

_EVERYWHERE = (0, 1 << 60)

Span = tuple[int, int]
"""First and last line, both inclusive."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def dotted(path: str) -> str:
    """The dotted module name of a file by its path below the scanned root: ``pkg/utils/__init__.py`` is ``pkg.utils``."""
    stem = path.rsplit(".", 1)[0].replace("/", ".")
    return stem.removesuffix(".__init__")


def absolute(module: str, *, package: bool, level: int, name: str | None) -> str:
    """The absolute name of ``from <level dots><name> import ...`` in ``module``; ``package`` where it is an ``__init__``."""
    if not level:
        return name or ""
    parts = module.split(".")
    keep = len(parts) - level + (1 if package else 0)
    return ".".join([*parts[: max(keep, 0)], *filter(None, [name])])


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements inside a compound statement."""
    for field in _BLOCKS.get(type(node), ()):
        inner: list[Any] = getattr(node, field)
        if field in ("handlers", "cases"):
            yield from (one.body for one in inner)
        else:
            yield inner


def _with_blocks() -> Iterator[tuple[type[ast.AST], tuple[str, ...]]]:
    """The module and compound statements, with those of their fields that hold statements."""
    kinds: list[type[ast.AST]] = [ast.Module, *ast.stmt.__subclasses__()]
    for kind in kinds:
        fields = tuple(name for name in ("body", "orelse", "finalbody", "handlers", "cases") if name in kind._fields)
        if fields:
            yield kind, fields


_BLOCKS: dict[type[ast.AST], tuple[str, ...]] = dict(_with_blocks())
COMPOUND = frozenset(_BLOCKS) - {ast.Module}
"""Statements that hold statements."""


class Bindings:
    """What each name stands for, by scope.

    A name may stand for several things (two branches of a ``try``), and then resolves to the first that was bound.
    """

    def __init__(self) -> None:
        self._meanings: dict[str, list[tuple[Span, str]]] = {}
        self._lines: dict[str, int] = {}
        self.stars: list[str] = []
        """Modules whose every name was imported."""

    def bind(self, name: str, qualified: str, *, line: int, scope: Span | None = None) -> None:
        """Let ``name``, bound at ``line``, stand for ``qualified`` in the lines of ``scope``; None is the whole file."""
        self._lines.setdefault(name, line)
        entry = (scope or _EVERYWHERE, qualified)
        known = self._meanings.setdefault(name, [])
        if entry not in known:
            known.append(entry)

    def line_of(self, name: str) -> int:
        """Where ``name`` is bound first."""
        return self._lines[name]

    def __contains__(self, name: str) -> bool:
        return name in self._meanings

    def __iter__(self) -> Iterator[str]:
        return iter(self._meanings)

    def meanings(self, name: str, line: int) -> list[tuple[Span, str]]:
        """What ``name`` may stand for at ``line``, innermost scope first."""
        found = [(span, qualified) for span, qualified in self._meanings.get(name, ()) if span[0] <= line <= span[1]]
        return sorted(found, key=lambda item: item[0][0], reverse=True) if len(found) > 1 else found

    def all_meanings(self, name: str) -> list[tuple[Span, str]]:
        """What ``name`` stands for anywhere in the file."""
        return self._meanings.get(name, [])

    def everywhere(self) -> Iterator[tuple[str, str]]:
        """Name and meaning of what the whole file sees: what another file can import from it."""
        for name, meanings in self._meanings.items():
            for span, qualified in meanings:
                if span == _EVERYWHERE:
                    yield name, qualified


def add_import(bindings: Bindings, node: ast.Import | ast.ImportFrom, *, module: str, package: bool, scope: Span | None) -> None:
    """Bind what an import statement of ``module`` binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                bindings.bind(alias.asname, alias.name, line=node.lineno, scope=scope)
            else:
                root = alias.name.split(".")[0]
                bindings.bind(root, root, line=node.lineno, scope=scope)
        return
    base = absolute(module, package=package, level=node.level, name=node.module)
    for alias in node.names:
        if alias.name == "*":
            bindings.stars.append(base)
        else:
            qualified = f"{base}.{alias.name}" if base else alias.name
            bindings.bind(alias.asname or alias.name, qualified, line=node.lineno, scope=scope)


def parameters(node: Function | ast.Lambda) -> Iterator[ast.arg]:
    """All parameters of a function."""
    arguments = node.args
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from filter(None, (arguments.vararg, arguments.kwarg))


def locals_of(node: Function) -> frozenset[str]:
    """Names that the function binds itself, by parameter or assignment (not by import), nested functions excluded."""
    found = {argument.arg for argument in parameters(node)}
    shared: set[str] = set()
    stack: list[ast.AST] = list(node.body)
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Name):
            if isinstance(item.ctx, ast.Store):
                found.add(item.id)
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(item.name)
        elif isinstance(item, (ast.Global, ast.Nonlocal)):
            shared.update(item.names)
        elif not isinstance(item, ast.Lambda):
            stack.extend(tree.children(item))
    return frozenset(found - shared)


def literal(nodes: Sequence[ast.expr], index: int) -> str | None:
    """The string literal at ``index`` of ``nodes``; None where there is none."""
    if len(nodes) > index:
        node = nodes[index]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
    return None
