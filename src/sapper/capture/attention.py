"""One op for every call of ``scaled_dot_product_attention``, so that what is captured does not depend on the device.

PyTorch picks a kernel by device, dtype and head dims; on a CPU many calls fall back to plain products, which no
accelerator would run. While :class:`AsOnDevice` is in force each call becomes ``sapper::attention`` instead, which
exists for tensors without data only: it has shapes and an autograd formula, no computation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

import torch
from sapper.capture.unshaped import ctc_loss

_LIBRARY = torch.library.Library("sapper", "DEF")
_LIBRARY.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, float dropout_p, bool is_causal, int? window) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "attention_backward(Tensor gradient, Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor lse, bool is_causal, int? window)"
    " -> (Tensor, Tensor, Tensor)"
)


@torch.library.register_fake("sapper::attention")
def _attention(q: Any, k: Any, v: Any, mask: Any, dropout_p: float, is_causal: bool, window: int | None) -> tuple[Any, Any]:
    """Output laid out as the fused kernels do, [B, Tq, H, Ev] seen as [B, H, Tq, Ev], so that merging heads is a view."""
    *batch, heads, q_len, _ = q.shape
    out = q.new_empty((*batch, q_len, heads, v.shape[-1])).transpose(-3, -2)
    return out, q.new_empty((*batch, heads, q_len), dtype=torch.float32)


@torch.library.register_fake("sapper::attention_backward")
def _attention_backward(
    gradient: Any, q: Any, k: Any, v: Any, mask: Any, lse: Any, is_causal: bool, window: int | None
) -> tuple[Any, Any, Any]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, mask: Any, dropout_p: float, is_causal: bool, window: int | None) -> Any:
        out, lse = torch.ops.sapper.attention(q, k, v, mask, dropout_p, is_causal, window)
        ctx.save_for_backward(q, k, v, mask, out, lse)
        ctx.rest = is_causal, window
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        q, k, v, mask, _, lse = ctx.saved_tensors
        of_mask = torch.empty_like(mask) if mask is not None and ctx.needs_input_grad[3] else None
        return *torch.ops.sapper.attention_backward(gradient, q, k, v, mask, lse, *ctx.rest), of_mask, None, None, None


def attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, window: int | None = None,
) -> Any:
    """The call as PyTorch's signature has it, and the window of sliding attention; a query without a head dim is one head. One key
    head serves all query heads, as PyTorch broadcasts it without being told."""
    if query.dim() == 3:
        return attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), attn_mask, dropout_p, is_causal).squeeze(1)
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2] or key.shape[-3] != value.shape[-3]:
        raise ValueError(f"attention of q {tuple(query.shape)}, k {tuple(key.shape)}, v {tuple(value.shape)}: the shapes do not fit")
    if key.shape[-3] not in (1, query.shape[-3]) and (not enable_gqa or query.shape[-3] % key.shape[-3]):
        raise ValueError(f"attention of {query.shape[-3]} query heads and {key.shape[-3]} key heads needs enable_gqa=True")
    return _Attention.apply(query, key, value, attn_mask, dropout_p, is_causal, window)


def _flex(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    """Flex attention as one fused kernel; what its block mask and score function leave out is data, so nothing is."""
    return attention(query, key, value, enable_gqa=True)


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if not training or not p:
        return input
    out = torch.native_dropout(input, p, True)[0]
    return input.copy_(out) if inplace else out


_ORIGINAL_ATTENTION, _ORIGINAL_DROPOUT = functional.scaled_dot_product_attention, functional.dropout


class AsOnDevice(TorchFunctionMode):
    """While in force, calls that a CPU runs in a way of its own are what an accelerator runs: attention becomes
    ``sapper::attention``, and dropout keeps a mask of one byte an element. CTC loss takes its lengths as tensors."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is _ORIGINAL_ATTENTION:
            return attention(*args, **(kwargs or {}))
        if func is _ORIGINAL_DROPOUT:
            return _dropout(*args, **(kwargs or {}))
        if func is functional.ctc_loss:
            return ctc_loss(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


_PRODUCTS = frozenset(
    (torch.matmul, torch.bmm, torch.baddbmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm, torch.Tensor.baddbmm)
)


class Written(TorchFunctionMode):
    """While in force, causal self-attention that is written out, as products, a softmax and what lies between, is one call of
    :func:`attention`: from the product of q and k to the product with v nothing is recorded."""

    def __init__(self, silent: Callable[[], contextlib.AbstractContextManager[None]], *, batch: int, window: int | None) -> None:
        """Args:
        silent: Ops inside it are not recorded.
        batch: Samples; q, k and v may have their heads in the same dim.
        window: Tokens that a query sees, itself among them; None: all before it.
        """
        super().__init__()
        self._silent, self._batch, self._window = silent, batch, window
        self._heads: tuple[Any, Any] | None = None
        self._scores: list[Any] = []
        """The scores, and all that was made of them."""
        self._dropout_p = 0.0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = kwargs or {}
        tensors = [one for one in (*args, *given.values()) if isinstance(one, torch.Tensor)]
        of_scores = any(one is score for one in tensors for score in self._scores)
        if func in _PRODUCTS:
            left, right = tensors[-2:]
            if of_scores:
                return self._weighted(right)
            if left.requires_grad and right.requires_grad and left.shape[-2] == right.shape[-1]:
                self._heads, of_scores = (left, right.transpose(-1, -2)), True
        if not of_scores:
            return func(*args, **given)
        if func is torch.native_dropout:
            self._dropout_p = args[1]
        with self._silent(), torch.no_grad():
            out = func(*args, **given)
        self._scores += [one for one in (out if isinstance(out, tuple) else (out,)) if isinstance(one, torch.Tensor)]
        return out

    def _weighted(self, value: Any) -> Any:
        """The product of what became of the scores and ``value``."""
        assert self._heads is not None
        query, key, of_heads = (
            one.to(value.dtype).reshape(self._batch, -1, *one.shape[-2:]) for one in (*self._heads, value)
        )  # a reference may widen q and k for its scores; a fused kernel has them in fp32 anyway
        out = attention(query, key, of_heads, None, self._dropout_p, True, enable_gqa=True, window=self._window)
        self._scores.clear()
        return out.reshape(*self._heads[0].shape[:-1], value.shape[-1])


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """While it lasts, whoever imports or calls these by name gets the fused kernels too. :class:`AsOnDevice` does not reach
    calls inside other functions of PyTorch (``nn.MultiheadAttention``) nor recomputation in the backward pass;
    ``flex_attention`` would compile itself, and has no backward pass on a CPU."""
    from torch.nn.attention import flex_attention

    places = [
        (functional, "scaled_dot_product_attention", attention),
        (functional, "dropout", _dropout),
        (flex_attention, "flex_attention", _flex),
    ]
    originals = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, ours in places:
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)
