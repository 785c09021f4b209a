"""The chip's dispatcher: every op that PyTorch sends to the PrivateUse1 device arrives here.

In order: does the chip have this op and these dtypes; are all tensors on it; then run on host views of the same bytes, and hand
back device tensors. Ops that only describe (views, ``set_``, ``resize_``) change the description and launch nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sapper.backends.papertiger import memory
from sapper.backends.papertiger.arithmetic import Call, execute
from sapper.backends.papertiger.core import CHIP
from sapper.backends.papertiger.op_kinds import OpFacts, facts_of
from sapper.backends.trees import leaves, mapped

_CPU = torch.device("cpu")

MIXING = frozenset({
    "_copy_from", "_copy_from_and_resize", "copy", "index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put", "set",
    "_ctc_loss", "_ctc_loss_backward",
})  # fmt: skip
"""Ops that take tensors of the host beside those of the device: copies, indices, and a loss that reads its lengths on the host
(``aten/src/ATen/native/cuda/LossCTC.cu``: ``input_lengths.to(Device(at::kCPU), at::kLong)``)."""


def fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Kernel of every op that has none of its own."""
    facts = facts_of(func)
    CHIP.refuse_absent_op(facts.name)
    special = _SPECIAL.get(facts.base)
    if special is not None:
        return special(func, *args, **kwargs)
    given = leaves((args, kwargs))
    tensors = [leaf for leaf in given if isinstance(leaf, torch.Tensor)]
    _refuse_mixed(tensors, facts.base)
    if CHIP.absent_dtypes:
        CHIP.refuse_absent_dtypes([*(one.dtype for one in tensors), *(leaf for leaf in given if isinstance(leaf, torch.dtype))])
    if CHIP.personality.absent.op_dtypes:
        CHIP.refuse_absent_op_dtypes(facts.name, (one.dtype for one in tensors))
    seen = {id(one): memory.host(one) for one in tensors}

    def viewed(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return seen[id(leaf)]
        if isinstance(leaf, torch.device):
            return _CPU
        return _host_storage(leaf)

    call = Call(func, mapped(args, viewed), mapped(kwargs, viewed))
    if "pin_memory" in call.kwargs:
        call.kwargs["pin_memory"] = False
    result = CHIP.launch(call, execute) if facts.launches else call.invoke(call.args, call.kwargs)
    return _returned(facts, result, tensors, seen=seen)


def _returned(facts: OpFacts, result: Any, tensors: list[torch.Tensor], *, seen: dict[int, torch.Tensor]) -> Any:
    """Device tensors for what an op gave on the host; written arguments are handed back themselves."""
    of_seen = {id(seen[id(one)]): one for one in tensors}
    if facts.mutable:
        for one in tensors:
            if memory.on_device(one):
                memory.follow(one, seen[id(one)])

    def device_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return of_seen[id(leaf)] if id(leaf) in of_seen else memory.lift(leaf, tensors)

    return mapped(result, device_of)


def _host_storage(leaf: Any) -> Any:
    return leaf._allocation.bytes if isinstance(leaf, torch.UntypedStorage) and hasattr(leaf, "_allocation") else leaf


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
    if facts_of(func).base == "_copy_from_and_resize":
        target.resize_(source.shape)
    if memory.on_device(source) and memory.on_device(target):
        call = Call(torch.ops.aten.copy_.default, [memory.host(target), memory.host(source)], {})
        CHIP.launch(call, execute)
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
