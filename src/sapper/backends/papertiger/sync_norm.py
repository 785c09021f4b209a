"""The parts of ``SyncBatchNorm``, of which PyTorch has kernels for accelerators alone.

Shapes: inputs and their gradients are (N, C, ...); statistics and weights are (C,); gathered statistics are (processes, C).
Formulas: the input's gradient of batch normalisation as in Ioffe and Szegedy, "Batch Normalization", 2015, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sapper.backends.papertiger.kernels import Arithmetic, Wide, summed


def _per_channel(values: Wide, like: Wide) -> Wide:
    """(C,) as (1, C, 1, ...) that broadcasts over ``like``."""
    return values.reshape(1, -1, *[1] * (like.dim() - 2))


def _over_channels(how: Arithmetic, x: Wide) -> Wide:
    """Sum over all dims but the channels'."""
    return summed(how, x, [0, *range(2, x.dim())])


def _stats(how: Arithmetic, x: Wide, eps: float) -> tuple[Wide, Wide]:
    """Mean and inverse standard deviation of this process's input."""
    count = x.numel() // x.shape[1]
    mean = _over_channels(how, x) / count
    centred = x - _per_channel(mean, x)
    return mean, (_over_channels(how, centred * centred) / count + eps).rsqrt()


def _gather(
    _: Arithmetic, x: Wide, means: Wide, inverse: Wide, running_mean: Wide | None, running_var: Wide | None, momentum: float, eps: float,
    counts: Wide,
) -> tuple[Wide, Wide]:  # fmt: skip
    """Statistics over all processes; the running ones are written where there are any."""
    weights = (counts / counts.sum()).reshape(-1, 1)
    mean = (means * weights).sum(0)
    variance = ((inverse.pow(-2) - eps + (means - mean).square()) * weights).sum(0)
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
    if running_var is not None:
        running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def _apply(_: Arithmetic, x: Wide, weight: Wide | None, bias: Wide | None, mean: Wide, inverse: Wide, __: float) -> Wide:
    found = (x - _per_channel(mean, x)) * _per_channel(inverse, x)
    found = found if weight is None else found * _per_channel(weight, x)
    return found if bias is None else found + _per_channel(bias, x)


def _reduce_backward(
    how: Arithmetic, grad: Wide, x: Wide, mean: Wide, inverse: Wide, _weight: Wide | None, of_input: bool, of_weight: bool, of_bias: bool
) -> tuple[Wide | None, ...]:  # fmt: skip
    """Sums of the gradient, and of the gradient times the centred input; gradients of weight and bias."""
    total = _over_channels(how, grad)
    product = _over_channels(how, grad * (x - _per_channel(mean, x)))
    sums = (total, product) if of_input else (None, None)
    return *sums, product * inverse if of_weight else None, total if of_bias else None


def _apply_backward(
    _: Arithmetic, grad: Wide, x: Wide, mean: Wide, inverse: Wide, weight: Wide | None, total: Wide, product: Wide, count: torch.Tensor
) -> Wide:
    elements = count.sum()
    scale = inverse if weight is None else inverse * weight
    centred = (x - _per_channel(mean, x)) * _per_channel(product * inverse.square() / elements, x)
    return (grad - _per_channel(total / elements, x) - centred) * _per_channel(scale, x)


KERNELS: dict[str, Callable[..., Any]] = {
    "batch_norm_stats": _stats, "batch_norm_gather_stats_with_counts": _gather, "batch_norm_elemt": _apply,
    "batch_norm_backward_reduce": _reduce_backward, "batch_norm_backward_elemt": _apply_backward,
}  # fmt: skip
"""By the op's name without its overload."""

STATISTICS = frozenset({"batch_norm_stats", "batch_norm_gather_stats_with_counts", "batch_norm_backward_reduce"})
"""Ops whose results are never narrower than fp32, whatever their input is."""
