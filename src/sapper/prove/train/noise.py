"""Randomness that every run shares: what a model draws is drawn on the CPU from seeds of our own, or dropout is off.

A device's random streams are its own and differ by right; so dropout masks and other noise are fed. Where a compiler takes the
whole step as one graph, in which noise would be a constant, dropout is off on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

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


class Noise(TorchFunctionMode):
    """Feeds a module's randomness from seeds, or turns its dropout off.

    Args:
        seed: Of the run; all runs of an experiment share it.
        off: Dropout does nothing.
    """

    def __init__(self, seed: int, *, off: bool = False) -> None:
        super().__init__()
        self._seed = seed
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
        return func(*args, **kwargs)

    def _dropout(self, dims: int | None, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, **named: Any) -> Any:
        if not named.get("train", training) or p == 0.0:
            return input
        if self._off:
            self.silenced += 1
            return input
        self.fed += 1
        shape = input.shape if dims is None else (*input.shape[:dims], *(1 for _ in input.shape[dims:]))
        kept = torch.rand(shape, generator=self._generator) >= p
        mask = (kept.to(torch.float64) / (1.0 - p) if p < 1.0 else kept.to(torch.float64)).to(input.dtype).to(input.device)
        return input.mul_(mask) if inplace else input * mask

    def _drawn(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The draw on the CPU, then where the module wants it."""
        wanted = kwargs.pop("device", None)
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        device = wanted if wanted is not None else tensors[0].device if tensors else None
        here = [one.cpu() if isinstance(one, torch.Tensor) else one for one in args]
        if func.__name__.endswith("_like"):  # these take no generator before PyTorch 2.10
            like = here[0]
            dtype = kwargs.pop("dtype", None) or like.dtype
            plain = {"rand_like": torch.rand, "randn_like": torch.randn, "randint_like": torch.randint}[func.__name__]
            kwargs.pop("memory_format", None)
            drawn = plain(*here[1:], like.shape, generator=self._generator, dtype=dtype, **kwargs)
        else:
            kwargs["generator"] = self._generator
            drawn = func(*here, **kwargs)
        return drawn if device is None else drawn.to(device)
