"""Code for a PyTorch without ``torch.accelerator``: the branch where it is not there is CUDA's own, and stays."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from sapper.port.fix.text import Span, Text


def older(source: Text, tree: ast.Module) -> list[Span]:
    """What runs only where PyTorch has no ``torch.accelerator``, asked for in a test or by a name that keeps the answer."""
    names = {
        target.id
        for node in ast.walk(tree) if isinstance(node, ast.Assign) and _asks(node.value, ())
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    return [Span(source.span(nodes[0]).start, source.span(nodes[-1]).end) for nodes in _branches(tree, names) if nodes]


def _branches(tree: ast.Module, names: Collection[str]) -> Iterator[list[ast.stmt] | list[ast.expr]]:
    for node in ast.walk(tree):
        if not isinstance(node, (ast.If, ast.IfExp)):
            continue
        denied = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        if not _asks(node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test, names):
            continue
        if isinstance(node, ast.If):
            yield node.body if denied else node.orelse
        else:
            yield [node.body if denied else node.orelse]


def _asks(node: ast.expr, names: Collection[str]) -> bool:
    """``hasattr(torch, "accelerator")``, or one of ``names``."""
    if isinstance(node, ast.Name):
        return node.id in names
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "hasattr" or len(node.args) != 2:
        return False
    return isinstance(node.args[1], ast.Constant) and node.args[1].value == "accelerator"
