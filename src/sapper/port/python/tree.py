"""Steps through a syntax tree, without the nodes that say nothing (contexts and operators) and without a generator per field."""

from __future__ import annotations

import ast

_SILENT = frozenset(("ctx", "op", "ops", "id", "attr", "kind", "level", "type_comment", "simple", "conversion", "is_async", "n", "s"))
_fields: dict[type[ast.AST], tuple[str, ...]] = {ast.Constant: ()}


def children(node: ast.AST) -> list[ast.AST]:
    """What stands directly in ``node``, in the order of the text's grammar."""
    kind = type(node)
    fields = _fields.get(kind)
    if fields is None:
        fields = _fields[kind] = tuple(name for name in kind._fields if name not in _SILENT)
    found: list[ast.AST] = []
    for name in fields:
        value = getattr(node, name, None)
        if type(value) is list:
            if value:
                found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found
