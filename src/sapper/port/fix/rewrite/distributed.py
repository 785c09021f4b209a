"""The backend of collectives: ``"nccl"`` by where it stands."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change, Expression
from sapper.port.fix.rewrite import strings
from sapper.port.fix.rewrite.context import Context


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rewrite the word where it is a backend, and the choice between NCCL and Gloo by whether there is CUDA."""
    backend = context.policy.backend()
    if backend is None:
        return
    if (isinstance(node, ast.IfExp) and _chosen(context, node)) or (
        isinstance(node, ast.Constant)
        and node.value == "nccl"
        and strings.is_device(context, node)
        and not _chosen(context, context.parents[node])
    ):
        # On a CPU the comparison with Gloo would be true.
        compared = isinstance(context.parents[node], ast.Compare)
        change = context.replaced(node, backend, symbol='"nccl"', grade="unsafe" if compared else "safe")
    elif isinstance(node, ast.Constant) and node.value in ("cpu:gloo,cuda:nccl", "cuda:nccl,cpu:gloo"):
        change = _both(context, node, backend)
    else:
        return
    if change:
        yield change


def _chosen(context: Context, node: ast.AST) -> bool:
    """``"nccl" if torch.cuda.is_available() else "gloo"``."""
    if not isinstance(node, ast.IfExp) or not context.policy.falls_to_cpu:
        return False
    test, words = node.test, (node.body, node.orelse)
    available = isinstance(test, ast.Call) and context.imported(test.func) == "torch.cuda.is_available"
    return available and [item.value if isinstance(item, ast.Constant) else None for item in words] == ["nccl", "gloo"]


def _both(context: Context, node: ast.Constant, backend: Expression) -> Change | None:
    device, quote = context.policy.device_type(), context.quote(node)
    if quote is None:
        return None
    parts = {"cpu": "cpu:gloo", "cuda": f"{{{device.text}}}:{{{backend.text}}}"}
    order = [part.split(":")[0] for part in str(node.value).split(",")]
    text = f"f{quote}{','.join(parts[name] for name in order)}{quote}"
    return context.replaced(node, Expression(text, (*device.needs, *backend.needs)), symbol=f'"{node.value!s}"')
