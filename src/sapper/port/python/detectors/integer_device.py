"""Devices that are said by their number alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_INDEX = re.compile(r"(?:local_|global_)?rank|gpu(?:_id|_idx|_index)?|device_id(?:x)?|cuda_id")


def integer_device(module: Module, rule: Rule) -> Iterator[Finding]:
    """``.to(0)``, ``.to(rank)``, ``torch.device(0)`` and ``device=0``."""
    for node in lookup.candidates(module, ast.Call):
        argument = _argument(module, node)
        if argument is not None:
            yield module.finding(rule, node.func, f"{strings.called(node)}({ast.unparse(argument)})")
    for keyword in lookup.candidates(module, ast.keyword):
        if keyword.arg == "device" and _is_number(keyword.value):
            yield module.finding(rule, keyword, f"device={ast.unparse(keyword.value)}")


def _argument(module: Module, node: ast.Call) -> ast.expr | None:
    if not node.args:
        return None
    first = node.args[0]
    moved = isinstance(node.func, ast.Attribute) and node.func.attr == "to"
    if moved or (strings.called(node) == "device" and module.name_of(node.func) == "torch.device" and len(node.args) == 1):
        return first if _is_number(first) or _is_index(first) else None
    return None


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _is_index(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return _INDEX.fullmatch(name) is not None
