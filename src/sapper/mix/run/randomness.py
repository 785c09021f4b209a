"""Dropout that is the same however a job is cut: a function of the seed, the step, the sample, the layer and the place in it.

Each number is a hash of these (two rounds of the finaliser "lowbias32", nullprogram.com/blog/2018/07/31, on 32-bit integers, which
every chip has), so unlike chips draw the same masks, and neither the size of a micro-batch nor the stage that computes a layer
matters. A recomputed layer draws again what it drew before.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch.nn import functional
from torch.overrides import TorchFunctionMode

import torch
from sapper.mix.run.models import seed_of
from torch import nn

_DROPOUTS: dict[Any, int | None] = {
    functional.dropout: None, torch.dropout: None, torch.dropout_: None, functional.dropout1d: 2, functional.dropout2d: 2,
    functional.dropout3d: 2, torch.feature_dropout: 2,
}  # fmt: skip
"""Function to how many leading dims its mask has; None: all."""


_DROPOUT_P = 4
"""Place of ``dropout_p`` among the arguments of ``scaled_dot_product_attention``."""


class Mark(NamedTuple):
    """Where in a job's stream of random numbers a pass is."""

    step: int
    samples: tuple[int, ...]
    layer: int
    call: int
    """Draws of the layer so far."""


class Randomness(TorchFunctionMode):
    """Draws the dropout of a module; to be entered around its forward pass.

    Args:
        seed: Of the job.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self.mark = Mark(0, (0,), 0, 0)

    def begin(self, *, step: int, samples: Sequence[int]) -> None:
        """What follows is the pass of a micro-batch, from layer 0 on."""
        self.mark = Mark(step, tuple(samples), 0, 0)

    def enter(self, layer: int) -> None:
        """What follows belongs to ``layer``."""
        self.mark = self.mark._replace(layer=layer, call=0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(_DROPOUTS[func], *args, **kwargs)
        if func is functional.scaled_dot_product_attention and kwargs.get("dropout_p", args[_DROPOUT_P] if len(args) > _DROPOUT_P else 0.0):
            return self._attention(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            with self:  # which PyTorch leaves for the whole of it, and the dropout is inside
                return _open(func)(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, dims: int | None, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, **named: Any) -> Any:
        if not named.get("train", training) or p == 0.0:
            return input
        shape = tuple(input.shape) if dims is None else (*input.shape[:dims], *(1 for _ in input.shape[dims:]))
        mask = self._mask(shape, p, like=input)
        return input.mul_(mask) if inplace else input * mask

    def _attention(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        """Attention written out, since the fused one draws its own mask."""
        if enable_gqa:
            times = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = scores.softmax(-1)
        return (weights * self._mask(tuple(weights.shape), dropout_p, like=weights)) @ value

    def _mask(self, shape: tuple[int, ...], p: float, *, like: torch.Tensor) -> torch.Tensor:
        """0 with probability ``p``, else 1 / (1 - p)."""
        mark = self.mark
        if len(shape) > 2 and shape[0] != len(mark.samples) == shape[1]:  # sequences first, as nn.Transformer has them
            return self._mask((shape[1], shape[0], *shape[2:]), p, like=like).transpose(0, 1)
        self.mark = mark._replace(call=mark.call + 1)
        name = f"dropout {mark.step} {mark.layer} {mark.call}"
        samples = mark.samples if shape and shape[0] % len(mark.samples) == 0 else mark.samples[:1]
        keys = [seed_of(self._seed, f"{name} {sample}") for sample in samples]
        count = 1
        for size in shape:
            count *= size
        place = torch.arange(count // len(keys), dtype=torch.int32, device=like.device)
        low, high = (torch.tensor([_signed(key >> by) for key in keys], dtype=torch.int32, device=like.device) for by in (0, 31))
        drawn = _hashed(_hashed(place ^ low[:, None]) ^ high[:, None]) & 0x7FFFFFFF
        kept = drawn >= int(p * 2.0**31)
        return (kept.to(like.dtype) / (1.0 - p) if p < 1.0 else kept.to(like.dtype)).reshape(shape)


@functools.cache
def _open(function: Any) -> Callable[..., Any]:
    """A Python function of ``torch.nn.functional`` whose body runs at once, and does not hand itself to the modes in force first."""
    own = {**function.__globals__, "has_torch_function": lambda _: False}
    made = types.FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _signed(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _hashed(value: torch.Tensor) -> torch.Tensor:
    """lowbias32; PyTorch's shift keeps the sign of an int32, so what it shifts in is masked away."""
    value = value ^ ((value >> 16) & 0xFFFF)
    value = value * 0x7FEB352D
    value = value ^ ((value >> 15) & 0x1FFFF)
    value = value * _signed(0x846CA68B)
    return value ^ ((value >> 16) & 0xFFFF)


def drops(module: nn.Module) -> bool:
    """Whether a module keeps a dropout rate above 0 anywhere."""
    for inner in module.modules():
        if isinstance(inner, nn.modules.dropout._DropoutNd) and inner.p > 0.0:
            return True
        if any("drop" in name and isinstance(value, float) and value > 0.0 for name, value in vars(inner).items()):
            return True
    return False
