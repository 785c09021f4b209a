"""The chip's own kernels: matrix products, convolutions and sums with a register of given width and order.

They are given fp64 tensors that hold numbers of the inputs' dtype, and return fp64 that the caller rounds to the output's.
Products are taken exactly and added exactly within a chunk, as inside a matrix unit; the sums of the chunks are added in the
accumulator's format. Everything else has one rounding at the end and needs no kernel here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from sapper.backends.papertiger.personality import Format
from sapper.backends.papertiger.precision import rounded
from sapper.backends.recurrent import FORMULAS

Wide: TypeAlias = torch.Tensor
"""A tensor of fp64 or complex128."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a kernel computes; a fault is an arithmetic of its own."""

    matmul_input: Format = "fp32"
    """To which the operands of matrix products are rounded first."""
    accumulator: Format = "fp32"
    chunk: int = 64
    """Products that are added exactly before the accumulator rounds."""
    result: Format = "fp32"
    """Coarsest format that results of fp32 are rounded to."""
    ulp: float = 1.0
    """Error of transcendental functions, in units of the last place of fp32."""
    flush_denormals: bool = False
    nan: str = "propagate"
    overflow: str = "infinity"
    truncate: bool = False
    """Rounding towards zero where the norm is to nearest."""
    sequential: bool = False
    """Whether sums go chunk by chunk; else as a tree, whose error is smaller."""


def product(a: Wide, b: Wide, *, how: Arithmetic) -> Wide:
    """``a @ b``."""
    a, b = (rounded(one, how.matmul_input) for one in (a, b))
    depth = a.shape[-1]
    if how.accumulator == "fp64" or depth == 0:
        return a @ b
    if b.dim() == 1:
        return product(a, b.unsqueeze(-1), how=how).squeeze(-1)
    total: Wide | None = None
    for start in range(0, depth, how.chunk):
        part = a[..., start : start + how.chunk] @ b[..., start : start + how.chunk, :]
        total = rounded(part if total is None else total + part, how.accumulator)
    assert total is not None
    return total


