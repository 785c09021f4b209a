"""Flags of NVIDIA's libraries: set where there is CUDA, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

_LIBRARIES = ("torch.backends.cuda.", "torch.backends.cudnn.")


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Put a statement that only sets a flag behind a test for CUDA."""
    name = _flag(context, node)
    if name is None or not isinstance(node, ast.stmt) or _is_behind_a_test(context, node):
        return
    span = context.source.span(node)
    line, column = context.source.place(span.start)
    if context.source.line(line)[:column].strip() or not _ends_its_line(context, span):
        return
    device = context.policy.device_type()
    yield Change(name, span, (Piece(Span(span.start, span.start), f'if {device.text} == "cuda": '),), "safe", device.needs, device.torch)


def _flag(context: Context, node: ast.AST) -> str | None:
    """The flag that a statement sets, or the function that it calls to set one."""
    target: ast.AST | None = None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        target = node.value.func
    name = context.imported(target) if isinstance(target, ast.Attribute) else None
    return name if name is not None and name.startswith(_LIBRARIES) else None


def _is_behind_a_test(context: Context, node: ast.stmt) -> bool:
    """Whether a statement around asks for CUDA itself, and goes on doing so."""
    return any(isinstance(item, ast.If) and (names_cuda(item.test) or guards_flags_alone(context, item)) for item in context.above(node))


def names_cuda(test: ast.expr) -> bool:
    """Whether a test compares something with ``"cuda"``."""
    return any(
        isinstance(item, ast.Compare) and any(isinstance(side, ast.Constant) and side.value == "cuda" for side in ast.walk(item))
        for item in ast.walk(test)
    )


def guards_flags_alone(context: Context, node: ast.If) -> bool:
    """Whether nothing but flags of NVIDIA's libraries is behind a test for CUDA, which then stays one."""
    asks = names_cuda(node.test) or any(context.imported(item) == "torch.cuda.is_available" for item in ast.walk(node.test))
    return asks and all(_flag(context, item) is not None for item in node.body)


def _ends_its_line(context: Context, span: Span) -> bool:
    rest = context.source.text[span.end :].lstrip(" \t")
    return not rest or rest[0] in "\r\n#"
