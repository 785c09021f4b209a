"""Norms and attention that only devices have, as formulas: cuDNN's batch norm, fused RMS norm, fused attention, and their gradients.

Signatures and outputs are those of the ops (``native_functions.yaml`` of PyTorch 2.13). What such an op keeps for its own backward pass
alone (a reserve, the state of a random generator) is given as an empty tensor: its form is the device's affair. Attention's backward
pass is computed from query, key and value anew, so that a device's wrong log-sum-exp shows in its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Gradients: TypeAlias = tuple[Tensor | None, ...]


# ---- batch norm ------------------------------------------------------------------------------------------------------


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, training: bool, momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Normalised values, mean and inverse deviation of the batch; the running statistics change."""
    found: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    return found


def _cudnn_batch_norm(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return (*_batch_norm(x, *rest), _nothing(x, torch.uint8))


def _batch_norm_backward(
    x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor | None, var: Tensor | None, saved_mean: Tensor | None,
    saved_invstd: Tensor | None, eps: float, reserve: Tensor | None = None,
) -> Gradients:  # fmt: skip
    """Gradients of input, weight and bias, of a norm that was trained."""
    args = (grad, x, weight, mean, var, saved_mean, saved_invstd, True, eps, [True, True, True])
    found: Gradients = torch.ops.aten.native_batch_norm_backward.default(*args)
    return found


# ---- RMS norm --------------------------------------------------------------------------------------------------------


def _rms_norm_backward(
    grad: Tensor, x: Tensor, shape: Sequence[int], rstd: Tensor, weight: Tensor | None, wanted: Sequence[bool]
) -> Gradients:
    """Gradients of ``y = x r w`` with ``r`` the inverse root of the mean square over the last ``len(shape)`` dims."""
    dims = list(range(x.dim() - len(shape), x.dim()))
    values, given, inverse = _inside(x), _inside(grad), _inside(rstd)
    scaled = given if weight is None else given * _inside(weight)
    mean = (scaled * values).mean(dims, keepdim=True)
    of_input = (inverse * (scaled - values * inverse * inverse * mean)).to(x.dtype)
    if weight is None:
        return of_input if wanted[0] else None, None
    of_weight = (given * values * inverse).sum_to_size(weight.shape).to(weight.dtype)
    return of_input if wanted[0] else None, of_weight if wanted[1] else None


# ---- attention -------------------------------------------------------------------------------------------------------


Causal: TypeAlias = Literal["upper left", "lower right"] | None
"""Corner of the (queries, keys) matrix from which the causal mask's diagonal starts; None: all is seen.

``upper left``: the first query sees the first key alone; ``lower right``: the last query sees all keys. They are one where queries and keys
are as many. Flash attention means the latter (``torch/nn/attention/bias.py``, where it calls the op; FlashAttention's README, 2.1): so
``scaled_dot_product_attention(is_causal=True)`` never takes it for unlike lengths (``check_flash_causal_non_square_seqlens`` of PyTorch's
``sdp_utils.cpp``). Efficient attention means the former (``CausalFromTopLeft``), and so does cuDNN's (``set_causal_mask``).
"""


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, causal: Causal, scale: float | None) -> Tensor:
    """Scaled products of queries and keys of shape (..., queries, keys), masked; keys have as many heads as queries."""
    scores = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + _inside(bias)
    if causal is not None:
        queries, keys = scores.shape[-2:]
        seen = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries if causal == "lower right" else 0)
        scores = scores.masked_fill(~seen, -math.inf)
    return scores


