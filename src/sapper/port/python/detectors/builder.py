"""Builders of ops that compile CUDA when they are loaded, as DeepSpeed has them: ``FusedAdamBuilder().load()``."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def builder(module: Module, rule: Rule) -> Iterator[Finding]:
    """``XBuilder().load()``, its import, and a builder that is kept and loaded later."""
    for node in lookup.candidates(module, ast.Call):
        name = strings.called(node)
        if name.endswith("Builder") and len(name) > len("Builder") and _loaded(module, node):
            yield module.finding(rule, node, f"{name}().load()")
    for alias in lookup.candidates(module, ast.alias):
        if alias.name.endswith("Builder") and _from_builders(module, alias):
            yield module.finding(rule, alias, alias.name)


def _loaded(module: Module, node: ast.Call) -> bool:
    """Whether the builder is loaded where it is made, or comes from a package of op builders."""
    above = module.parent(node)
    if isinstance(above, ast.Attribute) and above.attr in ("load", "jit_load", "is_compatible"):
        return True
    return "op_builder" in (module.name_of(node.func) or "")


def _from_builders(module: Module, node: ast.alias) -> bool:
    statement = module.parent(node)
    return isinstance(statement, ast.ImportFrom) and "op_builder" in (statement.module or "")
