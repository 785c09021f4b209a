"""Fused attention: every ``_scaled_dot_product_*`` op, forward and backward, and Sapper's own op that stands for them.

Shapes: q [B, H, Tq, E], k [B, H', Tk, E], v [B, H', Tk, Ev]. A pair of a query and a key costs ``2*(E + Ev)`` FLOPs per
query head. ``flops`` counts the pairs that a causal mask leaves, ``flops_full`` the whole square. What an explicit mask
holds is unknown on tensors without data, so it counts as the whole square.

Backward: five products where the forward has two, since the fused kernel computes the scores again (Dao,
arXiv:2307.08691, section 3.1.2): ``2*(3*E + 2*Ev)`` FLOPs a pair.
"""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register
from sapper.workloads.kit import causal_pairs
from sapper.workloads.op import AttentionShape


def _shape(q: Any, k: Any, v: Any, *, causal: bool, window: int | None) -> AttentionShape:
    return AttentionShape(
        heads=q.shape[-3], kv_heads=k.shape[-3], qk_dim=q.shape[-1], v_dim=v.shape[-1], q_len=q.shape[-2], kv_len=k.shape[-2],
        causal=causal, window=window if window is not None and window < k.shape[-2] else None,
    )


def _pairs(shape: AttentionShape) -> float:
    if not shape.causal:
        return float(shape.q_len * shape.kv_len)
    if shape.kv_len < shape.q_len:  # PyTorch aligns the mask to the upper left: the last queries see all keys
        return float(causal_pairs(shape.kv_len, shape.kv_len) + (shape.q_len - shape.kv_len) * shape.kv_len)
    if shape.kv_len > shape.q_len:
        return float(shape.q_len * (shape.q_len + 1) // 2)
    return float(causal_pairs(shape.q_len, shape.kv_len, window=shape.window))


def _cost(q: Any, k: Any, v: Any, *, causal: bool, dims: float, window: int | None = None) -> Cost:
    shape = _shape(q, k, v, causal=causal, window=window)
    batch = math.prod(q.shape[:-3])
    each = 2.0 * batch * shape.heads * dims
    seen, full = each * _pairs(shape), each * shape.q_len * shape.kv_len
    return Cost(kind="attention", flops=seen, flops_full=full if full != seen else None, attention=shape)


def _forward(q: Any, k: Any, v: Any, *, causal: bool, window: int | None = None) -> Cost:
    """Scores and weighted sum."""
    return _cost(q, k, v, causal=causal, dims=q.shape[-1] + v.shape[-1], window=window)


def _backward(q: Any, k: Any, v: Any, *, causal: bool, window: int | None = None) -> Cost:
    """Scores again, and the gradients of v, the scores, q and k."""
    return _cost(q, k, v, causal=causal, dims=3 * q.shape[-1] + 2 * v.shape[-1], window=window)


@register("aten._scaled_dot_product_flash_attention", "aten._scaled_dot_product_flash_attention_for_cpu")
def flash(q: Any, k: Any, v: Any, dropout_p: float = 0.0, is_causal: bool = False, *_: Any, **__: Any) -> Cost:
    """``(q, k, v, dropout_p, is_causal, ...)``."""
    return _forward(q, k, v, causal=is_causal)


@register("aten._scaled_dot_product_efficient_attention", "aten._scaled_dot_product_cudnn_attention")
def efficient(
    q: Any, k: Any, v: Any, bias: Any, compute_log_sumexp: bool, dropout_p: float = 0.0, is_causal: bool = False, *_: Any, **__: Any
) -> Cost:
    """``(q, k, v, attn_bias, compute_log_sumexp, dropout_p, is_causal, ...)``."""
    return _forward(q, k, v, causal=is_causal)


@register(
    "aten.scaled_dot_product_attention", "aten._scaled_dot_product_attention_math", "aten._scaled_dot_product_attention_math_for_mps",
    "aten._scaled_dot_product_fused_attention_overrideable",
)
def masked(
    q: Any, k: Any, v: Any, mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, *_: Any, **__: Any
) -> Cost:
    """``(q, k, v, attn_mask, dropout_p, is_causal, ...)``."""
    return _forward(q, k, v, causal=is_causal)


@register("sapper.attention")
def own(q: Any, k: Any, v: Any, mask: Any, dropout_p: float, is_causal: bool, window: int | None, **_: Any) -> Cost:
    """``(q, k, v, attn_mask, dropout_p, is_causal, window)``."""
    return _forward(q, k, v, causal=is_causal, window=window)


@register("sapper.attention_backward")
def own_backward(gradient: Any, q: Any, k: Any, v: Any, mask: Any, lse: Any, is_causal: bool, window: int | None, **_: Any) -> Cost:
    """``(grad_out, q, k, v, attn_mask, logsumexp, is_causal, window)``."""
    return _backward(q, k, v, causal=is_causal, window=window)


@register("aten._scaled_dot_product_flash_attention_for_cpu_backward")
def flash_cpu_backward(
    gradient: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, dropout_p: float, is_causal: bool, *_: Any, **__: Any
) -> Cost:
    """``(grad_out, q, k, v, out, logsumexp, dropout_p, is_causal, ...)``."""
    return _backward(q, k, v, causal=is_causal)


@register("aten._scaled_dot_product_flash_attention_backward")
def flash_backward(
    gradient: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, cum_q: Any, cum_k: Any, max_q: Any, max_k: Any, dropout_p: float,
    is_causal: bool, *_: Any, **__: Any,
) -> Cost:
    """``(grad_out, q, k, v, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, ...)``."""
    return _backward(q, k, v, causal=is_causal)


@register("aten._scaled_dot_product_efficient_attention_backward")
def efficient_backward(
    gradient: Any, q: Any, k: Any, v: Any, bias: Any, o: Any, lse: Any, seed: Any, offset: Any, dropout_p: float, mask: Any,
    is_causal: bool = False, *_: Any, **__: Any,
) -> Cost:
    """``(grad_out, q, k, v, attn_bias, out, logsumexp, seed, offset, dropout_p, grad_input_mask, is_causal, ...)``."""
    return _backward(q, k, v, causal=is_causal)


@register("aten._scaled_dot_product_cudnn_attention_backward")
def cudnn_backward(
    gradient: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, seed: Any, offset: Any, bias: Any, cum_q: Any, cum_k: Any, max_q: Any,
    max_k: Any, dropout_p: float, is_causal: bool, *_: Any, **__: Any,
) -> Cost:
    """``(grad_out, q, k, v, out, logsumexp, seed, offset, attn_bias, cum_q, cum_k, max_q, max_k, dropout_p, is_causal)``."""
    return _backward(q, k, v, causal=is_causal)


@register("aten._scaled_dot_product_fused_attention_overrideable_backward")
def overrideable_backward(
    gradient: Any, q: Any, k: Any, v: Any, bias: Any, mask: Any, o: Any, lse: Any, cum_q: Any, cum_k: Any, max_q: Any, max_k: Any,
    dropout_p: float, is_causal: bool, *_: Any, **__: Any,
) -> Cost:
    """``(grad_out, q, k, v, attn_bias, grad_input_mask, out, lse, cum_q, cum_k, max_q, max_k, dropout_p, is_causal, ...)``."""
    return _backward(q, k, v, causal=is_causal)
