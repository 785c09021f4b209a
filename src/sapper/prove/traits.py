"""What the rule has to know of an op: how its result is made, and so which errors a correct stack may have.

An op that is in no list is held to be the least restrained kind: many steps inside, each of which may be rounded.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from sapper.backends.trees import tensors_in
from sapper.prove.signature import signature

Kind = Literal["exact", "arithmetic", "linear", "other"]
"""How an op makes its result.

``exact``: it computes no value, but moves or chooses; ``arithmetic``: IEEE 754 says what each element is, but for the roundings in
between; ``linear``: each element is one sum. All three a correct stack rounds once, when it writes them; ``other`` it may round inside.
"""

_KINDS: dict[Kind, frozenset[str]] = {
    cast(Kind, kind): frozenset(names)
    for kind, names in tomllib.loads((Path(__file__).parent / "data" / "ops.toml").read_text("utf-8")).items()
}
_KIND: dict[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in names}
_ADDING = frozenset({"_index_put_impl", "_unsafe_index_put", "index_put", "put", "scatter"})
"""Ops that only move values, unless an argument says that those for one place are to be summed (or multiplied)."""
_CHOOSING = frozenset({"index_reduce", "scatter_reduce"})
"""Ops that choose among values where they are to keep the largest or the smallest, and else add or multiply."""
_OF_LENGTHS = frozenset({"abs", "sgn"})
"""Of complex numbers they are computed by a square root."""


def plain_name(name: str) -> str:
    """``add`` of ``aten::add_.Tensor``: without namespace, overload and the mark of the in-place variant."""
    short = name.split("::")[-1].split(".")[0]
    return short if short.startswith("__") else short.rstrip("_")


def bound(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of its schema."""
    return signature(func).bound(args, kwargs)


def kind_of(name: str, given: Mapping[str, Any], tensors: Sequence[torch.Tensor] = ()) -> Kind:
    """How the op makes its result from these arguments.

    Args:
        name: Of the op, in any form.
        given: Its arguments by name; the tensors among them may be missing.
        tensors: Those that it reads.
    """
    short = plain_name(name)
    if short in _ADDING and (given.get("accumulate") or given.get("reduce") is not None):
        return "linear"
    if short in _CHOOSING and given.get("reduce") in ("amax", "amin"):
        return "exact"
    if (short == "round" and given.get("decimals")) or (short in _OF_LENGTHS and any(one.is_complex() for one in tensors)):
        return "other"
    return _KIND.get(short, "other")


def terms(func: Any, *, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Sequence[torch.Tensor]) -> int:
    """How many numbers an op adds up for one element of an output, at most: the length of the longest chain of roundings."""
    given = bound(func, args, kwargs)
    name = plain_name(func.name())
    rule = _TERMS.get(name)
    if rule is not None:
        return max(1, int(rule(given)))
    tensors = tensors_in(list(given.values()))
    if kind_of(name, given, tensors) in ("exact", "arithmetic"):
        return 1
    if name in _ADDING:
        return max((one.numel() for one in tensors if not one.is_floating_point()), default=1)  # as many as indices
    largest = max((one.numel() for one in tensors), default=1)
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
    "_native_batch_norm_legit_functional": _batch, "cudnn_batch_norm": _batch, "cudnn_batch_norm_backward": _batch,
    "miopen_batch_norm": _batch, "miopen_batch_norm_backward": _batch,
    "_scaled_dot_product_flash_attention_for_cpu": _attention, "_scaled_dot_product_flash_attention_for_cpu_backward": _attention,
    **{f"_scaled_dot_product_{kind}_attention{way}": _attention for kind in ("flash", "efficient", "cudnn") for way in ("", "_backward")},
    "scaled_dot_product_attention": _attention, "_scaled_dot_product_attention_math": _attention,
    "nll_loss_forward": _scattered("target"), "nll_loss2d_forward": _scattered("target"), "nll_loss_backward": _scattered("target"),
    "nll_loss2d_backward": _scattered("target"),
    "embedding_dense_backward": _scattered("indices"), "scatter_add": _scattered("index"), "index_add": _scattered("index"),
}  # fmt: skip


_PRIVATE_FROM = {"_embedding_bag": 1, "_embedding_bag_forward_only": 1, "cudnn_batch_norm": 3, "_batch_norm_with_update": 3}
"""Ops, and from which of their outputs on those are private."""


_STATISTICS = frozenset({"native_layer_norm", "native_group_norm", "_fused_rms_norm"})

Role = Literal["private", "statistic"]
"""What an output is for, where that leaves something of it to the stack.

``private``: only the same stack's own backward pass reads it, so that its form is the stack's affair; ``statistic``: a mean or inverse
deviation, which a stack may keep in fp32 whatever the dtype of the values.
"""


def role(name: str, output: int) -> Role | None:
    """Of one of the values that the op returns, counted from 0."""
    short = plain_name(name)
    if short.startswith("_scaled_dot_product") and not short.endswith("_backward"):
        return "private" if output > 0 else None
    if output >= _PRIVATE_FROM.get(short, math.inf):
        return "private"
    return "statistic" if output > 0 and short in _STATISTICS else None


SELECTIONS: dict[str, tuple[int, ...]] = {
    "argmax": (0,), "argmin": (0,), "argsort": (0,), "sort": (1,), "topk": (1,), "max": (1,), "min": (1,), "mode": (1,), "median": (1,),
    "nanmedian": (1,), "kthvalue": (1,), "cummax": (1,), "cummin": (1,), "max_pool2d_with_indices": (1,),
    "max_pool3d_with_indices": (1,), "adaptive_max_pool2d": (1,), "adaptive_max_pool3d": (1,),
}  # fmt: skip
"""Ops that return positions, and which outputs hold them: of equal values any may be named."""


WINDOWED = {"max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3, "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3}
"""Positions that count a window's plane or volume: the last so many dimensions flattened."""


@functools.cache
def returns_positions(name: str) -> tuple[int, ...]:
    """Which outputs of the op are positions in its first argument."""
    return SELECTIONS.get(plain_name(name), ())