def _attended(scores: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and their sums of values; a row that sees no key is zero."""
    weights = scores.softmax(-1).masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    return weights, weights @ value


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, dropout: float, causal: Causal, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp."""
    _without(dropout)
    groups = query.shape[-3] // key.shape[-3]
    scores = _scores(_inside(query), _spread(_inside(key), groups), bias, causal, scale)
    out = _attended(scores, _spread(_inside(value), groups))[1]
    return out.to(query.dtype), scores.logsumexp(-1)


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, dropout: float, causal: Causal, scale: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of query, key, value and bias (Dao et al., FlashAttention, 2022, appendix B.2)."""
    _without(dropout)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    groups = query.shape[-3] // key.shape[-3]
    q, k, v, g = _inside(query), _spread(_inside(key), groups), _spread(_inside(value), groups), _inside(grad)
    weights, out = _attended(_scores(q, k, bias, causal, scale), v)
    of_scores = weights * (g @ v.transpose(-1, -2) - (g * out).sum(-1, keepdim=True))
    of_key = _gathered(of_scores.transpose(-1, -2) @ q * factor, groups)
    of_value = _gathered(weights.transpose(-1, -2) @ g, groups)
    of_bias = None if bias is None else of_scores.sum_to_size(bias.shape).to(bias.dtype)
    return (of_scores @ k * factor).to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype), of_bias


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, log_sum: bool, dropout: float = 0.0, causal: bool = False, *,
    scale: float | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    out, lse = _attention(query, key, value, bias, dropout=dropout, causal="upper left" if causal else None, scale=scale)
    return out, lse, _nothing(query, torch.int64), _nothing(query, torch.int64)


def _efficient_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, out: Tensor, lse: Tensor, seed: Any, offset: Any,
    dropout: float, wanted: Sequence[bool], causal: bool = False, *, scale: float | None = None,
) -> Gradients:  # fmt: skip
    found = _attention_backward(grad, query, key, value, bias, dropout=dropout, causal="upper left" if causal else None, scale=scale)
    return tuple(one if want else None for one, want in zip(found, wanted, strict=True))


def _flash(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, causal: bool = False, debug: bool = False, *,
    scale: float | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    out, lse = _attention(query, key, value, None, dropout=dropout, causal="lower right" if causal else None, scale=scale)
    lse = lse.masked_fill(lse == -math.inf, math.inf)  # of a row that sees no key (FlashAttention's softmax.h, normalize_softmax_lse)
    state, other = _nothing(query, torch.int64), _nothing(query, torch.int64)
    return out, lse, None, None, query.shape[-2], key.shape[-2], state, other, _nothing(query, query.dtype)


def _flash_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, ends_q: Any, ends_k: Any, most_q: int, most_k: int,
    dropout: float, causal: bool, seed: Any, offset: Any, *, scale: float | None = None,
) -> Gradients:  # fmt: skip
    return _attention_backward(grad, query, key, value, None, dropout=dropout, causal="lower right" if causal else None, scale=scale)[:3]


def _cudnn_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, log_sum: bool, dropout: float = 0.0, causal: bool = False,
    debug: bool = False, *, scale: float | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    out, lse = _attention(query, key, value, bias, dropout=dropout, causal="upper left" if causal else None, scale=scale)
    state, other = _nothing(query, torch.int64), _nothing(query, torch.int64)
    return out, lse, None, None, query.shape[-2], key.shape[-2], state, other, None


def _cudnn_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, seed: Any, offset: Any, bias: Tensor | None,
    ends_q: Any, ends_k: Any, most_q: int, most_k: int, dropout: float, causal: bool, *, scale: float | None = None,
) -> Gradients:  # fmt: skip
    return _attention_backward(grad, query, key, value, bias, dropout=dropout, causal="upper left" if causal else None, scale=scale)[:3]


# ---- help ------------------------------------------------------------------------------------------------------------


def _inside(tensor: Tensor) -> Tensor:
    """In the precision in which such kernels compute: fp32 at least."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _spread(tensor: Tensor, groups: int) -> Tensor:
    """Each head of keys or values for the ``groups`` heads of queries that share it."""
    return tensor if groups == 1 else tensor.repeat_interleave(groups, -3)


def _gathered(grad: Tensor, groups: int) -> Tensor:
    """The sum of the gradients of heads that share keys or values."""
    return grad if groups == 1 else grad.unflatten(-3, (-1, groups)).sum(-3)


def _without(dropout: float) -> None:
    if dropout:
        raise NotImplementedError("attention with dropout has no formula: its mask is the device's own")


def _nothing(like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype, device=like.device)


FORMULAS: Mapping[str, Callable[..., Any]] = MappingProxyType({
    "aten::cudnn_batch_norm": _cudnn_batch_norm, "aten::cudnn_batch_norm_backward": _batch_norm_backward,
    "aten::miopen_batch_norm": _batch_norm, "aten::miopen_batch_norm_backward": _batch_norm_backward,
    "aten::_fused_rms_norm_backward": _rms_norm_backward,
    "aten::_scaled_dot_product_efficient_attention": _efficient,
    "aten::_scaled_dot_product_efficient_attention_backward": _efficient_backward,
    "aten::_scaled_dot_product_flash_attention": _flash, "aten::_scaled_dot_product_flash_attention_backward": _flash_backward,
    "aten::_scaled_dot_product_cudnn_attention": _cudnn_attention,
    "aten::_scaled_dot_product_cudnn_attention_backward": _cudnn_attention_backward,
})  # fmt: skip
"""By the op's name; each is called as the op is."""
