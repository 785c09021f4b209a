"""Names of the project's own that name CUDA: variables, functions, parameters, attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, memo, words
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_OTHERS = frozenset(
    ("torch", "torchvision", "torchaudio", "numba", "cupy", "pycuda", "cuda", "triton", "vllm", "sglang", "transformer_engine", "apex",
     "tensorflow", "jax", "onnxruntime", "cv2", "tensorrt", "pynvml", "nvtx", "cudf", "cuml", "nvidia", "tilelang", "cutlass", "flashinfer",
     "faiss", "xformers", "horovod", "warp")
)  # fmt: skip
"""Packages whose names are theirs: rules about them look for those that matter."""


_KINDS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ImportFrom, ast.alias, ast.arg, ast.keyword, ast.Name, ast.Attribute,
)  # fmt: skip


def identifier(module: Module, rule: Rule) -> Iterator[Finding]:
    """One finding for each line and name; ``rule.name`` says whether names of CUDA graphs are wanted, or all others."""
    graphs = rule.name == "cuda-graph"
    for node, name in named(module):
        if words.names_graph(name) is graphs:
            yield module.finding(rule, node, name)


@memo.per_module
def named(module: Module) -> tuple[tuple[ast.AST, str], ...]:
    """Nodes of the file that are such names; the first on each line."""
    seen: set[tuple[int, str]] = set()
    found: list[tuple[ast.AST, str]] = []
    for node in lookup.candidates(module, *_KINDS):
        for name in _names(module, node):
            if words.names_cuda(name) and (node.lineno, name) not in seen and not _foreign(module, node):  # type: ignore[attr-defined]
                seen.add((node.lineno, name))  # type: ignore[attr-defined]
                found.append((node, name))
    return tuple(found)


def _names(module: Module, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        if node.attr != "is_cuda" and not (node.attr == "cuda" and _is_called(module, node)):
            yield node.attr
    elif isinstance(node, (ast.keyword, ast.arg)):
        if node.arg:
            yield node.arg
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).rpartition(".")[2]
    elif isinstance(node, ast.ImportFrom):
        yield from (node.module or "").split(".")


def _is_called(module: Module, node: ast.Attribute) -> bool:
    above = module.parent(node)
    return isinstance(above, ast.Call) and above.func is node


def _foreign(module: Module, node: ast.AST) -> bool:
    """Whether the name is another package's, or what another rule looks for."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        qualified = module.name_of(node)
    elif isinstance(node, ast.keyword):
        call = module.parent(node)
        qualified = module.name_of(call.func) if isinstance(call, ast.Call) else None
    elif isinstance(node, ast.ImportFrom):
        qualified = None if node.level else node.module
    elif isinstance(node, ast.alias):
        statement = module.parent(node)
        qualified = statement.module if isinstance(statement, ast.ImportFrom) and not statement.level else node.name
    else:
        qualified = None
    root = (qualified or "").partition(".")[0]
    return root in _OTHERS and root not in module.name.split(".")
