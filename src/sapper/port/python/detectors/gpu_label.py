"""Texts and keys that name the GPU beside code that asks CUDA."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import carried
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_GPU = re.compile(r"(?<![A-Za-z])GPUs?(?![A-Za-z])|(?:^|[_/])gpus?(?:[_/]|$)", re.I)


def gpu_label(module: Module, rule: Rule) -> Iterator[Finding]:
    """Literals of a function that asks CUDA, or of the text that a check of CUDA raises; one for each line."""
    asking = carried.asking(module)
    if not asking:
        return
    seen: set[int] = set()
    for node in module.candidates:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node.lineno in seen:
            continue
        text = node.value
        if not _GPU.search(text) or isinstance(module.parent(node), ast.Expr):
            continue
        if _beside(module, node.lineno, asking) or isinstance(module.parent(node), ast.JoinedStr):
            seen.add(node.lineno)
            yield module.finding(rule, node, f'"{text.strip() if len(text) < 60 else text.strip()[:57] + "..."}"')


def _beside(module: Module, line: int, asking: frozenset[int]) -> bool:
    function = module.function_at(line)
    if function is None:
        return line in asking
    return any(function.lineno <= other <= (function.end_lineno or other) for other in asking)
