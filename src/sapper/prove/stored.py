"""Tensors kept as they lay: values, dtypes and strides, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch


class Unkept(Exception):
    """A tensor or file that has no plain values; ``code`` is the message that says why, with ``values``."""

    def __init__(self, code: str, /, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


def laid_out(tensor: torch.Tensor, *, copy: bool = False) -> torch.Tensor:
    """The tensor on the CPU, free of autograd and of lazy conjugation, with its strides; a copy of its own where asked.

    Raises:
        Unkept: Its layout has no plain values: sparse, quantised, nested.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise Unkept("prove.reason.layout", layout="quantised" if tensor.is_quantized else str(tensor.layout)[6:])
    one = tensor.detach()
    if one.is_conj() or one.is_neg():
        return one.resolve_conj().resolve_neg().cpu()
    moved = one if one.device.type == "cpu" else one.to("cpu")
    if moved is not one and moved.stride() != one.stride():
        return _strided(moved, one.stride())
    return _strided(moved, moved.stride(), copy=True) if copy and moved is one else moved


def to_bytes(tensors: Sequence[torch.Tensor], facts: Mapping[str, str]) -> bytes:
    """One safetensors file: tensors by position, ``facts`` and strides in its metadata."""
    from safetensors.torch import save

    held, strides, kinds = {}, [], []
    for at, tensor in enumerate(tensors):
        strides.append(list(tensor.stride()))
        kinds.append(str(tensor.dtype)[6:])
        compact = _once(tensor)
        held[str(at)] = (torch.view_as_real(compact) if compact.is_complex() else compact).contiguous().clone()
    layout = {"strides": strides, "shapes": [list(one.shape) for one in tensors], "dtypes": kinds}
    return bytes(save(held, metadata={**facts, "layout": json.dumps(layout)}))


def from_bytes(data: bytes) -> tuple[list[torch.Tensor], dict[str, str]]:
    """What :func:`to_bytes` wrote.

    Raises:
        Unkept: It is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        held = load(data)
        size = int.from_bytes(data[:8], "little")
        facts: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
        layout = json.loads(facts["layout"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise Unkept("prove.reason.no_call") from error
    tensors = []
    for at, (shape, stride, dtype) in enumerate(zip(layout["shapes"], layout["strides"], layout["dtypes"], strict=True)):
        one = held[str(at)]
        if getattr(torch, dtype).is_complex:
            one = torch.view_as_complex(one).clone()  # not a view of reals, of which torch.export can make no fake tensor
        tensors.append(_strided(one.expand(shape), stride))
    return tensors, facts


def _once(tensor: torch.Tensor) -> torch.Tensor:
    """Without the repeats of expanded dimensions."""
    for dim, step in enumerate(tensor.stride()):
        if step == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _strided(tensor: torch.Tensor, stride: Sequence[int], *, copy: bool = False) -> torch.Tensor:
    """The same values with these strides; contiguous where elements would share memory otherwise than by expansion."""
    if tuple(tensor.stride()) == tuple(stride) and not copy:
        return tensor
    once = tensor
    for dim, step in enumerate(stride):
        if step == 0 and once.shape[dim] > 1:
            once = once.narrow(dim, 0, 1)
    needed = sorted((step, size) for step, size in zip(stride, once.shape, strict=True) if size > 1)
    reach = 0
    for step, size in needed:
        if step <= reach:
            return tensor.contiguous().clone()
        reach += step * (size - 1)
    own = torch.empty_strided(tuple(once.shape), tuple(stride), dtype=tensor.dtype)
    own.copy_(once)
    return own.expand(tensor.shape)
