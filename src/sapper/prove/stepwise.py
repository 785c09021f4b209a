"""Ops that correct stacks compute in steps and round between them to the dtype of their result.

The rule asks of a sum that it be rounded once. For these ops PyTorch's own GPU kernels do not, and their results cancel at times, so
that some elements are off by hundreds of roundings of their own size:

- a convolution with a bias writes the products and adds the bias to what it has written
  (``aten/src/ATen/native/Convolution.cpp``: ``output.add_(reshape_bias(...))``);
- group norm normalises with mean and inverse deviation in the dtype in which it returns them
  (``aten/src/ATen/native/cuda/group_norm_kernel.cu``).

What such a stack's answer is, and how far the rounding of its first step may move each element, is computed here: that much is right
and no more, so that products which are added up in the low precision still show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sapper.backends.trees import tensors_in
from sapper.prove.signature import signature
from sapper.prove.traits import plain_name


@dataclass(frozen=True, kw_only=True)
class Stepwise:
    """The first output of an op in fp64, as it is where a first step was rounded."""

    answer: torch.Tensor
    """Rounded after the last step too."""
    slack: torch.Tensor
    """By how much each element may be off for the rounding of the first step, at most."""


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


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype).to(values.dtype)


def _share(dtype: torch.dtype) -> float:
    """By which share of itself rounding may move a number; what was moved so may be rounded twice again."""
    roundoff = torch.finfo(dtype).eps / 2
    return float(roundoff * (1 + roundoff) ** 2)


_RULES: Mapping[str, Callable[[Mapping[str, Any], Sequence[torch.Tensor], torch.dtype], Stepwise]] = {
    "convolution": _convolution, "native_group_norm": _group_norm,
}  # fmt: skip
"""Of arguments by name and outputs, both in fp64, and the dtype of low precision that is rounded to."""
