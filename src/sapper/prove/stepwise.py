"""Correct answers of ops that a stack may make in two steps, the first of which it writes in the op's own low precision.

A product with something added to it: cuDNN's convolution writes its result before PyTorch adds the bias. A group norm: mean and inverse
deviation are outputs of the op in its dtype, from which the values are then made, as PyTorch's CUDA kernel does. Where the two steps
cancel, the first rounding is all that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from sapper.prove import traits

_ADDED: Mapping[str, str] = MappingProxyType(
    {"convolution": "bias", "addmm": "self", "addmv": "self", "baddbmm": "self", "addbmm": "self", "linear": "bias"}
)
"""Ops that add to a product, and the argument that they add."""


@dataclass(frozen=True, kw_only=True)
class Stepwise:
    """One output of an op in fp64, as it is where the first of two steps is rounded."""

    answer: torch.Tensor
    slack: torch.Tensor
    """By how much each element may be off for that reason, at most."""


def in_two_steps(func: Any, given: Mapping[str, Any], truth: list[torch.Tensor], dtype: torch.dtype) -> Stepwise | None:
    """The first output of an op whose first step is rounded to ``dtype``; None where no step comes first.

    Args:
        func: The op.
        given: Its arguments by name, in fp64.
        truth: Its outputs in fp64.
        dtype: Of the outputs on the stack.
    """
    name, roundoff = traits.plain_name(func.name()), torch.finfo(dtype).eps / 2
    added = given.get(_ADDED.get(name, ""))
    if isinstance(added, torch.Tensor) and len(truth) == 1:
        none = {_ADDED[name]: None if _ADDED[name] == "bias" else torch.zeros_like(added)}
        with torch.no_grad():
            product = func(**{**given, **none})
        return Stepwise(answer=_rounded(product, dtype) + (truth[0] - product), slack=product.abs() * roundoff)
    make = _NORMS.get(name)
    return None if make is None else make(given, truth, dtype, roundoff)


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype).to(tensor.dtype)


def _group_norm(given: Mapping[str, Any], truth: list[torch.Tensor], dtype: torch.dtype, roundoff: float) -> Stepwise:
    """Values by rounded mean and inverse deviation, ``(x - mean) * rstd * weight + bias`` (arXiv:1803.08494, equations 1 and 2)."""
    x, mean, rstd = given["input"], truth[1].unsqueeze(-1), truth[2].unsqueeze(-1)
    groups, form = x.reshape(given["N"], given["group"], -1), (1, -1, *[1] * (x.dim() - 2))
    values = ((groups - _rounded(mean, dtype)) * _rounded(rstd, dtype)).reshape(x.shape)
    slack = ((mean.abs() + (groups - mean).abs()) * rstd * roundoff).reshape(x.shape)
    if given.get("weight") is not None:
        values, slack = values * given["weight"].reshape(form), slack * given["weight"].abs().reshape(form)
    if given.get("bias") is not None:
        values = values + given["bias"].reshape(form)
    return Stepwise(answer=values, slack=slack)


_NORMS: Mapping[str, Callable[..., Stepwise]] = MappingProxyType({"native_group_norm": _group_norm})
