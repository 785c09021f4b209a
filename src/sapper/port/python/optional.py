"""Dependencies of CUDA's that a file can do without: ``try: import apex`` with a handler that goes on.

What the file remembers of the attempt (``HAS_APEX``, ``apex = None``) asks for the dependency wherever it is tested, and
what is behind such a test runs only where it is installed.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sapper.port.python import memo
from sapper.port.python import names as names_module

if TYPE_CHECKING:
    from sapper.port.python.module import Module

_MISSING = frozenset(("ImportError", "ModuleNotFoundError", "Exception", "BaseException", "AttributeError", "OSError", "RuntimeError"))
_TRY = re.compile(
    r"""^([ \t]*)try:[ \t]*(?:\#[^\n]*)?\n
    (?:(?:
        \1[ \t]+[^\n]*                       # further in
        | \1(?:except|else|finally)\b[^\n]*
        | [ \t]*(?:\#[^\n]*)?                # blank, or a comment
    )\n)+""",
    re.MULTILINE | re.VERBOSE,
)
"""A ``try`` statement with its clauses, told by how far in its lines stand."""
_IMPORTS = re.compile(r"^[ \t]*(?:import|from)[ \t]", re.MULTILINE)
_LEAVES = frozenset(("exit", "_exit", "quit"))


def imports(module: Module) -> list[ast.Import | ast.ImportFrom]:
    """Imports of CUDA's dependencies inside a ``try`` whose handler goes on without them."""
    return _found(module)[0]


def names(module: Module, test: ast.expr) -> bool:
    """Whether an expression is the name by which the file remembers that such an import succeeded."""
    return isinstance(test, ast.Name) and test.id in _found(module)[1]


def questions(module: Module) -> list[ast.Name]:
    """Where such a name is only asked after, and needs nothing."""
    asking = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.If, ast.IfExp)
    return [node for node in module.of(ast.Name) if names(module, node) and isinstance(module.parent(node), asking)]


def tests(module: Module) -> Iterator[ast.If]:
    """``if`` statements that ask for such a name and say nothing of CUDA otherwise, so that no other pass looks at them."""
    remembered = _found(module)[1]
    if not remembered:
        return
    for statement in module.statements:
        if isinstance(statement, ast.If) and not module.worth(statement.lineno, statement.test.end_lineno or statement.lineno):
            said = {node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)}
            if said & remembered:
                yield statement


def foreseen(module: Module) -> set[str]:
    """Names that will remember an attempt, told before there is a tree: what asks for them is then in the tree from the first.

    What this does not see (statements told by indentation may be in a string, or cut short) costs another parse, and no finding.
    """
    found: set[str] = set()
    text = module.text
    at = text.find("try:")
    while at >= 0:
        match = _TRY.match(text, text.rfind("\n", 0, at) + 1)
        if match is not None and _IMPORTS.search(match[0]):
            for tried in _attempts(match[0]):
                found |= _remembered(tried, _tried(module, tried))
        at = text.find("try:", at + 1)
    return found


@functools.lru_cache(maxsize=1 << 12)
def _attempts(text: str) -> tuple[ast.Try, ...]:
    """The outermost ``try`` of a text, if it goes on after an import fails; kept, since the files of a project often say the same."""
    try:
        body = ast.parse(textwrap.dedent(text)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node for node in body if isinstance(node, ast.Try) and _goes_on(node))


def _tried(module: Module, node: ast.Try) -> list[ast.Import | ast.ImportFrom]:
    return [inner for inner in node.body if isinstance(inner, (ast.Import, ast.ImportFrom)) and _of_cuda(module, inner)]


def _remembered(node: ast.Try, tried: list[ast.Import | ast.ImportFrom]) -> set[str]:
    return _assigned(node) | {alias.asname or alias.name for inner in tried for alias in inner.names} if tried else set()


@memo.per_module
def _found(module: Module) -> tuple[list[ast.Import | ast.ImportFrom], frozenset[str]]:
    """The imports, and the names that remember whether they succeeded."""
    found: list[ast.Import | ast.ImportFrom] = []
    remembered: set[str] = set()
    for statement in module.statements:
        if isinstance(statement, ast.Try) and _goes_on(statement):
            tried = _tried(module, statement)
            found += tried
            remembered |= _remembered(statement, tried)
    module.ask_for(remembered)
    return found, frozenset(remembered)


def _goes_on(node: ast.Try) -> bool:
    """Whether a failed import is caught, and what follows runs all the same."""
    caught = [handler for handler in node.handlers if handler.type is None or _types(handler.type) & _MISSING]
    return bool(caught) and not any(_gives_up(handler) for handler in caught)


def _types(node: ast.expr) -> set[str]:
    return {item.attr if isinstance(item, ast.Attribute) else getattr(item, "id", "") for item in ast.walk(node)}


def _gives_up(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        function = last.value.func
        return (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) in _LEAVES
    return isinstance(last, ast.Raise)


def _of_cuda(module: Module, node: ast.Import | ast.ImportFrom) -> bool:
    """Whether a rule looks for what is imported; a part of ``torch.cuda`` itself is there with every PyTorch."""
    if isinstance(node, ast.Import):
        said = [alias.name for alias in node.names]
    else:
        base = names_module.absolute(module.name, package=module.package, level=node.level, name=node.module)
        said = [f"{base}.{alias.name}" for alias in node.names]
    return any(module.interesting(name) and name.partition(".")[0] != "torch" for name in map(module.through, said))


def _assigned(node: ast.Try) -> set[str]:
    """Names that the ``try`` or its handlers set to a constant or to nothing."""
    blocks = [node.body, node.orelse, *(handler.body for handler in node.handlers)]
    return {
        target.id
        for block in blocks
        for statement in block
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
