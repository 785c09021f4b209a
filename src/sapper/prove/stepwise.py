"""Ops that correct stacks compute in steps and round between them to the dtype of their tensors.

The rule asks of a sum that it be rounded once. For these ops PyTorch's own GPU kernels do not, and their results cancel at times, so
that some elements are off by hundreds of roundings of their own size:

- a convolution with a bias writes the products and adds the bias to what it has written
  (``aten/src/ATen/native/Convolution.cpp``: ``output.add_(reshape_bias(...))``);
- group norm normalises with mean and inverse deviation in the dtype in which it returns them
  (``aten/src/ATen/native/cuda/group_norm_kernel.cu``).

What is computed here is such a stack's answer: what is as far off in every norm is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sapper.prove.signature import signature
from sapper.prove.traits import plain_name


def in_steps(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """What an op returns in fp64 where it rounds to ``dtype`` between its steps; None where it has none.

    Args:
        func: The ``OpOverload``.
        args: In fp64.
        kwargs: By name.
        dtype: Of low precision.
    """
    rule = _RULES.get(plain_name(func.name()))
    return None if rule is None else rule(signature(func).bound(args, kwargs), dtype)


def _convolution(given: Mapping[str, Any], dtype: torch.dtype) -> torch.Tensor | None:
    bias = given["bias"]
    if bias is None:
        return None
    products: torch.Tensor = torch.ops.aten.convolution.default(**{**given, "bias": None})
    return _rounded(_rounded(products, dtype) + bias.view(-1, *[1] * (products.dim() - 2)), dtype)


def _group_norm(given: Mapping[str, Any], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, count, channels, groups = given["input"], given["N"], given["C"], given["group"]
    _, mean, rstd = torch.ops.aten.native_group_norm.default(**given)
    mean, rstd = _rounded(mean, dtype), _rounded(rstd, dtype)
    values = (x.reshape(count, groups, -1) - mean[..., None]) * rstd[..., None]
    values = values.reshape(count, channels, -1)
    if given["weight"] is not None:
        values = values * given["weight"][:, None]
    if given["bias"] is not None:
        values = values + given["bias"][:, None]
    return _rounded(values.reshape(x.shape), dtype), mean, rstd


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype).to(values.dtype)


_RULES: dict[str, Callable[[Mapping[str, Any], torch.dtype], Any]] = {"convolution": _convolution, "native_group_norm": _group_norm}
