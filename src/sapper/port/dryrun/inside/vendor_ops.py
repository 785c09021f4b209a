"""Operators of vendors' plug-ins that the emulated chip plays, by their documented formulas, from PyTorch's own operators.

Sources, read 2026-11-27: github.com/Ascend/op-plugin at 517f2e7, ``docs/zh/custom_APIs/torch_npu/torch_npu-NAME.md`` and the signatures
in ``op_plugin/config/op_plugin_functions.yaml``; docs.habana.ai, PyTorch reference, ``mark_step``. Their rounding is this machine's, not
the vendor's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F

import torch
from sapper.port.dryrun.session import current
from torch import Tensor


def npu_rms_norm(self: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Root mean square norm over gamma's dimensions, and the reciprocal root mean square in fp32."""
    dims = tuple(range(-gamma.dim(), 0))
    wide = self.float()
    reciprocal = torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    return (wide * reciprocal * gamma.float()).to(self.dtype), reciprocal


def npu_add_rms_norm(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """The norm of a sum, the reciprocal root mean square, and the sum."""
    total = x1 + x2
    return (*npu_rms_norm(total, gamma, epsilon), total)


def npu_rotary_mul(input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half", rotate: Tensor | None = None) -> Tensor:
    """``input * r1 + rotated(input) * r2``."""
    if rotate is not None:
        turned = input @ rotate
    elif rotary_mode == "half":
        first, second = input.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
    else:
        turned = torch.stack((-input[..., 1::2], input[..., ::2]), dim=-1).flatten(-2)
    return input * r1 + turned * r2


def npu_swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """SiLU of the first half times the second half."""
    first, second = input.chunk(2, dim=dim)
    return F.silu(first) * second


def npu_gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """GELU."""
    return F.gelu(input, approximate=approximate)


def npu_fast_gelu(input: Tensor) -> Tensor:
    """``x * sigmoid(1.702 x)``, as on Atlas A2 and A3."""
    return input * torch.sigmoid(1.702 * input)


def npu_scaled_masked_softmax(x: Tensor, mask: Tensor, scale: float = 1.0, fixed_triu_mask: bool = False) -> Tensor:
    """Softmax of ``scale * x`` over the last dimension where the mask is False."""
    return torch.softmax((x * scale).masked_fill(mask, -10000.0), dim=-1)


def npu_dtype_cast(input: Tensor, dtype: torch.dtype) -> Tensor:
    """Another dtype."""
    return input.to(dtype)


def npu_format_cast(input: Tensor, acl_format: object, customize_dtype: object = None) -> Tensor:
    """The same values: formats are how the chip lays a tensor out, and the emulated chip has one."""
    return input.clone()


def npu_confusion_transpose(self: Tensor, perm: Sequence[int], shape: Sequence[int], transpose_first: bool) -> Tensor:
    """Transpose and reshape, in this order or the other."""
    return self.permute(*perm).reshape(*shape) if transpose_first else self.reshape(*shape).permute(*perm)


_STATISTICS = 8
"""Each row's maximum and sum of the softmax are returned this many times over."""
_TO_BNSD: dict[str, Callable[[Tensor, int], Tensor]] = {
    "BNSD": lambda x, heads: x,
    "BSND": lambda x, heads: x.transpose(1, 2),
    "BSH": lambda x, heads: x.unflatten(-1, (heads, -1)).transpose(1, 2),
    "SBH": lambda x, heads: x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3),
}
_FROM_BNSD: dict[str, Callable[[Tensor], Tensor]] = {
    "BNSD": lambda x: x,
    "BSND": lambda x: x.transpose(1, 2),
    "BSH": lambda x: x.transpose(1, 2).flatten(-2),
    "SBH": lambda x: x.permute(2, 0, 1, 3).flatten(-2),
}


def npu_fusion_attention(
    query: Tensor, key: Tensor, value: Tensor, head_num: int, input_layout: str, pse: Tensor | None = None,
    padding_mask: Tensor | None = None, atten_mask: Tensor | None = None, scale: float = 1.0, keep_prob: float = 1.0,
    pre_tockens: int = 2147483647, next_tockens: int = 2147483647, inner_precise: int = 0, prefix: Sequence[int] | None = None,
    actual_seq_qlen: Sequence[int] | None = None, actual_seq_kvlen: Sequence[int] | None = None, sparse_mode: int = 0, **rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:  # fmt: skip
    """``dropout(softmax(mask(scale * (pse + q @ k.T)))) @ v``, with the rows' maxima and sums.

    Masks are True where a pair is left out. Modes 0 and 1 take the mask as it is, 2 a lower triangle from the upper left, 3 from the
    lower right; without a mask all pairs count, whatever the mode.

    Raises:
        NotImplementedError: Another mode, layout or argument; what it does is not written here.
    """
    beyond = [name for name, one in rest.items() if name in ("sink", "dropout_mask") and one is not None]
    if sparse_mode not in (0, 1, 2, 3) or prefix is not None or beyond or input_layout not in (*_TO_BNSD, "TND"):
        told = f"input_layout={input_layout!r}, sparse_mode={sparse_mode}" + "".join(f", {name}" for name in beyond)
        raise NotImplementedError(f"the emulated chip does not play 'torch_npu.npu_fusion_attention' with {told}")
    attend = functools.partial(_attend, mask=atten_mask, pse=pse, scale=scale, keep=keep_prob, mode=sparse_mode)
    if input_layout != "TND":
        lay = _TO_BNSD[input_layout]
        kv_heads = head_num if input_layout in ("BNSD", "BSND") else key.shape[-1] * head_num // query.shape[-1]
        out, top, total = attend(lay(query, head_num), lay(key, kv_heads), lay(value, kv_heads))
        return _FROM_BNSD[input_layout](out), top, total, query.new_empty(0), 0, 0, 0
    ends, key_ends = list(actual_seq_qlen or ()), list(actual_seq_kvlen or ())
    parts = []
    for start, end, key_start, key_end in zip([0, *ends], ends, [0, *key_ends], key_ends, strict=False):
        q, k, v = (x.transpose(0, 1)[None] for x in (query[start:end], key[key_start:key_end], value[key_start:key_end]))
        parts.append([one[0].transpose(0, 1) for one in attend(q, k, v)])
    out, top, total = (torch.cat(column) for column in zip(*parts, strict=True))
    return out, top, total, query.new_empty(0), 0, 0, 0


def _attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, pse: Tensor | None, scale: float, keep: float, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of ``[B, N, S, D]``; fewer heads of keys are shared by groups of queries' heads."""
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, dim=1) if shared > 1 else x for x in (key, value))
    scores = query.float() @ key.float().transpose(-1, -2)
    scores = scale * (scores if pse is None else scores + pse.float())
    if mask is not None:
        rows, columns = scores.shape[-2:]
        if mode in (2, 3):  # the mask is a compressed triangle, and the pattern is the mode's
            offset = 0 if mode == 2 else columns - rows
            mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).triu(1 + offset)
        scores = scores.masked_fill(mask.bool()[..., :rows, :columns], torch.finfo(torch.float32).min)
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    shares = F.dropout(weights / total, 1.0 - keep, training=keep < 1.0)
    out = (shares @ value.float()).to(query.dtype)
    return out, top.expand(*top.shape[:-1], _STATISTICS), total.expand(*total.shape[:-1], _STATISTICS)


