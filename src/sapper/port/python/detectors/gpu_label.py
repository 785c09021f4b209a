"""Texts and keys that name the GPU, or CUDA, beside code that asks CUDA: what a reader is told about it.

Other texts are prose. These are not: they label a value that CUDA gave, say what follows from its answer, or quote code that
a user is to write.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import carried, lookup, strings, words
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_NAME = re.compile(r"[\w./()% -]{1,40}")
_MEASURED = re.compile(r"mem(?:ory)?\b|util|peak|reserved|alloc|capacity|VRAM|temperature|power", re.I)
_EITHER = re.compile(r"(?<![A-Za-z])(?:GPUs?|CUDA|NCCL)(?![A-Za-z])", re.I)
_QUOTED = re.compile(r"torch\.cuda\.\w|\bcuda:\d|\.cuda\(\)|[`'\"](?:cuda|nccl)[`'\"]|CUDA_VISIBLE_DEVICES")
_SAYS = re.compile(r"gpu|cuda|nccl", re.I)
"""Stands in whatever is looked for here."""
_GPU = re.compile(r"(?<![A-Za-z])GPUs?(?![A-Za-z])|(?:^|[_/])gpus?(?:[_/]|$)", re.I)


def gpu_label(module: Module, rule: Rule) -> Iterator[Finding]:
    """Keys and labels of measured values, messages where a question to CUDA is answered, help of options for CUDA, quoted code."""
    said = [node for node in lookup.candidates(module, ast.Constant) if isinstance(node.value, str) and _SAYS.search(node.value)]
    asking = carried.asking(module) if said else frozenset()
    seen: set[int] = set()
    for node in said:
        if node.lineno in seen:
            continue
        text = str(node.value).strip()
        if (_GPU.search(text) and (_is_key(module, node, asking) or _is_label(module, node, asking))) or (
            _EITHER.search(text) and _is_message(module, node, asking)
        ):
            seen.add(node.lineno)
            yield module.finding(rule, node, f'"{text if len(text) < 60 else text[:57] + "..."}"')


def _is_key(module: Module, node: ast.Constant, asking: frozenset[int]) -> bool:
    """A key or a name of a metric, in a function that asks CUDA."""
    function = module.function_at(node.lineno)
    if function is None or not any(function.lineno <= line <= (function.end_lineno or line) for line in asking):
        return False
    return _NAME.fullmatch(str(node.value)) is not None and strings.flow(module, node).sink in ("key", "index")


def _is_label(module: Module, node: ast.Constant, asking: frozenset[int]) -> bool:
    """A piece of text with a value filled in, about memory or load, in a file that asks CUDA."""
    above = module.parent(node)
    filled = isinstance(above, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in above.values)
    return bool(asking) and filled and _MEASURED.search(str(node.value)) is not None


def _is_message(module: Module, node: ast.Constant, asking: frozenset[int]) -> bool:
    """What is said where CUDA's answer is known, the help of an option for CUDA, or advice that quotes code."""
    above: ast.AST | None = node
    while above is not None and not isinstance(above, ast.stmt):
        if isinstance(above, ast.keyword) and above.arg == "help":
            call = module.parent(above)
            return isinstance(call, ast.Call) and any(
                isinstance(item, ast.Constant) and words.names_cuda(str(item.value)) for item in call.args
            )
        above = module.parent(above)
    if isinstance(above, ast.Expr) and above.value is node:
        return False
    if _QUOTED.search(str(node.value)) and strings.flow(module, node).sink == "prose":
        return True
    if isinstance(above, ast.Assert):
        return _asks(above.test, asking) and not _within(node, above.test)
    if not isinstance(above, (ast.Raise, ast.Expr)) or _skips(above):
        return False
    holder = module.owner.get(above)
    while isinstance(holder, ast.If):
        if _asks(holder.test, asking):
            return True
        outer = module.owner.get(holder)
        holder = outer if isinstance(outer, ast.If) and outer.orelse == [holder] else None
    return False


def _skips(statement: ast.Raise | ast.Expr) -> bool:
    """Whether the statement only says why a test or a script does not run: its guard is what matters."""
    call = statement.exc if isinstance(statement, ast.Raise) else statement.value
    return isinstance(call, ast.Call) and strings.called(call) in ("skip", "skipTest", "SkipTest", "SystemExit", "exit")


def _asks(test: ast.expr, asking: frozenset[int]) -> bool:
    return any(line in asking for line in range(test.lineno, (test.end_lineno or test.lineno) + 1))


def _within(node: ast.expr, other: ast.expr) -> bool:
    return (other.lineno, other.col_offset) <= (node.lineno, node.col_offset) < (other.end_lineno or 0, other.end_col_offset or 0)
