"""Tests that run only where there is a GPU: decorators, marks and helpers that say so by name, or whose body asks CUDA."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, words
from sapper.port.python.detectors.carrier import carrier
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def gate(module: Module, rule: Rule) -> Iterator[Finding]:
    """Gates by name (``require_multi_gpu``, ``pytest.mark.gpu``), at their definition, import and use, and gates by what they ask."""
    said: set[int] = set()
    for node in lookup.candidates(module, ast.FunctionDef, ast.AsyncFunctionDef, ast.alias, ast.Attribute, ast.Name):
        name = _gate(module, node)
        line: int = getattr(node, "lineno", 0)
        if name is not None and line not in said:
            said.add(line)
            yield module.finding(rule, node, name)
    for finding in carrier(module, rule):
        if finding.place.line not in said:
            yield finding


def _gate(module: Module, node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return f"pytest.mark.{node.attr}" if _is_mark(node.value) and words.names_gpu(node.attr) else _named(node.attr)
    if isinstance(node, ast.Name):
        return _named(node.id) if isinstance(node.ctx, ast.Load) else None
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _named(node.name)
    if isinstance(node, ast.alias):
        return _named(node.name.rpartition(".")[2])
    return None


def _named(name: str) -> str | None:
    return name if words.names_gpu(name) and words.parts(name)[0] in _FIRST else None


_FIRST = frozenset(("require", "requires", "skip", "only", "needs", "need", "unless", "skipif"))


def _is_mark(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "mark" and isinstance(node.value, ast.Name) and node.value.id == "pytest"
