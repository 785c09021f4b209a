"""Statements that a rewrite needs at the top of a module: where they go, and whether they are there already."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from sapper.port.fix.change import Need
from sapper.port.fix.text import Piece, Span, Text


def bound(tree: ast.Module) -> set[str]:
    """Names that the module's own imports, assignments and definitions bind, at any depth of its ``if`` and ``try``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def insertions(source: Text, tree: ast.Module, needs: Iterable[Need]) -> list[Piece]:
    """Pieces for all ``needs`` that the module does not fulfil yet."""
    missing = [need for need in dict.fromkeys(needs) if not _present(tree, need)]
    if not missing:
        return []
    first = [need for need in missing if not need.after_torch]
    later = [need for need in missing if need.after_torch]
    if _torch_import(tree) is None and later:
        first = list(dict.fromkeys([*first, Need("import torch", "torch")]))
    end = source.line_end
    offset = _offset(source, tree, needs=later)
    lines = _joined([need.statement for need in first])
    if later:
        lines += ["", *(line for need in later for line in need.statement.split("\n"))]
    indent = _indent(source, tree)
    block = end.join(indent + line if line else "" for line in lines)
    opened = _opened(source, tree, indent)
    if offset == len(source.text) and source.text and not source.text.endswith(("\n", "\r")):
        return [*opened, Piece(Span(offset, offset), end + block)]
    return [*opened, Piece(Span(offset, offset), block + end + _gap(source, tree, offset))]


def there_from(source: Text, tree: ast.Module, needs: Sequence[Need]) -> int:
    """Offset from which on the module has ``needs``: where they are, or can be."""
    there = [(need, _standing(tree, need)) for need in needs]
    ends = [source.span(node).end for _, node in there if node is not None]
    missing = [need for need, node in there if node is None]
    if missing:
        ends.append(_offset(source, tree, needs=[need for need in missing if need.after_torch]))
    return max(ends, default=0)


def runs_without(source: Text, tree: ast.Module, *, place: Span, offset: int) -> bool:
    """Whether what stands at ``place`` may run without what stands at ``offset``: in no function, and above it, or below a ``try`` that
    it stands in, which has failed where there is no PyTorch."""
    tried = _try(tree)
    goes_on = tried is not None and any(not isinstance(handler.body[-1], ast.Raise) for handler in tried.handlers)
    below = tried is not None and goes_on and place.start >= source.span(tried.body[-1]).end
    if place.start >= offset and not below:
        return False
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    bodies = (Span(source.span(node.body[0]).start, source.span(node.body[-1]).end) for node in functions)
    return not any(body.holds(place) for body in bodies)


def _joined(statements: list[str]) -> list[str]:
    """Statements in order, names from one module as one import."""
    names: dict[str, list[str]] = {}
    for statement in statements:
        head, _, name = statement.rpartition(" import ") if statement.startswith("from ") else (statement, "", "")
        names.setdefault(head, []).append(name)
    return [f"{head} import {', '.join(sorted(found))}" if found != [""] else head for head, found in sorted(names.items())]


def _present(tree: ast.Module, need: Need) -> bool:
    return _standing(tree, need) is not None


def _standing(tree: ast.Module, need: Need) -> ast.stmt | None:
    """The statement that fulfils a need already."""
    wanted = ast.dump(ast.parse(need.statement).body[0])
    places: list[ast.stmt] = tree.body if _home(tree) is tree.body else [*tree.body, *_home(tree)]
    for node in places:
        if ast.dump(node) == wanted:
            return node
        if isinstance(node, ast.ImportFrom) and need.statement.startswith("from "):
            [one] = ast.parse(need.statement).body
            assert isinstance(one, ast.ImportFrom)
            same = (node.module, node.level) == (one.module, one.level)
            if same and any((alias.name, alias.asname) == (one.names[0].name, one.names[0].asname) for alias in node.names):
                return node
    return None


