"""Convolutions as their implicit matrix product: M output places, N output channels, K taps times input channels."""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register


def _convolution(x: Any, weight: Any, places: int, transposed: bool, groups: int) -> Cost:
    """``weight`` is [C_out, C_in/groups, *kernel], transposed [C_in, C_out/groups, *kernel]: every weight acts at every
    output place (input place when transposed)."""
    taps = math.prod(weight.shape[2:])
    if transposed:
        n, k = weight.shape[1] * taps, weight.shape[0] // groups
    else:
        n, k = weight.shape[0] // groups, weight.shape[1] * taps
    return Cost(kind="conv", flops=2.0 * places * math.prod(weight.shape), m=places, n=n, k=k, groups=groups)


@register("aten.convolution", "aten._convolution", "aten.convolution_overrideable", "aten.cudnn_convolution_transpose")
def convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int,
    *_: Any, out: Any, **__: Any,
) -> Cost:
    """Forward pass, plain, grouped, depthwise or transposed."""
    places = x.shape[0] * math.prod((x if transposed else out).shape[2:])
    return _convolution(x, weight, places, transposed, groups)


@register("aten.mkldnn_convolution", "aten.cudnn_convolution", "aten.miopen_convolution")
def vendor_convolution(x: Any, weight: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Forward pass of a library's own op, which is never transposed."""
    groups = x.shape[1] // weight.shape[1]
    return _convolution(x, weight, x.shape[0] * math.prod(out.shape[2:]), False, groups)


@register("aten.convolution_backward", "aten.convolution_backward_overrideable")
def convolution_backward(
    gradient: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, mask: Any, **_: Any,
) -> Cost:
    """One forward pass' FLOPs for the input gradient and one for the weight gradient, as ``mask`` asks."""
    places = x.shape[0] * math.prod((x if transposed else gradient).shape[2:])
    one = _convolution(x, weight, places, transposed, groups)
    return Cost(kind="conv", flops=one.flops * (bool(mask[0]) + bool(mask[1])), m=one.m, n=one.n, k=one.k, groups=groups)
