"""Ops that correct stacks compute in steps and round between them to the dtype of their result.

The rule asks of a sum that it be rounded once. For these ops PyTorch itself does not, and their results cancel at times, so that some
elements are off by hundreds of roundings of their own size:

- a convolution with a bias writes the products and adds the bias to what it has written
  (``aten/src/ATen/native/Convolution.cpp``: ``output.add_(reshape_bias(...))``);
- group norm normalises with mean and inverse deviation in the dtype in which it returns them
  (``aten/src/ATen/native/cuda/group_norm_kernel.cu``);
- the gradients of mish and SiLU, which change their sign, are one kernel on the CPU and on NVIDIA, and are taken apart by PyTorch, not
  by the vendor, for every device that brings none (``CompositeImplicitAutograd`` in ``native_functions.yaml``; ``math_mish_backward``
  and ``math_silu_backward`` in ``aten/src/ATen/native/Activation.cpp``): each step is an op that writes its result. In PyTorch 2.13 no
  other op that computes has both.

What such a stack's answer is, and how far the rounding before its last step may move each element, is computed here: that much is right
and no more, so that products which are added up in the low precision still show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn import functional

import torch
from sapper.backends.trees import tensors_in
from sapper.prove.signature import signature
from sapper.prove.traits import plain_name


@dataclass(frozen=True, kw_only=True)
class Stepwise:
    """The first output of an op in fp64, as it is where the steps before the last were rounded."""

    answer: torch.Tensor
    """Rounded after the last step too."""
    slack: torch.Tensor
    """By how much each element may be off for the rounding of the steps before the last, at most."""


class Stepping:
    """Watches a run in fp64 and computes in steps what one of its ops did in one."""

    def __init__(self, number: int, dtype: torch.dtype) -> None:
        self.number, self.dtype = number, dtype
        self.found: Stepwise | None = None
        self._seen = 0

    def note(self, func: Any, *, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any) -> None:
        """Take account of one op that ran; the one with the number that was asked for, counted from 0, is computed again."""
        if self._seen == self.number:
            given = signature(func).bound(args, kwargs)
            self.found = _RULES[plain_name(func.name())](given, tensors_in(outputs), self.dtype)
        self._seen += 1


def has_steps(name: str, given: Mapping[str, Any]) -> bool:
    """Whether correct stacks may round between steps of the op.

    Args:
        name: Of the op, in any form.
        given: Its arguments by name.
    """
    short = plain_name(name)
    return short in _RULES and (short != "convolution" or given.get("bias") is not None)


def _convolution(given: Mapping[str, Any], truth: Sequence[torch.Tensor], dtype: torch.dtype) -> Stepwise:
    products = torch.ops.aten.convolution.default(**{**given, "bias": None})
    answer = _rounded(products, dtype) + given["bias"].view(-1, *[1] * (products.dim() - 2))
    return Stepwise(answer=_rounded(answer, dtype), slack=products.abs() * _share(dtype))


def _group_norm(given: Mapping[str, Any], truth: Sequence[torch.Tensor], dtype: torch.dtype) -> Stepwise:
    """Values by rounded mean and inverse deviation, ``(x - mean) * rstd * weight + bias`` (arXiv:1803.08494, equations 1 and 2)."""
    x, mean, rstd = given["input"], truth[1].unsqueeze(-1), truth[2].unsqueeze(-1)
    groups, form = x.reshape(given["N"], given["group"], -1), (1, -1, *[1] * (x.dim() - 2))
    values = ((groups - _rounded(mean, dtype)) * _rounded(rstd, dtype)).reshape(x.shape)
    slack = ((mean.abs() + (groups - mean).abs()) * rstd * _share(dtype)).reshape(x.shape)
    if given.get("weight") is not None:
        weight = given["weight"].reshape(form)
        values, slack = values * weight, slack * weight.abs()
    if given.get("bias") is not None:
        values = values + given["bias"].reshape(form)
    return Stepwise(answer=_rounded(values, dtype), slack=slack)


def _mish_backward(given: Mapping[str, Any], truth: Sequence[torch.Tensor], dtype: torch.dtype) -> Stepwise:
    """``grad * (t + x * sigmoid(x) * (1 - t * t))`` with ``t = tanh(softplus(x))``."""
    x = _Stepped.given(given["self"], dtype)
    t = x.rising(functional.softplus).rising(torch.tanh)
    return _scaled(t + x * x.rising(torch.sigmoid) * (t * t).from_one(), given["grad_output"])


def _silu_backward(given: Mapping[str, Any], truth: Sequence[torch.Tensor], dtype: torch.dtype) -> Stepwise:
    """``grad * (s * (1 + x * (1 - s)))`` with ``s = sigmoid(x)``."""
    x = _Stepped.given(given["self"], dtype)
    s = x.rising(torch.sigmoid)
    return _scaled(s * ((x * s.from_one()) + _Stepped.given(torch.ones_like(x.exact), dtype)), given["grad_output"])


def _scaled(slope: _Stepped, by: torch.Tensor) -> Stepwise:
    """The last step of a gradient."""
    apart = torch.maximum(slope.high - slope.exact, slope.exact - slope.low)
    return Stepwise(answer=_rounded(slope.rounded * by, slope.dtype), slack=apart * by.abs())


@dataclass(frozen=True, kw_only=True)
class _Stepped:
    """A number that is rounded after every step, between the least and the most that correct steps write.

    Rounding never falls as its argument rises, so that the ends are rounded too: where a step gives 1 whoever rounds it, as ``tanh`` of
    more than a few does, nothing is left that a later factor could make large.
    """

    exact: torch.Tensor
    """Nothing rounded."""
    rounded: torch.Tensor
    """The values that are written where each step is exact before it is rounded."""
    low: torch.Tensor
    high: torch.Tensor
    dtype: torch.dtype

    @classmethod
    def given(cls, values: torch.Tensor, dtype: torch.dtype) -> _Stepped:
        """An input, which is what it is."""
        return cls(exact=values, rounded=values, low=values, high=values, dtype=dtype)

    def __add__(self, other: _Stepped) -> _Stepped:
        return self._step(self.exact + other.exact, self.rounded + other.rounded, [self.low + other.low, self.high + other.high])

    def __mul__(self, other: _Stepped) -> _Stepped:
        ends = [one * another for one in (self.low, self.high) for another in (other.low, other.high)]
        return self._step(self.exact * other.exact, self.rounded * other.rounded, ends)

    def from_one(self) -> _Stepped:
        """``1 - self``."""
        return self._step(1 - self.exact, 1 - self.rounded, [1 - self.high, 1 - self.low])

    def rising(self, function: Callable[[torch.Tensor], torch.Tensor]) -> _Stepped:
        """A function that never falls."""
        return self._step(function(self.exact), function(self.rounded), [function(self.low), function(self.high)])

    def _step(self, exact: torch.Tensor, written: torch.Tensor, ends: Sequence[torch.Tensor]) -> _Stepped:
        low, high = torch.stack(list(ends)).amin(0), torch.stack(list(ends)).amax(0)
        return _Stepped(
            exact=exact, rounded=_rounded(written, self.dtype), dtype=self.dtype,
            low=_rounded(low - low.abs() * _IN_STEP, self.dtype), high=_rounded(high + high.abs() * _IN_STEP, self.dtype),
        )  # fmt: skip


_IN_STEP = 8 * torch.finfo(torch.float32).eps
"""By which share of itself a step may be off before it is rounded: it is computed in fp32, by functions that are right to a few units."""


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype).to(values.dtype)


def _share(dtype: torch.dtype) -> float:
    """By which share of itself rounding may move a number; what was moved so may be rounded twice again."""
    roundoff = torch.finfo(dtype).eps / 2
    return float(roundoff * (1 + roundoff) ** 2)


_RULES: Mapping[str, Callable[[Mapping[str, Any], Sequence[torch.Tensor], torch.dtype], Stepwise]] = {
    "convolution": _convolution, "native_group_norm": _group_norm, "mish_backward": _mish_backward, "silu_backward": _silu_backward,
}  # fmt: skip
"""Of arguments by name and outputs, both in fp64, and the dtype of low precision that is rounded to."""