def _offset(source: Text, tree: ast.Module, *, needs: Sequence[Need]) -> int:
    """Where statements may go: below what ``needs`` name and is there already, else below the imports that PyTorch's stands
    among, else below the first ones, else on top."""
    body = _home(tree)
    used = {node.id for need in needs for node in ast.walk(ast.parse(need.statement)) if isinstance(node, ast.Name)}
    there = [index for index, node in enumerate(body) if isinstance(node, (ast.If, ast.Assign)) and _binds(node) & used]
    if there:
        return _after(source, body, there[-1])
    torch = _torch_import(tree)
    start = body.index(torch) if torch is not None else _first_import(body)
    if start is None:
        head = _head(body)
        if head:
            return _after(source, body, head - 1)
        start = source.starts[_first_line(body[0]) - 1] if body else len(source.text)
        return start if source.text[:start].strip() else 0
    last = start
    while last + 1 < len(body) and isinstance(body[last + 1], (ast.Import, ast.ImportFrom)):
        last += 1
    return _after(source, body, last)


def _binds(node: ast.If | ast.Assign) -> set[str]:
    """Names that one of our constants' statements binds: an assignment, or a test with one in it."""
    inner = node.body[0] if isinstance(node, ast.If) else node
    return {target.id for target in inner.targets if isinstance(target, ast.Name)} if isinstance(inner, ast.Assign) else set()


def _head(body: Sequence[ast.stmt]) -> int:
    """How many statements the docstring and the ``__future__`` imports are."""
    count = 0
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
        count = 1
    while count < len(body) and _is_future(body[count]):
        count += 1
    return count


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _first_import(body: Sequence[ast.stmt]) -> int | None:
    for index, node in enumerate(body):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_future(node):
            return index
    return None


def _home(tree: ast.Module) -> list[ast.stmt]:
    """The statements among which ours go: the module's, or those of the ``try`` by which a module does without PyTorch."""
    tried = _try(tree)
    return tree.body if tried is None else tried.body


def _try(tree: ast.Module) -> ast.Try | None:
    """The ``try`` in which a module imports PyTorch; None where it does so outside of one, or not at all."""
    if any(map(_binds_torch, tree.body)):
        return None
    return next((node for node in tree.body if isinstance(node, ast.Try) and any(map(_binds_torch, node.body))), None)


def _binds_torch(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "torch" and not alias.asname for alias in node.names)


def _indent(source: Text, tree: ast.Module) -> str:
    """Of the statements among which ours go."""
    body = _home(tree)
    if body is tree.body:
        return ""
    start = source.span(body[0]).start
    before = source.text[source.starts[source.place(start)[0] - 1] : start]
    return before if not before.strip() else "    "


def _opened(source: Text, tree: ast.Module, indent: str) -> list[Piece]:
    """What puts the statements of ``try: import torch`` on a line of their own, where others can stand below."""
    start = source.span(_home(tree)[0]).start if indent else 0
    before = source.text[source.starts[source.place(start)[0] - 1] : start]
    if not before.strip():
        return []
    return [Piece(Span(start - len(before) + len(before.rstrip()), start), source.line_end + indent)]


def _torch_import(tree: ast.Module) -> ast.stmt | None:
    """The first import that binds ``torch``, among the statements where ours go."""
    found = None
    for node in _home(tree):
        if _binds_torch(node):
            found = found or node
    return found


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _after(source: Text, body: Sequence[ast.stmt], index: int) -> int:
    """Offset of the line below a statement, and below what shares its last line."""
    line = body[index].end_lineno or body[index].lineno
    for node in body[index + 1 :]:
        if node.lineno > line:
            break
        line = max(line, node.end_lineno or node.lineno)
    return source.starts[line] if line < len(source.starts) else len(source.text)


def _gap(source: Text, tree: ast.Module, offset: int) -> str:
    """An empty line where the next statement follows at once and is no import."""
    if _home(tree) is not tree.body:
        return ""
    rest = source.text[offset:]
    if not rest or rest[0] in "\r\n":
        return ""
    line = source.place(offset)[0]
    after = next((node for node in tree.body if _first_line(node) >= line), None)
    return "" if isinstance(after, (ast.Import, ast.ImportFrom)) else source.line_end
