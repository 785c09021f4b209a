"""Dependencies of CUDA's that a file can do without: ``try: import apex`` with a handler that goes on.

What the file remembers of the attempt (``HAS_APEX``, ``apex = None``) asks for the dependency wherever it is tested, and
what is behind such a test runs only where it is installed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sapper.port.python import memo
from sapper.port.python import names as names_module

if TYPE_CHECKING:
    from sapper.port.python.module import Module

_MISSING = frozenset(("ImportError", "ModuleNotFoundError", "Exception", "BaseException", "AttributeError", "OSError", "RuntimeError"))
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


@memo.per_module
def _found(module: Module) -> tuple[list[ast.Import | ast.ImportFrom], frozenset[str]]:
    """The imports, and the names that remember whether they succeeded."""
    found: list[ast.Import | ast.ImportFrom] = []
    remembered: set[str] = set()
    for statement in module.statements:
        if isinstance(statement, ast.Try) and _goes_on(statement):
            tried = [inner for inner in statement.body if isinstance(inner, (ast.Import, ast.ImportFrom)) and _of_cuda(module, inner)]
            if tried:
                found += tried
                remembered |= _assigned(statement) | {alias.asname or alias.name for inner in tried for alias in inner.names}
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
