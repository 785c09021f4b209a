"""Edits of functions that a module calls: while it runs, attention, activations and norms are others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

import torch

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": functional.relu, "gelu": functional.gelu, "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu, "tanh": torch.tanh, "elu": functional.elu, "softplus": functional.softplus, "mish": functional.mish,
    "hardswish": functional.hardswish, "leaky-relu": lambda x: functional.leaky_relu(x, 0.2), "sigmoid": torch.sigmoid,
}  # fmt: skip
"""By name; each is called with a tensor."""
SEEN_AS = {
    functional.relu: "relu", torch.relu: "relu", torch.Tensor.relu: "relu", functional.gelu: "gelu", functional.silu: "silu",
    functional.elu: "elu", functional.softplus: "softplus", functional.mish: "mish", functional.hardswish: "hardswish",
    functional.leaky_relu: "leaky-relu",
}  # fmt: skip
"""Functions that are taken for an activation; tanh and sigmoid are as often a gate, and stay."""


def attention_written_out(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **named: Any
) -> Any:  # fmt: skip
    """``scaled_dot_product_attention`` by elementary ops."""
    scale = named.get("scale") or 1 / math.sqrt(query.shape[-1])
    if named.get("enable_gqa"):
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], -3) for one in (key, value))
    scores = query @ key.transpose(-2, -1) * scale
    if is_causal:
        scores = scores.masked_fill(~_lower(query, key), float("-inf"))
    elif attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, -1) @ value


def _lower(query: Any, key: Any) -> Any:
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()


def _attention(how: str) -> Callable[..., Any]:
    plain = functional.scaled_dot_product_attention

    def changed(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **named: Any
    ) -> Any:  # fmt: skip
        if how == "written out":
            return attention_written_out(query, key, value, attn_mask, dropout_p, is_causal, **named)
        if how in ("full", "causal"):
            return plain(query, key, value, None, dropout_p, how == "causal" and query.shape[-2] == key.shape[-2], **named)
        mask = _lower(query, key)
        if how == "float mask":
            mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, float("-inf"))
        elif how == "windowed":
            mask = mask & ~mask.tril(-max(1, key.shape[-2] // 4))
        return plain(query, key, value, mask, dropout_p, False, **named)

    return changed


ATTENTION = ("written out", "full", "causal", "mask", "float mask", "windowed")


def rms_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float | None = 1e-5) -> Any:
    """Layer norm's arguments, RMS norm's values (arXiv:1910.07467, equation 4)."""
    out = functional.rms_norm(x, shape, weight, eps)
    return out if bias is None else out + bias


def layer_norm(x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """RMS norm's arguments, layer norm's values."""
    return functional.layer_norm(x, shape, weight, None, eps or 1e-5)


def group_norm(
    x: Any, mean: Any, variance: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Batch norm's arguments, values of group norm with one group (arXiv:1803.08494, section 3)."""
    return functional.group_norm(x, 1, weight, bias, eps)


NORMS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "layer to rms": (functional.layer_norm, rms_norm),
    "rms to layer": (functional.rms_norm, layer_norm),
    "batch to group": (functional.batch_norm, group_norm),
}
"""Edit to the function that it replaces and what stands in its place."""


class Swapped(TorchFunctionMode):
    """While it lasts, some functions are others."""

    def __init__(self, swaps: dict[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._swaps = swaps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._swaps.get(func, func)(*args, **(kwargs or {}))


class Seen(TorchFunctionMode):
    """Counts the functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[Any, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions[func] = self.functions.get(func, 0) + 1
        return func(*args, **(kwargs or {}))


def swaps_of(kind: str, name: str, *, frm: str = "") -> dict[Any, Callable[..., Any]]:
    """What an edit of kind ``attention``, ``activation`` (from ``frm``) or ``norm`` puts in the place of what."""
    if kind == "attention":
        return {functional.scaled_dot_product_attention: _attention(name)}
    if kind == "norm":
        return dict([NORMS[name]])
    wanted = ACTIVATIONS[name]
    return {func: lambda x, *_, **__: wanted(x) for func, known in SEEN_AS.items() if known == frm}
