"""Matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sapper.backends.base import Unsupported
from sapper.backends.lax.table import lowers


@lowers("aten.mm", "aten.bmm", "aten.matmul", "aten.mv", "aten.dot")
def _product(x: Any, y: Any) -> Any:
    import jax.numpy as jnp

    return jnp.matmul(x, y)


@lowers("aten.addmm", "aten.baddbmm")
def _addmm(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    import jax.numpy as jnp

    product = jnp.matmul(x, y)
    return (bias if beta == 1 else beta * bias) + (product if alpha == 1 else alpha * product)


@lowers("aten.convolution")
def _convolution(
    x: Any, weight: Any, bias: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int,
) -> Any:  # fmt: skip
    import jax
    import jax.numpy as jnp

    spatial = "DHW"[-(x.ndim - 2) :] if x.ndim > 2 else ""
    layout = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    if transposed:
        # The gradient of a convolution: the input is spread by the stride, the kernel flipped, its channels exchanged by group.
        channels, each = weight.shape[:2]
        weight = weight.reshape(groups, channels // groups, each, *weight.shape[2:])
        weight = jnp.swapaxes(weight, 1, 2).reshape(groups * each, channels // groups, *weight.shape[3:])
        weight = jnp.flip(weight, tuple(range(2, weight.ndim)))
        reach = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        pads = [(far - pad, far - pad + extra) for far, pad, extra in zip(reach, padding, output_padding, strict=True)]
        found = jax.lax.conv_general_dilated(
            x, weight, (1,) * len(stride), pads, lhs_dilation=stride, rhs_dilation=dilation, dimension_numbers=layout,
            feature_group_count=groups,
        )  # fmt: skip
    else:
        found = jax.lax.conv_general_dilated(
            x, weight, stride, [(pad, pad) for pad in padding], rhs_dilation=dilation, dimension_numbers=layout,
            feature_group_count=groups,
        )  # fmt: skip
    return found if bias is None else found + bias.reshape(-1, *(1,) * len(spatial))


@lowers("aten.convolution_backward")
def _convolution_backward(grad: Any, x: Any, weight: Any, bias_sizes: Any, *attributes: Any) -> Any:
    import jax

    *convolution, wanted = attributes
    _, back = jax.vjp(lambda one, other: _convolution(one, other, None, *convolution), x, weight)
    grad_x, grad_weight = back(grad)
    grad_bias = grad.sum((0, *range(2, grad.ndim))) if wanted[2] else None
    return grad_x if wanted[0] else None, grad_weight if wanted[1] else None, grad_bias


def _windows(shape: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[Any, Any]:
    """Flat places ``[OH, OW, window]`` in the padded image, and the padded width."""
    import numpy as np

    def line(size: int, at: int) -> Any:
        reach = dilation[at] * (kernel[at] - 1)
        count = (size + 2 * padding[at] - reach - 1) // stride[at] + 1
        return np.arange(count)[:, None] * stride[at] + np.arange(kernel[at])[None] * dilation[at]

    rows, columns = line(shape[-2], 0), line(shape[-1], 1)
    width = shape[-1] + 2 * padding[1]
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    return places.reshape(len(rows), len(columns), -1), width


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (values[0], values[-1])


def _padded(x: Any, padding: tuple[int, int], value: Any) -> Any:
    import jax.numpy as jnp

    wide = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(padding[0],) * 2, (padding[1],) * 2], constant_values=value)
    return wide.reshape(*x.shape[:-2], -1)


@lowers("aten.max_pool2d_with_indices")
def _max_pool(x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False) -> Any:
    import jax.numpy as jnp

    if ceil_mode:
        raise Unsupported("no lowering to JAX for aten.max_pool2d_with_indices with ceil_mode")
    kernel, padding = _pair(kernel), _pair(padding)
    places, width = _windows(x.shape, kernel, _pair(stride) if stride else kernel, padding, _pair(dilation))
    values = _padded(x, padding, -jnp.inf)[..., places]
    best = jnp.argmax(values, -1)
    flat = jnp.take_along_axis(jnp.broadcast_to(places, values.shape), best[..., None], -1)[..., 0]
    index = (flat // width - padding[0]) * x.shape[-1] + flat % width - padding[1]
    return jnp.take_along_axis(values, best[..., None], -1)[..., 0], index


@lowers("aten.max_pool2d_with_indices_backward")
def _max_pool_backward(grad: Any, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, index: Any) -> Any:
    import jax.numpy as jnp

    planes = jnp.zeros((*x.shape[:-2], x.shape[-2] * x.shape[-1]), x.dtype).reshape(-1, x.shape[-2] * x.shape[-1])
    rows = jnp.arange(len(planes))[:, None]
    spread = planes.at[rows, index.reshape(len(planes), -1)].add(grad.reshape(len(planes), -1))
    return spread.reshape(x.shape)


@lowers("aten.avg_pool2d")
def _avg_pool(
    x: Any, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:  # fmt: skip
    import jax.numpy as jnp

    if ceil_mode:
        raise Unsupported("no lowering to JAX for aten.avg_pool2d with ceil_mode")
    kernel, padding = _pair(kernel), _pair(padding)
    places, _ = _windows(x.shape, kernel, _pair(stride) if stride else kernel, padding, (1, 1))
    total = _padded(x, padding, 0)[..., places].sum(-1)
    if divisor or count_include_pad or padding == (0, 0):
        return total / (divisor or kernel[0] * kernel[1])
    return total / _padded(jnp.ones(x.shape[-2:], x.dtype), padding, 0)[places].sum(-1)


@lowers("aten.avg_pool2d_backward")
def _avg_pool_backward(grad: Any, x: Any, *attributes: Any) -> Any:
    import jax

    return jax.vjp(lambda one: _avg_pool(one, *attributes), x)[1](grad)[0]
