"""Calls that name no device and mean CUDA: the device is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

_OFFLOADS = frozenset({"enable_model_cpu_offload", "enable_sequential_cpu_offload"})
"""Of Diffusers' pipelines; ``device`` is CUDA where nothing is said, in the versions before it asked which there is."""
_SCALERS = frozenset({"torch.amp.GradScaler", "torch.GradScaler", "torch.amp.grad_scaler.GradScaler"})


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Name the device in a call whose default is CUDA."""
    if not isinstance(node, ast.Call) or any(keyword.arg in (None, "device") for keyword in node.keywords):
        return
    if isinstance(node.func, ast.Attribute) and node.func.attr in _OFFLOADS and not node.args:
        yield from _given(context, node, f".{node.func.attr}()")
    elif context.imported(node.func) in _SCALERS and not node.args:
        yield from _given(context, node, context.imported(node.func) or "")
    elif context.imported(node.func) in _LIGHTNING:
        yield from _trainer(context, node)


def _given(context: Context, node: ast.Call, symbol: str) -> Iterator[Change]:
    span, function = context.span(node), context.span(node.func)
    if span is None or function is None:
        return
    device = context.policy.device_type()
    at = context.source.text.index("(", function.end) + 1
    text = f"device={device.text}{', ' if node.keywords else ''}"
    yield Change(symbol, span, (Piece(Span(at, at), text),), "safe", device.needs, device.torch)


_LIGHTNING = frozenset(
    {"lightning.Trainer", "pytorch_lightning.Trainer", "lightning.pytorch.Trainer", "lightning.Fabric", "lightning.fabric.Fabric"}
)


def _trainer(context: Context, node: ast.Call) -> Iterator[Change]:
    """``accelerator="gpu"``: ``"auto"`` takes what there is, which is more than was asked for."""
    for keyword in node.keywords:
        value = keyword.value
        if keyword.arg == "accelerator" and isinstance(value, ast.Constant) and value.value in ("gpu", "cuda"):
            quote, span = context.quote(value), context.span(value)
            if quote is not None and span is not None:
                yield Change(f'"{value.value}"', span, (Piece(span, f"{quote}auto{quote}"),), "unsafe")