class Autocast(torch.amp.autocast_mode.autocast):
    """``torch.autocast`` of the chip."""

    def __init__(self, enabled: bool = True, dtype: torch.dtype | None = None, cache_enabled: bool | None = True) -> None:
        super().__init__(current().stack.device, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(torch.amp.grad_scaler.GradScaler):
    """``torch.amp.GradScaler`` of the chip."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(current().stack.device, *arguments, **named)


def _custom_fwd(fwd: Any = None, *, cast_inputs: torch.dtype | None = None) -> Any:
    return torch.amp.custom_fwd(fwd, device_type=current().stack.device, cast_inputs=cast_inputs)


def _custom_bwd(bwd: Any = None) -> Any:
    return torch.amp.custom_bwd(bwd, device_type=current().stack.device)


def _no_step(*_: Any, **__: Any) -> None:
    """Nothing is pending where every operator runs at once."""


_PLAYED: dict[str, Any] = {
    one.__name__: one
    for one in (
        npu_rms_norm, npu_add_rms_norm, npu_rotary_mul, npu_swiglu, npu_gelu, npu_fast_gelu, npu_scaled_masked_softmax, npu_dtype_cast,
        npu_format_cast, npu_confusion_transpose, npu_fusion_attention,
    )
} | {
    "fast_gelu": npu_fast_gelu, "autocast": Autocast, "GradScaler": GradScaler, "custom_fwd": _custom_fwd, "custom_bwd": _custom_bwd,
    "mark_step": _no_step, "is_lazy": lambda: False,
}  # fmt: skip


def played(name: str) -> Any:
    """The plug-in's function of that name, or None where it is not played."""
    return _PLAYED.get(name)