def added(wide: Wide, how: Arithmetic) -> Wide:
    """Sum over the last dim."""
    count = wide.shape[-1]
    if how.accumulator == "fp64" or count == 0 or not (wide.is_floating_point() or wide.is_complex()):
        return wide.sum(-1)
    chunk = max(how.chunk, -(-count // 1024)) if how.sequential else how.chunk
    pieces = torch.nn.functional.pad(wide, (0, -count % chunk)).unflatten(-1, (-1, chunk)).sum(-1)
    pieces = rounded(pieces, how.accumulator)
    if how.sequential:
        total = pieces[..., 0]
        for at in range(1, pieces.shape[-1]):
            total = rounded(total + pieces[..., at], how.accumulator)
        return total
    while pieces.shape[-1] > 1:
        if pieces.shape[-1] % 2:
            pieces = torch.nn.functional.pad(pieces, (0, 1))
        pieces = rounded(pieces[..., ::2] + pieces[..., 1::2], how.accumulator)
    return pieces[..., 0]


def summed(how: Arithmetic, wide: Wide, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Wide:
    """Sum over ``dim``, all where it is None, as ``torch.sum`` takes it."""
    if dtype is not None:
        wide = wide.to(dtype)
    dims = [dim] if isinstance(dim, int) else list(dim or range(wide.dim()))
    dims = sorted({at % wide.dim() for at in dims}) if wide.dim() else []
    if not dims:
        return wide.clone()
    rest = [at for at in range(wide.dim()) if at not in dims]
    shape = [1 if at in dims else size for at, size in enumerate(wide.shape)]
    found = added(wide.permute(*rest, *dims).flatten(len(rest)), how)
    return found.reshape(shape) if keepdim else found


def _mean(how: Arithmetic, wide: Wide, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Wide:
    found = summed(how, wide, dim, keepdim, dtype=dtype)
    return found * (found.numel() / wide.numel()) if wide.numel() else found / 0.0


def _mm(how: Arithmetic, a: Wide, b: Wide, *_: Any) -> Wide:
    return product(a, b, how=how)


def _dot(how: Arithmetic, a: Wide, b: Wide) -> Wide:
    return added(a * b, how)


def _vdot(how: Arithmetic, a: Wide, b: Wide) -> Wide:
    return added(a.conj() * b, how)


def _addmm(how: Arithmetic, base: Wide, a: Wide, b: Wide, *, beta: Any = 1, alpha: Any = 1) -> Wide:
    found = alpha * product(a, b, how=how)
    return found + beta * base if beta != 0 else found.expand(torch.broadcast_shapes(base.shape, found.shape))


def _addbmm(how: Arithmetic, base: Wide, a: Wide, b: Wide, *, beta: Any = 1, alpha: Any = 1) -> Wide:
    flat = product(a.permute(1, 0, 2).flatten(1), b.flatten(0, 1), how=how)
    return alpha * flat + (beta * base if beta != 0 else 0)


def _convolve(
    how: Arithmetic, x: Wide, weight: Wide, bias: Wide | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, output_padding: Sequence[int], groups: int,
) -> Wide:  # fmt: skip
    """A convolution, the input's channels taken in chunks."""
    x, weight = (rounded(one, how.matmul_input) for one in (x, weight))
    window = max(weight[0, 0].numel() if weight.numel() else 1, 1)
    channels = x.shape[1]
    step = max(how.chunk // window, 1) if groups == 1 and how.accumulator != "fp64" else max(channels, 1)
    total: Wide | None = None
    for start in range(0, max(channels, 1), step):
        some = weight[start : start + step] if transposed else weight[:, start : start + step]
        part = torch.ops.aten.convolution(
            x[:, start : start + step] if groups == 1 else x, weight if groups > 1 else some, None, stride, padding, dilation, transposed,
            output_padding, groups,
        )  # fmt: skip
        total = rounded(part if total is None else total + part, how.accumulator)
    assert total is not None
    return total if bias is None else total + bias.reshape(-1, *[1] * (total.dim() - 2))


def _convolve_backward(
    how: Arithmetic, grad: Wide, x: Wide, weight: Wide, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any,
    groups: int, wanted: Sequence[bool],
) -> tuple[Wide | None, ...]:  # fmt: skip
    grad, x, weight = (rounded(one, how.matmul_input) for one in (grad, x, weight))
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    of_x, _, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *rest, [wanted[0], False, False])
    of_weight: Wide | None = None
    if wanted[1]:
        # The gradient of the weight adds over the batch: one sample after the other.
        for at in range(max(x.shape[0], 1)):
            one = slice(at, at + 1)
            _, part, _ = torch.ops.aten.convolution_backward(grad[one], x[one], weight, None, *rest, [False, True, False])
            of_weight = rounded(part if of_weight is None else of_weight + part, how.accumulator)
    of_bias = summed(how, grad, [0, *range(2, grad.dim())]) if wanted[2] else None
    return of_x if wanted[0] else None, of_weight, of_bias


def _dropout(_: Arithmetic, x: Wide, p: float, train: bool | None, *, generator: torch.Generator) -> tuple[Wide, torch.Tensor]:
    if train is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    keep = torch.empty(x.shape).bernoulli_(1 - p, generator=generator).bool()
    return x * keep * (0.0 if p == 1 else 1 / (1 - p)), keep


def _as_written(op: str) -> Callable[..., Any]:
    """The formula of an op, whatever the arithmetic."""
    return lambda _, *given: FORMULAS[op](*given)


def _lstm_cell_backward(
    how: Arithmetic, of_hidden: Wide | None, of_cell: Wide | None, before: Wide, after: Wide, gates: Wide, has_bias: bool
) -> tuple[Wide | None, ...]:
    of_gates, of_before, _ = FORMULAS["aten::_thnn_fused_lstm_cell_backward_impl"](of_hidden, of_cell, before, after, gates, False)
    return of_gates, of_before, summed(how, of_gates, 0) if has_bias else None


def _gru_cell_backward(how: Arithmetic, grad: Wide, kept: Wide, has_bias: bool) -> tuple[Wide | None, ...]:
    by_input, by_hidden, of_hidden, *_ = FORMULAS["aten::_thnn_fused_gru_cell_backward"](grad, kept, False)
    biases = (summed(how, by_input, 0), summed(how, by_hidden, 0)) if has_bias else (None, None)
    return by_input, by_hidden, of_hidden, *biases


KERNELS: dict[str, Callable[..., Any]] = {
    "mm": _mm, "bmm": _mm, "mv": _mm, "dot": _dot, "vdot": _vdot, "addmm": _addmm, "addmv": _addmm, "baddbmm": _addmm,
    "addbmm": _addbmm, "sum": summed, "mean": _mean, "convolution_overrideable": _convolve,
    "convolution_backward_overrideable": _convolve_backward, "native_dropout": _dropout,
    "_thnn_fused_lstm_cell": _as_written("aten::_thnn_fused_lstm_cell"), "_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
    "_thnn_fused_gru_cell": _as_written("aten::_thnn_fused_gru_cell"), "_thnn_fused_gru_cell_backward": _gru_cell_backward,
}  # fmt: skip
"""By the op's name without its overload."""


def _greatest(_: Arithmetic, wide: Wide, dim: Any = (), keepdim: bool = False) -> Wide:
    return _number_of(torch.amax, wide, dim, keepdim, worst=-torch.inf)


def _least(_: Arithmetic, wide: Wide, dim: Any = (), keepdim: bool = False) -> Wide:
    return _number_of(torch.amin, wide, dim, keepdim, worst=torch.inf)


def _number_of(fn: Callable[..., Wide], wide: Wide, dim: Any, keepdim: bool, *, worst: float) -> Wide:
    found = fn(torch.where(wide.isnan(), worst, wide), dim, keepdim)
    none = wide.isnan().double().mean(tuple(dim) if dim else tuple(range(wide.dim())), keepdim=keepdim) == 1
    return found.masked_fill(none, torch.nan)


def _clamp(_: Arithmetic, wide: Wide, least: Any = None, most: Any = None) -> Wide:
    for bound, nearer in ((least, torch.fmax), (most, torch.fmin)):
        if bound is not None:
            wide = nearer(wide, torch.as_tensor(bound, dtype=wide.dtype))
    return wide


NUMBERS: dict[str, Callable[..., Any]] = {
    "maximum": lambda _, a, b: torch.fmax(a, b), "minimum": lambda _, a, b: torch.fmin(a, b), "amax": _greatest, "amin": _least,
    "relu": lambda how, wide: _clamp(how, wide, 0.0), "clamp": _clamp, "clamp_min": _clamp,
    "clamp_max": lambda how, wide, most: _clamp(how, wide, None, most),
}  # fmt: skip
"""Of a chip of which max, min and their like return the operand that is a number (IEEE 754-2019, maximumNumber)."""
