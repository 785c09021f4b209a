"""Functions and classes of ``torch.cuda``: the same name of what stands for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change, Expression, Grade
from sapper.port.fix.policy import RENAMED
from sapper.port.fix.rewrite.context import Context

CUDA = "torch.cuda"

SAFE = frozenset({
    "is_available", "device_count", "current_device", "set_device", "synchronize", "device", "device_of", "is_initialized",
    "get_device_name", "is_bf16_supported", "empty_cache", "memory_allocated", "max_memory_allocated",
    "memory_reserved", "max_memory_reserved", "memory_cached", "max_memory_cached", "reset_peak_memory_stats",
    "reset_max_memory_allocated", "reset_max_memory_cached", "reset_accumulated_memory_stats", "mem_get_info", "memory_stats",
    "Stream", "Event", "stream", "current_stream", "set_stream", "manual_seed", "manual_seed_all", "seed", "seed_all",
    "initial_seed", "get_rng_state", "set_rng_state", "get_rng_state_all", "set_rng_state_all", "get_device_properties",
    "can_device_access_peer", "memory", "memory_snapshot", "set_per_process_memory_fraction", "StreamContext",
})  # fmt: skip
"""What the vendors' modules have under the same name and with the same meaning."""

UNSAFE = frozenset({
    # A capability is no order between vendors, and not every chip captures graphs.
    "get_device_capability", "is_current_stream_capturing", "graph", "CUDAGraph", "graph_pool_handle", "make_graphed_callables",
    # Not every vendor's module has these: torch.xpu of PyTorch 2.13 lacks the first four, those of MUSA and MLU some of the rest.
    "default_stream", "ExternalStream", "ipc_collect", "memory_summary", "init", "utilization", "default_generators",
})  # fmt: skip
"""What may do something else on another chip, or is not there; safe where the policy answers for it."""

CAPABILITY = ("major", "minor")
"""Fields of device properties that are a capability."""

OTHER_FAMILIES = frozenset({
    "amp", "FloatTensor", "DoubleTensor", "HalfTensor", "BFloat16Tensor", "ByteTensor", "CharTensor", "ShortTensor", "IntTensor",
    "LongTensor", "BoolTensor",
})  # fmt: skip


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rewrite ``torch.cuda.<member>``, by whichever name the file knows it."""
    if not isinstance(node, (ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Load):
        return
    name = context.imported(node)
    if name is None or not name.startswith(f"{CUDA}."):
        if name == CUDA:
            yield from _module(context, node)
        elif name in _AUTOCAST_DTYPES:
            yield from _autocast_dtype(context, node, name)
        return
    member = name.removeprefix(f"{CUDA}.")
    if "." in member or member in OTHER_FAMILIES:
        return
    yield from _member(context, node, member)


def _member(context: Context, node: ast.Attribute | ast.Name, member: str) -> Iterator[Change]:
    symbol = f"{CUDA}.{member}"
    grade = _grade(context, node, member)
    if member == "OutOfMemoryError":
        new: Expression | None = Expression("torch.OutOfMemoryError", torch=(2, 5))
    elif member == "current_device" and _is_call(context, node):
        new = None
        yield from _current_device(context, node, symbol)
        return
    else:
        new = context.policy.member(RENAMED.get(member, member)) if grade != "display" else None
    change = context.replaced(node, new, symbol=symbol, grade=grade) if new else None
    yield change or context.shown(node, symbol=symbol)


def _current_device(context: Context, node: ast.Attribute | ast.Name, symbol: str) -> Iterator[Change]:
    """The whole call, since a policy may name the current device without one."""
    call = context.parents[node]
    assert isinstance(call, ast.Call)
    new = context.policy.current(as_device=_takes_device(context, call))
    change = context.replaced(call, new, symbol=symbol)
    yield change or context.shown(node, symbol=symbol)


def _takes_device(context: Context, node: ast.expr) -> bool:
    """Whether a value goes where PyTorch takes a device: ``.to(value)``, ``device=value``, ``torch.device(value)``."""
    parent = context.parents.get(node)
    if isinstance(parent, ast.keyword):
        return parent.arg in ("device", "map_location")
    if not isinstance(parent, ast.Call):
        return False
    return (isinstance(parent.func, ast.Attribute) and parent.func.attr == "to") or context.imported(parent.func) == "torch.device"


def _is_call(context: Context, node: ast.AST) -> bool:
    parent = context.parents.get(node)
    return isinstance(parent, ast.Call) and parent.func is node and not parent.args and not parent.keywords


def _grade(context: Context, node: ast.AST, member: str) -> Grade:
    if member in SAFE or member in context.policy.answers or member == "OutOfMemoryError":
        return "safe"
    if member == "get_device_properties":
        call = context.parents.get(node)
        reader = context.parents.get(call) if isinstance(call, ast.Call) else None
        return "unsafe" if isinstance(reader, ast.Attribute) and reader.attr in CAPABILITY else "safe"
    return "unsafe" if member in UNSAFE else "display"


_READERS = ("getattr", "hasattr")


def _module(context: Context, node: ast.Attribute | ast.Name) -> Iterator[Change]:
    """``torch.cuda`` itself as a value; a member of it is a node above, and comes by itself."""
    parent = context.parents.get(node)
    if isinstance(parent, ast.Attribute):
        return
    given = isinstance(parent, (ast.Call, ast.keyword)) and not (isinstance(parent, ast.Call) and ast.unparse(parent.func) in _READERS)
    change = context.replaced(node, context.policy.module(), symbol=CUDA, grade="unsafe" if given else "safe")
    yield change or context.shown(node, symbol=CUDA)


_AUTOCAST_DTYPES = {
    "torch.get_autocast_gpu_dtype": "torch.get_autocast_dtype",
    "torch.set_autocast_gpu_dtype": "torch.set_autocast_dtype",
}


def _autocast_dtype(context: Context, node: ast.Attribute | ast.Name, name: str) -> Iterator[Change]:
    """The function of PyTorch 2.4 that takes the device's type first."""
    call = context.parents.get(node)
    if not isinstance(call, ast.Call) or call.func is not node or not isinstance(node, ast.Attribute):
        return
    device = context.policy.device_type()
    rest = [context.source.of(argument) for argument in call.args]
    new = Expression(f"{_AUTOCAST_DTYPES[name]}({', '.join([device.text, *rest])})", device.needs, (2, 4))
    change = context.replaced(call, new, symbol=name)
    if change:
        yield change
