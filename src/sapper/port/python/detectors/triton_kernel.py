"""Kernels in Triton: the imports, and each function that Triton compiles."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def triton_kernel(module: Module, rule: Rule) -> Iterator[Finding]:
    """Imports of ``triton`` and functions under ``triton.jit``."""
    for node in module.candidates:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                name = module.name_of(called) or ""
                if name.startswith("triton.") and name.rpartition(".")[2] in ("jit", "autotune", "heuristics"):
                    yield module.finding(rule, decorator, name, values={"kernel": node.name})
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "triton":
                    yield module.finding(rule, alias, alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "triton":
            yield module.finding(rule, node, node.module or "triton")
