"""Kernels in Triton: the imports, and each function that Triton compiles."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def triton_kernel(module: Module, rule: Rule) -> Iterator[Finding]:
    """Imports of ``triton`` and functions under ``triton.jit``."""
    for function in lookup.candidates(module, ast.FunctionDef):
        for decorator in function.decorator_list:
            name = module.name_of(decorator.func if isinstance(decorator, ast.Call) else decorator) or ""
            if name.startswith("triton.") and name.rpartition(".")[2] in ("jit", "autotune", "heuristics"):
                yield module.finding(rule, decorator, name, values={"kernel": function.name})
    for plain in lookup.candidates(module, ast.Import):
        for alias in plain.names:
            if alias.name.partition(".")[0] == "triton":
                yield module.finding(rule, alias, alias.name)
    for node in lookup.candidates(module, ast.ImportFrom):
        if not node.level and (node.module or "").partition(".")[0] == "triton":
            yield module.finding(rule, node, node.module or "triton")
