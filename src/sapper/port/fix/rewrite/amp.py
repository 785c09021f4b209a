"""Mixed precision: ``torch.cuda.amp`` is the old name of ``torch.amp``, which takes the device's type."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change, Expression
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

_MODERN = {
    "torch.cuda.amp.autocast": "torch.amp.autocast",
    "torch.cuda.amp.autocast_mode.autocast": "torch.amp.autocast",
    "torch.cuda.amp.GradScaler": "torch.amp.GradScaler",
    "torch.cuda.amp.grad_scaler.GradScaler": "torch.amp.GradScaler",
    "torch.cuda.amp.custom_fwd": "torch.amp.custom_fwd",
    "torch.cuda.amp.custom_bwd": "torch.amp.custom_bwd",
}
_SINCE = {"torch.amp.autocast": (1, 10), "torch.amp.GradScaler": (2, 3), "torch.amp.custom_fwd": (2, 4), "torch.amp.custom_bwd": (2, 4)}
_AUTOCAST_ARGUMENTS = ("enabled", "dtype", "cache_enabled")
"""In the order of ``torch.cuda.amp.autocast``; that of ``torch.amp.autocast`` is another one."""


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rewrite calls, decorators and bare references of the four names."""
    if not isinstance(node, (ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Load):
        return
    name = context.imported(node)
    if name not in _MODERN:
        if name and name.startswith("torch.cuda.amp.") and not isinstance(context.parents.get(node), ast.Attribute):
            yield context.shown(node, symbol=name)
        return
    modern = _MODERN[name]
    call = context.parents.get(node)
    if isinstance(call, ast.Call) and call.func is node:
        change = _called(context, call, modern)
    elif modern.startswith("torch.amp.custom_") and _is_decorator(context, node):
        change = _bare_decorator(context, node, modern)
    else:
        change = None
    yield change or context.shown(node, symbol=name)


def _called(context: Context, call: ast.Call, modern: str) -> Change | None:
    device = context.policy.device_type()
    span, func = context.span(call), context.span(call.func)
    if span is None or func is None:
        return None
    opening = context.source.text.index("(", func.end)
    keyword = "device_type=" if "custom_" in modern else ""
    first = f"{keyword}{device.text}{', ' if call.args or call.keywords else ''}"
    pieces = [*_callee(context, call.func, modern), Piece(Span(opening + 1, opening + 1), first)]
    if modern == "torch.amp.autocast":
        if any(isinstance(argument, ast.Starred) for argument in call.args) or len(call.args) > len(_AUTOCAST_ARGUMENTS):
            return None
        for argument, name in zip(call.args, _AUTOCAST_ARGUMENTS, strict=False):
            place = _start(context, argument)
            pieces.append(Piece(Span(place, place), f"{name}="))
    return _change(context, call.func, span, pieces, device, modern)


def _bare_decorator(context: Context, node: ast.Attribute | ast.Name, modern: str) -> Change | None:
    device = context.policy.device_type()
    span = context.span(node)
    if span is None:
        return None
    call = Piece(Span(span.end, span.end), f"(device_type={device.text})")
    return _change(context, node, span, [*_callee(context, node, modern), call], device, modern)


def _change(context: Context, function: ast.expr, anchor: Span, pieces: list[Piece], device: Expression, modern: str) -> Change:
    root = _root(function)
    return Change(
        context.imported(function) or "", anchor, tuple(_merged(pieces)), "safe", device.needs, _SINCE[modern],
        binding=None if root == "torch" else root,
    )  # fmt: skip


def _callee(context: Context, node: ast.expr, modern: str) -> list[Piece]:
    """The new name, where the file has the old one spelled out; an imported name keeps its own, and its import changes."""
    return [Piece(context.source.span(node), modern)] if _root(node) == "torch" else []


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_decorator(context: Context, node: ast.AST) -> bool:
    parent = context.parents.get(node)
    return isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)) and node in parent.decorator_list


def _start(context: Context, node: ast.expr) -> int:
    """Where an argument begins, with the parentheses around it."""
    text, start = context.source.text, context.source.span(node).start
    while text[start - 1] == "(" and _closes(text, context.source.span(node).end):
        before = text[: start - 1].rstrip()
        if before and (before[-1].isalnum() or before[-1] in "_)]"):
            break  # the parenthesis of the call
        start -= 1
    return start


def _closes(text: str, end: int) -> bool:
    return text[end:].lstrip()[:1] == ")"


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Insertions at one place as one piece, in the order given."""
    merged: dict[Span, str] = {}
    for piece in pieces:
        merged[piece.span] = merged.get(piece.span, "") + piece.text
    return [Piece(span, text) for span, text in merged.items()]
