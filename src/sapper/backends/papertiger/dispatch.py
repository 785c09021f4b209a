"""The chip's dispatcher: every op that PyTorch sends to the PrivateUse1 device arrives here.

In order: does the chip have this op and these dtypes; are all tensors on it; then run on host views of the same bytes, and hand
back device tensors. Ops that only describe (views, ``set_``, ``resize_``) change the description and launch nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_flatten, tree_map

import torch
from sapper.backends.papertiger import memory
from sapper.backends.papertiger.arithmetic import Call, base_name, execute
from sapper.backends.papertiger.core import CHIP

DESCRIBING = frozenset({"set", "resize", "resize_as", "as_strided", "t", "transpose", "squeeze", "unsqueeze", "swapdims", "swapaxes"})
"""In-place ops on shape, strides and storage."""
MIXING = frozenset({
    "_copy_from", "_copy_from_and_resize", "copy", "index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put", "set",
})  # fmt: skip
"""Ops that take tensors of the host beside those of the device: copies, and indices."""


def fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Kernel of every op that has none of its own."""
    name: str = func.name()
    CHIP.refuse_absent_op(func)
    base = base_name(func)
    special = _SPECIAL.get(base)
    if special is not None:
        return special(func, *args, **kwargs)
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    _refuse_mixed(tensors, base)
    CHIP.refuse_absent_dtypes([*(one.dtype for one in tensors), *(leaf for leaf in leaves if isinstance(leaf, torch.dtype))])
    seen, of_seen = _host_views(tensors)

    def viewed(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return seen[id(leaf)]
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        return _host_storage(leaf)

    args, kwargs = tree_map(viewed, args), tree_map(viewed, kwargs)
    if "pin_memory" in kwargs:
        kwargs["pin_memory"] = False
    if base in DESCRIBING or _only_views(func) or (not tensors and _is_factory(func)):
        result = func(*args, **kwargs)
    else:
        result = CHIP.launch(name, Call(func, args, kwargs), execute)
    return _returned(func, result, tensors, seen=seen, of_seen=of_seen)


def _returned(
    func: Any, result: Any, tensors: list[torch.Tensor], *, seen: dict[int, torch.Tensor], of_seen: dict[int, torch.Tensor]
) -> Any:
    """Device tensors for what an op gave on the host; written arguments are handed back themselves."""
    if func._schema.is_mutable:
        for one in tensors:
            if memory.on_device(one):
                memory.follow(one, seen[id(one)])

    def device_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return of_seen[id(leaf)] if id(leaf) in of_seen else memory.lift(leaf, tensors)

    return tree_map(device_of, result)


def _host_views(tensors: list[torch.Tensor]) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """By the id of a tensor its host view, and back; the views live as long as the first of the two."""
    seen = {id(one): memory.host(one) for one in tensors}
    return seen, {id(seen[id(one)]): one for one in tensors}


def _host_storage(leaf: Any) -> Any:
    return leaf._allocation.bytes if isinstance(leaf, torch.UntypedStorage) and hasattr(leaf, "_allocation") else leaf


def _only_views(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)


def _is_factory(func: Any) -> bool:
    return any(argument.name == "device" for argument in func._schema.arguments)


def _refuse_mixed(tensors: list[torch.Tensor], base: str) -> None:
    if base in MIXING or not any(memory.on_device(one) for one in tensors):
        return
    for one in tensors:
        if not memory.on_device(one) and (one.dim() or one.device.type != "cpu"):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {CHIP.device}:0 and {one.device}!"
            )


def _copy_from(func: Any, source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    CHIP.refuse_absent_dtypes([one.dtype for one in (source, target) if memory.on_device(one)])
    if base_name(func) == "_copy_from_and_resize":
        target.resize_(source.shape)
    if memory.on_device(source) and memory.on_device(target):
        call = Call(torch.ops.aten.copy_.default, [memory.host(target), memory.host(source)], {})
        CHIP.launch("aten::copy_", call, execute)
        return target
    CHIP.counters.transfer(into=memory.on_device(target))
    memory.host(target).copy_(memory.host(source))
    return target


def _local_scalar_dense(_: Any, tensor: torch.Tensor) -> Any:
    CHIP.counters.transfer(into=False)
    return memory.host(tensor).item()


def _record_stream(*_: Any) -> None:
    """There is one stream."""


def _is_pinned(*_: Any, **__: Any) -> bool:
    return False


_SPECIAL: dict[str, Callable[..., Any]] = {
    "_copy_from": _copy_from, "_copy_from_and_resize": _copy_from, "_local_scalar_dense": _local_scalar_dense,
    "record_stream": _record_stream, "is_pinned": _is_pinned,
}  # fmt: skip
