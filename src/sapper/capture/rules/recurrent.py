"""Recurrent layers that PyTorch runs as one op, and Fourier transforms."""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register


@register("aten.mkldnn_rnn_layer")
def mkldnn_rnn(x: Any, weight_in: Any, weight_hidden: Any, *_: Any, **__: Any) -> Cost:
    """One direction of one layer: ``x`` [T, B, K], weights [gates*N, K] and [gates*N, N], applied at every step."""
    return _layer(x, weight_in, weight_hidden, times=1.0)


@register("aten.mkldnn_rnn_layer_backward")
def mkldnn_rnn_backward(x: Any, weight_in: Any, weight_hidden: Any, *_: Any, **__: Any) -> Cost:
    """Input and weight gradients."""
    return _layer(x, weight_in, weight_hidden, times=2.0)


def _layer(x: Any, weight_in: Any, weight_hidden: Any, *, times: float) -> Cost:
    rows = x.shape[0] * x.shape[1]
    return Cost(kind="scan", flops=times * 2.0 * rows * (math.prod(weight_in.shape) + math.prod(weight_hidden.shape)))


@register("aten._cudnn_rnn", "aten._cudnn_rnn_backward", "aten.miopen_rnn", "aten.miopen_rnn_backward")
def vendor_rnn(x: Any, weights: Any, *_: Any, **__: Any) -> Cost:
    """All layers and directions: every weight matrix acts at every step and sequence; vectors are biases."""
    rows = x.shape[0] * x.shape[1]
    return Cost(kind="scan", flops=2.0 * rows * sum(math.prod(weight.shape) for weight in weights if len(weight.shape) == 2))


@register(
    "aten._thnn_fused_lstm_cell", "aten._thnn_fused_lstm_cell_backward_impl", "aten._thnn_fused_gru_cell",
    "aten._thnn_fused_gru_cell_backward",
)
def cell(*arguments: Any, **_: Any) -> Cost:
    """Gates of one step, on the vector unit; its products are ops of their own."""
    gates = max((math.prod(argument.shape) for argument in arguments if hasattr(argument, "shape")), default=0)
    return Cost(kind="elementwise", flops=4.0 * gates, fusible=True)


@register("aten._fft_c2c", "aten._fft_r2c", "aten._fft_c2r")
def fft(x: Any, dim: Any, normalization: Any, last: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """``5 N log2 N`` per complex transform of N points, half of it where one side is real (the convention of FFTW's
    ``mflops``); on the vector unit."""
    whole = max(x, out, key=lambda tensor: math.prod(tensor.shape))
    points = math.prod(whole.shape[d] for d in dim)
    real = tuple(x.shape) != tuple(out.shape) or str(x.dtype) != str(out.dtype)
    flops = (2.5 if real else 5.0) * math.prod(whole.shape) * math.log2(max(points, 2))
    return Cost(kind="elementwise", flops=flops, reduces=True)
