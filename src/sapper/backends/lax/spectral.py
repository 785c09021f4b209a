"""Fourier transforms, and complex numbers as pairs of real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sapper.backends.lax.table import lowers

_POWERS = (0.0, 0.5, 1.0)
"""By PyTorch's ``fft_norm_mode`` (none, by root n, by n): the power of n that a transform is divided by."""


@lowers("aten._fft_r2c")
def _real_to_complex(x: Any, dims: Sequence[int], normalization: int, onesided: bool) -> Any:
    import jax.numpy as jnp

    share = _share(x.shape, dims, normalization)
    if not onesided:
        return _along(jnp.fft.fft, x, dims) * share
    return _along(jnp.fft.fft, jnp.fft.rfft(x, axis=dims[-1]), dims[:-1]) * share


@lowers("aten._fft_c2c")
def _complex_to_complex(x: Any, dims: Sequence[int], normalization: int, forward: bool) -> Any:
    import jax.numpy as jnp

    share = _share(x.shape, dims, normalization)
    return _along(jnp.fft.fft, x, dims) * share if forward else _along(_inverse, x, dims) * share


@lowers("aten._fft_c2r")
def _complex_to_real(x: Any, dims: Sequence[int], normalization: int, last_size: int) -> Any:
    import jax.numpy as jnp

    shape = list(x.shape)
    shape[dims[-1]] = last_size
    half = _along(_inverse, x, dims[:-1])
    return jnp.fft.irfft(half, last_size, axis=dims[-1], norm="forward") * _share(shape, dims, normalization)


def _inverse(x: Any, axis: int) -> Any:
    import jax.numpy as jnp

    return jnp.fft.ifft(x, axis=axis, norm="forward")  # what the inverse is divided by, PyTorch names apart


def _along(transform: Any, x: Any, dims: Sequence[int]) -> Any:
    """One dimension after another: JAX transforms no more than three at once."""
    for dim in dims:
        x = transform(x, axis=dim)
    return x


def _share(shape: Sequence[int], dims: Sequence[int], normalization: int) -> float:
    return float(math.prod(shape[dim] for dim in dims) ** -_POWERS[normalization])


@lowers("aten._conj", "aten._conj_copy", "aten._conj_physical")
def _conj(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.conj(x)


@lowers("aten.view_as_real", "aten.view_as_real_copy")
def _view_as_real(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.stack([x.real, x.imag], -1)


@lowers("aten.view_as_complex", "aten.view_as_complex_copy")
def _view_as_complex(x: Any) -> Any:
    import jax

    return jax.lax.complex(x[..., 0], x[..., 1])


@lowers("aten.polar")
def _polar(size: Any, angle: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.lax.complex(size * jnp.cos(angle), size * jnp.sin(angle))


@lowers("aten.angle")
def _angle(x: Any) -> Any:
    import jax.numpy as jnp

    if jnp.iscomplexobj(x):
        return jnp.angle(x)
    return jnp.where(jnp.isnan(x), x, jnp.where(x < 0, jnp.pi, 0.0).astype(x.dtype))  # that of -0.0 is 0 in PyTorch, and pi in JAX
