"""Code for a PyTorch without ``torch.accelerator``: the branch where it is not there is CUDA's own, and stays."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Span


def older(context: Context) -> list[Span]:
    """What runs only where PyTorch has no ``torch.accelerator``, asked for in a test or by a name that keeps the answer."""
    names = {
        target.id
        for node in context.nodes if isinstance(node, ast.Assign) and _asks(context, node.value, ())
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    source = context.source
    return [Span(source.span(nodes[0]).start, source.span(nodes[-1]).end) for nodes in _branches(context, names) if nodes]


def _branches(context: Context, names: Collection[str]) -> Iterator[list[ast.stmt] | list[ast.expr]]:
    for node in context.nodes:
        if not isinstance(node, (ast.If, ast.IfExp)):
            continue
        denied = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        if not _asks(context, node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test, names):
            continue
        if isinstance(node, ast.If):
            yield node.body if denied else node.orelse
        else:
            yield [node.body if denied else node.orelse]


def _asks(context: Context, node: ast.expr, names: Collection[str]) -> bool:
    """``hasattr(torch, "accelerator")``, or one of ``names``; other objects have an ``accelerator`` of their own, a trainer's say."""
    if isinstance(node, ast.Name):
        return node.id in names
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "hasattr" or len(node.args) != 2:
        return False
    holder, name = node.args
    return context.imported(holder) == "torch" and isinstance(name, ast.Constant) and name.value == "accelerator"
