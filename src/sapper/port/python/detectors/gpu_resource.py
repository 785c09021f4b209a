"""What schedulers and trainers know as ``GPU``: Ray's resources, Lightning's accelerators, accelerate's process types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_KEYWORDS = frozenset(("num_gpus", "num_gpus_per_worker", "num_gpus_per_node", "use_gpu"))
_PROCESS_TYPES = frozenset(("MULTI_GPU", "multi-GPU", "multi_gpu"))
_TEXTS = _PROCESS_TYPES | {"GPU", "num_gpus"}
_RAY = re.compile(r"^[ \t]*(?:import|from)[ \t]+ray\b", re.MULTILINE)
_RAY_CLASS = re.compile(r"ScalingConfig|Ray\w*(?:Pool|Group|Cluster|Executor|Trainer)")
_RAY_CALLS = frozenset(("get_gpu_ids", "get_gpu_id"))


def gpu_resource(module: Module, rule: Rule) -> Iterator[Finding]:
    """``num_gpus=`` in calls, the resource ``"GPU"`` as key, and Ray's functions that answer with GPUs."""
    for node in lookup.candidates(module, ast.keyword, ast.Constant, ast.Attribute, ast.Subscript):
        symbol = _symbol(module, node)
        if symbol is not None:
            yield module.finding(rule, node, symbol)


def _symbol(module: Module, node: ast.AST) -> str | None:
    if isinstance(node, ast.keyword):
        if node.arg not in _KEYWORDS or _of_command_line(module, node):
            return None
        return f"{node.arg}=" if node.arg != "use_gpu" or _of_ray(module, node) else None
    if isinstance(node, ast.Constant) and node.value in _TEXTS:
        sink = strings.flow(module, node).sink
        found = sink in ("key", "index", "compare") or (node.value in _PROCESS_TYPES and sink != "prose")
        return f'"{node.value}"' if found else None
    if isinstance(node, ast.Attribute):
        if node.attr == "MULTI_GPU":
            return "DistributedType.MULTI_GPU"
        return f".{node.attr}()" if node.attr in _RAY_CALLS else None
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and isinstance(node.slice, ast.Constant):
        return '["num_gpus"]' if node.value.attr == "options" and node.slice.value == "num_gpus" else None
    return None


def _of_command_line(module: Module, node: ast.keyword) -> bool:
    call = module.parent(node)
    return isinstance(call, ast.Call) and strings.called(call) in ("add_argument", "Namespace", "SimpleNamespace", "dict")


def _of_ray(module: Module, node: ast.keyword) -> bool:
    """Whether ``use_gpu=`` is Ray's: many a project calls a switch of its own so, which no scheduler reads.

    Asked of the text, since an import inside a function may be left out of the tree.
    """
    call = module.parent(node)
    return (isinstance(call, ast.Call) and _RAY_CLASS.fullmatch(strings.called(call)) is not None) or bool(_RAY.search(module.text))
