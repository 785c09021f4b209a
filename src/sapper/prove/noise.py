"""Randomness that every run shares: what a model draws is drawn on the CPU from seeds of our own, or dropout is off.

A device's random streams are its own and differ by right, and the CPU's differ from dtype to dtype; so dropout masks and other noise
are drawn in fp32, rounded to the dtype that the module works in, and fed. Where a compiler takes the whole step as one graph, in which
noise would be a constant, dropout is off on both sides.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

import torch

_DROPOUTS: dict[Any, int | None] = {
    functional.dropout: None, torch.dropout: None, torch.dropout_: None, functional.dropout1d: 2, functional.dropout2d: 2,
    functional.dropout3d: 2, torch.feature_dropout: 2,
}  # fmt: skip
"""Function to how many leading dims its mask has; None: all."""
_OFF = (functional.alpha_dropout, functional.feature_alpha_dropout, functional.rrelu)
"""Rare ones, whose noise is not fed: they run as in evaluation."""
_SAMPLERS = (
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like, torch.bernoulli,
    torch.normal, torch.multinomial,
)  # fmt: skip
_FILLERS = frozenset({
    torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.bernoulli_, torch.Tensor.random_,
    torch.Tensor.log_normal_, torch.Tensor.cauchy_, torch.Tensor.geometric_,
})  # fmt: skip
"""Methods that fill a tensor with what they draw."""
_UNIFORM = (torch.rand, torch.rand_like)
_NARROW = (torch.float16, torch.bfloat16)
"""Dtypes in which a number just below the upper end of a distribution can round to it."""


class Noise(TorchFunctionMode):
    """Feeds a module's randomness from seeds, or turns its dropout off.

    Args:
        seed: Of the run; all runs of an experiment share it.
        dtype: That the module works in: draws that take their dtype from a tensor are rounded to it, so that a run of the same module in
            fp64 is fed the same values.
        off: Dropout does nothing.
    """

    def __init__(self, seed: int, *, dtype: torch.dtype | None = None, off: bool = False) -> None:
        super().__init__()
        self._seed = seed
        self._working = dtype
        self._off = off
        self._generator = torch.Generator()
        self.fed = 0
        """Draws that were fed."""
        self.silenced = 0
        """Calls of dropout that were turned off."""
        self.begin(0)

    def begin(self, step: int) -> None:
        """Start a step: its noise is a function of the seed and the step alone."""
        self._generator.manual_seed((self._seed << 20) + step)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(_DROPOUTS[func], *args, **kwargs)
        if func in _OFF:
            self.silenced += 1
            return func(*args, **{**kwargs, "training": False})
        if func is functional.scaled_dot_product_attention and kwargs.get("dropout_p"):
            self.silenced += 1
            return func(*args, **{**kwargs, "dropout_p": 0.0})
        if func in _SAMPLERS:
            self.fed += 1
            return self._drawn(func, args, kwargs)
        if func in _FILLERS:
            self.fed += 1
            return self._filled(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, dims: int | None, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, **named: Any) -> Any:
        if not named.get("train", training) or p == 0.0:
            return input
        if self._off:
            self.silenced += 1
            return input
        self.fed += 1
        shape = input.shape if dims is None else (*input.shape[:dims], *(1 for _ in input.shape[dims:]))
        with self._unseen():
            kept = torch.rand(shape, generator=self._generator) >= p
        mask = (kept.to(torch.float64) / (1.0 - p) if p < 1.0 else kept.to(torch.float64)).to(input.dtype).to(input.device)
        return input.mul_(mask) if inplace else input * mask

    def _drawn(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The draw on the CPU, then where the module wants it."""
        out, named = kwargs.pop("out", None), kwargs.pop("dtype", None)
        device, leaf = kwargs.pop("device", None), kwargs.pop("requires_grad", False)
        kwargs.pop("generator", None)
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        like = func.__name__.endswith("_like")
        if device is None:
            device = tensors[0].device if tensors else None
        dtype = tensors[0].dtype if like and named is None else named
        with self._unseen():
            here, more = [_in_fp32(one) for one in args], {name: _in_fp32(one) for name, one in kwargs.items()}
            if like:  # these take no generator before PyTorch 2.10
                plain = {"rand_like": torch.rand, "randn_like": torch.randn, "randint_like": torch.randint}[func.__name__]
                more.pop("memory_format", None)
                here = here[1:] if more.pop("input", None) is None else here
                more["size"] = tensors[0].shape
                made = plain(*here, generator=self._generator, **more)
            else:
                made = func(*here, generator=self._generator, **more)
            if made.is_floating_point():
                bounds = (0.0, 1.0) if func in _UNIFORM else None
                made = _rounded(made, self._working if like and named is None else None, bounds)
                made = _rounded(made, dtype, bounds)
        if out is not None:
            return out.resize_(made.shape).copy_(made)
        if dtype is None:  # as the function chooses it: by its tensors, or the default
            floating = [one.dtype for one in tensors if one.is_floating_point()]
            dtype = made.dtype if not made.is_floating_point() else floating[0] if floating else torch.get_default_dtype()
        placed = made.to(dtype=dtype, device=device)
        return placed.requires_grad_() if leaf else placed

    def _filled(self, func: Callable[..., Any], target: Any, *args: Any, generator: Any = None, **kwargs: Any) -> Any:
        """The draw on the CPU, then copied to where the module wants it."""
        bounds = None
        if func is torch.Tensor.uniform_:
            ends = [*args, *([kwargs.get("from", 0.0)] if not args else []), kwargs.get("to", 1.0)]
            bounds = float(ends[0]), float(ends[1])
        dtypes = [one for one in (self._working, target.dtype) if one in _NARROW] if target.is_floating_point() else []
        dtype = torch.float32 if target.is_floating_point() else target.dtype
        if func is torch.Tensor.random_ and (target.dtype in _NARROW or (dtypes and not (args or kwargs))):
            dtype = dtypes[0]  # whose precision is the range, where none is given
        with self._unseen():
            made = torch.empty(target.shape, dtype=dtype)
            func(made, *(_in_fp32(one) for one in args), generator=self._generator, **kwargs)
            for one in dtypes:
                made = _rounded(made, one, bounds)
        with torch.no_grad():
            return target.copy_(made)

    def _unseen(self) -> contextlib.AbstractContextManager[Any]:
        """Out of sight of modes that would change the draw's dtype; of a compiler's trace it must stay a part."""
        return contextlib.nullcontext() if self._off else _disable_current_modes()


def _in_fp32(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to("cpu", torch.float32) if value.is_floating_point() else value.cpu()


def _rounded(made: Any, dtype: Any, bounds: tuple[float, float] | None) -> Any:
    """Draws as a narrow ``dtype`` has them, kept in fp32; of a uniform distribution the upper end stays left out, as PyTorch's own draws
    in that dtype leave it out."""
    if dtype not in _NARROW:
        return made
    if bounds is not None:
        made = made.clamp(max=max(_largest_below(bounds[1], dtype), bounds[0]))
    return made.to(dtype).to(torch.float32)


def _largest_below(number: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` that is less than ``number``; in plain Python, so that no trace sees it."""
    info = torch.finfo(dtype)
    fraction, exponent = math.frexp(number)
    if fraction == 0.5:  # below a power of two numbers lie closer
        exponent -= 1
    spacing: float = max(info.eps * 2.0 ** (exponent - 1) if number else 0.0, info.smallest_normal * info.eps)
    return spacing * (math.ceil(number / spacing) - 1)
