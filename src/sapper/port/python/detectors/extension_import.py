"""Imports of extensions that were compiled for CUDA."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_PACKAGES = frozenset(("torch", "numba", "cupy", "pycuda", "cuda", "triton"))
_KNOWN = frozenset(("amp_C", "apex_C", "syncbn"))
"""Extensions of Apex, which say nothing of CUDA in their names."""
_VERBS = frozenset(("is", "has", "use", "get", "set", "to", "move", "check", "require", "init", "test", "setup", "retry", "no", "with"))


def extension_import(module: Module, rule: Rule) -> Iterator[Finding]:
    """``import NAME_cuda`` and ``from pkg import NAME_cuda``: modules by whose name CUDA was compiled in."""
    for plain in lookup.candidates(module, ast.Import):
        for alias in plain.names:
            if _compiled(alias.name):
                yield module.finding(rule, alias, alias.name)
    for node in lookup.candidates(module, ast.ImportFrom):
        if node.module and _compiled(node.module):
            yield module.finding(rule, node, node.module)
        elif (node.module or "").partition(".")[0] not in _PACKAGES:
            for alias in node.names:
                if alias.name.islower() and alias.name.endswith("_cuda") and _is_module(alias):
                    yield module.finding(rule, alias, alias.name)


def _compiled(name: str) -> bool:
    return name in _KNOWN or ("." not in name and name.endswith(("_cuda", "_cuda_ext", "_gpu_ops")))


def _is_module(alias: ast.alias) -> bool:
    """A guess by how functions are named: these begin with a verb."""
    return alias.name.split("_")[0] not in _VERBS
