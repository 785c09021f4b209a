"""Kernels that are right in exact arithmetic and lose their digits in fp32: E[x^2] - E[x]^2, and exp without the maximum taken off.

Each is run after the honest kernel and overwrites its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sapper.backends.papertiger.arithmetic import Call


def _variance(x: torch.Tensor, dims: Any, *, keepdim: bool = True) -> torch.Tensor:
    """The biased variance by the formula that cancels, in fp32."""
    single = x.float()
    return (single.square().mean(dims, keepdim=keepdim) - single.mean(dims, keepdim=keepdim).square()).clamp_min(0)


def _write(call: Call, *values: torch.Tensor | None) -> None:
    for output, value in zip(call.outputs, values, strict=False):
        if value is not None:
            output.copy_(value.reshape(output.shape))


def _argument(call: Call, name: str, default: Any = None) -> Any:
    for at, argument in enumerate(call.func._schema.arguments):
        if argument.name == name:
            return call.args[at] if at < len(call.args) else call.kwargs.get(name, default)
    return default


def _layer_norm(call: Call) -> None:
    x, shape, weight, bias, eps = call.args[:5]
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    rstd = (_variance(x, dims) + eps).rsqrt()
    found = (x.float() - x.float().mean(dims, keepdim=True)) * rstd
    found = found if weight is None else found * weight.float()
    _write(call, found if bias is None else found + bias.float(), None, rstd)


def _group_norm(call: Call) -> None:
    x, weight, bias, _, channels, _, groups, eps = call.args[:8]
    flat = x.reshape(x.shape[0], groups, -1)
    rstd = (_variance(flat, -1) + eps).rsqrt()
    found = ((flat.float() - flat.float().mean(-1, keepdim=True)) * rstd).reshape(x.shape)
    per_channel = (1, channels, *[1] * (x.dim() - 2))
    found = found if weight is None else found * weight.float().reshape(per_channel)
    _write(call, found if bias is None else found + bias.float().reshape(per_channel), None, rstd)


def _batch_norm(call: Call) -> None:
    x, weight, bias = call.args[:3]
    if not _argument(call, "training", False):
        return
    dims = (0, *range(2, x.dim()))
    rstd = (_variance(x, dims) + _argument(call, "eps")).rsqrt()
    found = (x.float() - x.float().mean(dims, keepdim=True)) * rstd
    per_channel = (1, x.shape[1], *[1] * (x.dim() - 2))
    found = found if weight is None else found * weight.float().reshape(per_channel)
    _write_last(call, found if bias is None else found + bias.float().reshape(per_channel), rstd)


def _write_last(call: Call, found: torch.Tensor, rstd: torch.Tensor) -> None:
    """Outputs of the batch norm: result, mean, rstd; running statistics, where written, come before them."""
    fitting = [one for one in call.outputs if one.shape == found.shape and one.is_floating_point()]
    if fitting:
        fitting[0].copy_(found)
    if call.outputs and call.outputs[-1].numel() == rstd.numel():
        call.outputs[-1].copy_(rstd.reshape(call.outputs[-1].shape))


def _spread(call: Call) -> None:
    """var, std, var_mean, std_mean."""
    x = call.args[0]
    dims = _argument(call, "dim")
    dims = dims or tuple(range(x.dim()))
    count = 1
    for at in [dims] if isinstance(dims, int) else dims:
        count *= x.shape[at]
    correction = _argument(call, "correction")
    unbiased = _argument(call, "unbiased")
    off = float(correction) if correction is not None else float(unbiased is not False)
    found = _variance(x, dims, keepdim=False) * (count / max(count - off, 1e-30))
    _write(call, found.sqrt() if call.base.startswith("std") else found)


def _softmax(call: Call) -> None:
    raised = call.args[0].float().exp()
    _write(call, raised / raised.sum(call.args[1], keepdim=True))


def _log_softmax(call: Call) -> None:
    single = call.args[0].float()
    _write(call, single - single.exp().sum(call.args[1], keepdim=True).log())


def _logsumexp(call: Call) -> None:
    _write(call, call.args[0].float().exp().sum(call.args[1], keepdim=bool(_argument(call, "keepdim", False))).log())


CANCELLING: dict[str, Callable[[Call], None]] = {
    "native_layer_norm": _layer_norm, "native_group_norm": _group_norm, "native_batch_norm": _batch_norm, "var": _spread, "std": _spread,
    "var_mean": _spread, "std_mean": _spread, "_softmax": _softmax, "_log_softmax": _log_softmax, "logsumexp": _logsumexp,
}  # fmt: skip
