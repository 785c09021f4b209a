"""Texts and keys that name the GPU beside code that asks CUDA."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import carried, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_NAME = re.compile(r"[\w./()% -]{1,40}")
_MEASURED = re.compile(r"mem(?:ory)?\b|util|peak|reserved|alloc|capacity|VRAM|temperature|power", re.I)
_GPU = re.compile(r"(?<![A-Za-z])GPUs?(?![A-Za-z])|(?:^|[_/])gpus?(?:[_/]|$)", re.I)


def gpu_label(module: Module, rule: Rule) -> Iterator[Finding]:
    """Keys of measured values, labels printed before them, and what is raised where a question to CUDA is answered no."""
    asking = carried.asking(module)
    if not asking:
        return
    seen: set[int] = set()
    for node in module.candidates:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node.lineno in seen:
            continue
        text = node.value.strip()
        if _GPU.search(text) and (_is_key(module, node, asking) or _is_label(module, node) or _is_refusal(module, node, asking)):
            seen.add(node.lineno)
            yield module.finding(rule, node, f'"{text if len(text) < 60 else text[:57] + "..."}"')


def _is_key(module: Module, node: ast.Constant, asking: frozenset[int]) -> bool:
    """A key or a name of a metric, in a function that asks CUDA."""
    function = module.function_at(node.lineno)
    if function is None or not any(function.lineno <= line <= (function.end_lineno or line) for line in asking):
        return False
    return _NAME.fullmatch(str(node.value)) is not None and strings.flow(module, node).sink in ("key", "index")


def _is_label(module: Module, node: ast.Constant) -> bool:
    """A piece of text with a value filled in, about memory or load."""
    above = module.parent(node)
    filled = isinstance(above, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in above.values)
    return filled and _MEASURED.search(str(node.value)) is not None


def _is_refusal(module: Module, node: ast.Constant, asking: frozenset[int]) -> bool:
    """The message of an assertion, or of what is raised under an ``if``, that asks CUDA."""
    above: ast.AST | None = node
    while above is not None and not isinstance(above, ast.stmt):
        above = module.parent(above)
    if isinstance(above, ast.Assert):
        return above.msg is not None and _asks(above.test, asking)
    holder = module.owner.get(above) if isinstance(above, ast.Raise) else None
    return isinstance(holder, ast.If) and _asks(holder.test, asking)


def _asks(test: ast.expr, asking: frozenset[int]) -> bool:
    return any(line in asking for line in range(test.lineno, (test.end_lineno or test.lineno) + 1))
