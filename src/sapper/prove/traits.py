"""What the rule has to know of an op: how its result is made, and so which errors a correct stack may have.

An op that is in no list is held to be the least restrained kind: many steps inside, each of which may be rounded.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils._pytree import tree_leaves

import torch

_KINDS: dict[str, frozenset[str]] = {
    kind: frozenset(names) for kind, names in tomllib.loads((Path(__file__).parent / "data" / "ops.toml").read_text("utf-8")).items()
}
_SIMPLE = frozenset[str]().union(*_KINDS.values())


def plain_name(name: str) -> str:
    """``add`` of ``aten::add_.Tensor``: without namespace, overload and the mark of the in-place variant."""
    short = name.split("::")[-1].split(".")[0]
    return short if short.startswith("__") else short.rstrip("_")


def is_exact(name: str) -> bool:
    """Whether the op computes no new value."""
    return plain_name(name) in _KINDS["exact"]


def is_arithmetic(name: str) -> bool:
    """Whether IEEE 754 says what each element is, but for the roundings in between."""
    return plain_name(name) in _KINDS["arithmetic"]


def is_simple(name: str) -> bool:
    """Whether a correct stack rounds its result once, all before being at least fp32."""
    return plain_name(name) in _SIMPLE


def terms(func: Any, *, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Sequence[torch.Tensor]) -> int:
    """How many numbers an op adds up for one element of an output, at most: the length of the longest chain of roundings."""
    bound = {**dict(zip((one.name for one in func._schema.arguments), args, strict=False)), **kwargs}
    name = plain_name(func.name())
    rule = _TERMS.get(name)
    if rule is not None:
        return max(1, int(rule(bound)))
    if name in _KINDS["exact"] | _KINDS["arithmetic"]:
        return 1
    largest = max((one.numel() for one in tree_leaves(list(bound.values())) if isinstance(one, torch.Tensor)), default=1)
    smallest = min((one.numel() for one in outputs if one.numel()), default=1)
    return max(1, largest // max(smallest, 1))


def _last(name: str) -> Callable[[Mapping[str, Any]], int]:
    return lambda bound: int(bound[name].shape[-1]) if bound[name].dim() else 1


def _along(bound: Mapping[str, Any]) -> int:
    """Size of the dimension that the op runs along."""
    tensor = next(one for one in bound.values() if isinstance(one, torch.Tensor))
    return int(tensor.shape[bound["dim"]]) if tensor.dim() else 1


def _convolution(bound: Mapping[str, Any]) -> int:
    weight = bound["weight"]
    return int(weight.numel() // max(weight.shape[1 if bound.get("transposed") else 0], 1)) + 1


def _convolution_backward(bound: Mapping[str, Any]) -> int:
    grad, weight = bound["grad_output"], bound["weight"]
    return int(max(grad.numel() // max(grad.shape[1], 1), weight.numel() // max(min(weight.shape[:2]), 1)))


def _layer(bound: Mapping[str, Any]) -> int:
    """Elements of one norm, or in the backward pass the rows that the gradient of the weight sums over."""
    size = int(math.prod(bound["normalized_shape"]))
    return max(size, int(bound["input"].numel()) // max(size, 1))


def _group(bound: Mapping[str, Any]) -> int:
    return max(int(bound["C"] // max(bound["group"], 1) * bound["HxW"]), int(bound["N"] * bound["HxW"]))


def _batch(bound: Mapping[str, Any]) -> int:
    return int(bound["input"].numel() // max(bound["input"].shape[1], 1))


def _attention(bound: Mapping[str, Any]) -> int:
    return int(max(*bound["key"].shape[-2:], bound["query"].shape[-2]))


def _scattered(name: str) -> Callable[[Mapping[str, Any]], int]:
    """As many as all indices, where they may be equal."""
    return lambda bound: int(bound[name].numel())


_TERMS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "mm": _last("self"), "bmm": _last("self"), "mv": _last("self"), "dot": _last("self"), "matmul": _last("self"),
    "linear": _last("input"), "addmm": _last("mat1"), "baddbmm": _last("batch1"), "addmv": _last("mat"),
    "addbmm": lambda bound: bound["batch1"].shape[0] * bound["batch1"].shape[-1],
    "convolution": _convolution, "convolution_backward": _convolution_backward, "mkldnn_convolution": _convolution,
    "_softmax": _along, "_log_softmax": _along, "_softmax_backward_data": _along, "_log_softmax_backward_data": _along,
    "softmax": _along, "log_softmax": _along, "cumsum": _along, "cumprod": _along, "logcumsumexp": _along,
    "native_layer_norm": _layer, "native_layer_norm_backward": _layer, "native_group_norm": _group, "native_group_norm_backward": _group,
    "_fused_rms_norm": _layer, "_fused_rms_norm_backward": _layer, "rms_norm": _layer,
    "native_batch_norm": _batch, "native_batch_norm_backward": _batch, "_native_batch_norm_legit": _batch,
    "_native_batch_norm_legit_functional": _batch,
    "_scaled_dot_product_flash_attention_for_cpu": _attention, "_scaled_dot_product_flash_attention_for_cpu_backward": _attention,
    "_scaled_dot_product_flash_attention": _attention, "_scaled_dot_product_efficient_attention": _attention,
    "scaled_dot_product_attention": _attention, "_scaled_dot_product_attention_math": _attention,
    "embedding_dense_backward": _scattered("indices"), "scatter_add": _scattered("index"), "index_add": _scattered("index"),
}  # fmt: skip


def is_private(name: str, output: int) -> bool:
    """Whether an output is only for the same stack's own backward pass, so that its form is the stack's affair."""
    return output > 0 and plain_name(name).startswith("_scaled_dot_product")


SELECTIONS: dict[str, tuple[int, ...]] = {
    "argmax": (0,), "argmin": (0,), "argsort": (0,), "sort": (1,), "topk": (1,), "max": (1,), "min": (1,), "mode": (1,), "median": (1,),
    "nanmedian": (1,), "kthvalue": (1,), "cummax": (1,), "cummin": (1,), "max_pool2d_with_indices": (1,),
}  # fmt: skip
"""Ops that return positions, and which outputs hold them: of equal values any may be named."""


@functools.cache
def returns_positions(name: str) -> tuple[int, ...]:
    """Which outputs of the op are positions in its first argument."""
    return SELECTIONS.get(plain_name(name), ())
