"""Ops that reduce, scan and reshape."""

from __future__ import annotations

from typing import Any

from sapper.backends.lax.table import axes, lowers


@lowers("aten.sum")
def _sum(x: Any, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    import jax.numpy as jnp

    from sapper.backends.lax.pointwise import dtype_of

    x = x.astype(dtype_of(dtype)) if dtype is not None else x
    x = x.astype(jnp.int64) if x.dtype == bool else x
    return jnp.sum(x, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.mean")
def _mean(x: Any, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    import jax.numpy as jnp

    from sapper.backends.lax.pointwise import dtype_of

    x = x.astype(dtype_of(dtype)) if dtype is not None else x
    return jnp.mean(x, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.var.correction")
def _var(x: Any, dims: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.var(x, axis=axes(dims, x.ndim), ddof=1 if correction is None else correction, keepdims=keepdim)


@lowers("aten.var_mean.correction")
def _var_mean(x: Any, dims: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    return _var(x, dims, correction=correction, keepdim=keepdim), _mean(x, dims, keepdim)


@lowers("aten.prod")
def _prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    import jax.numpy as jnp

    from sapper.backends.lax.pointwise import dtype_of

    x = x.astype(dtype_of(dtype)) if dtype is not None else x
    x = x.astype(jnp.int64) if x.dtype == bool else x
    return jnp.prod(x, axis=axes(dim, x.ndim), keepdims=keepdim)


@lowers("aten.amax")
def _amax(x: Any, dims: Any = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.max(x, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.amin")
def _amin(x: Any, dims: Any = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.min(x, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.max.default")
def _max(x: Any) -> Any:
    return _amax(x)


@lowers("aten.min.default")
def _min(x: Any) -> Any:
    return _amin(x)


@lowers("aten.any")
def _any(x: Any, dims: Any = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.any(x != 0, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.all")
def _all(x: Any, dims: Any = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.all(x != 0, axis=axes(dims, x.ndim), keepdims=keepdim)


@lowers("aten.argmax")
def _argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.argmax(x, axis=dim if x.ndim else None, keepdims=keepdim)


@lowers("aten.argmin")
def _argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.argmin(x, axis=dim if x.ndim else None, keepdims=keepdim)


@lowers("aten.max.dim")
def _max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return _amax(x, [dim], keepdim), _argmax(x, dim, keepdim)


@lowers("aten.min.dim")
def _min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return _amin(x, [dim], keepdim), _argmin(x, dim, keepdim)


@lowers("aten.cumsum")
def _cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    import jax.numpy as jnp

    x = x.astype(jnp.int64) if x.dtype == bool else x
    return jnp.cumsum(x, axis=dim) if x.ndim else x


@lowers("aten.cumprod")
def _cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    import jax.numpy as jnp

    return jnp.cumprod(x, axis=dim) if x.ndim else x


@lowers("aten.sort")
def _sort(x: Any, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> Any:
    import jax.numpy as jnp

    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    order = jnp.argsort(x, axis=dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, axis=dim), order


@lowers("aten.sort.stable")
def _sort_stable(x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    return _sort(x, dim, descending)


@lowers("aten.topk")
def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, *others: Any) -> Any:
    import jax
    import jax.numpy as jnp

    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    if largest:
        values, order = jax.lax.top_k(jnp.moveaxis(x, dim, -1), k)
        return jnp.moveaxis(values, -1, dim), jnp.moveaxis(order, -1, dim)
    values, order = _sort(x, dim, False)
    return jnp.take(values, jnp.arange(k), axis=dim), jnp.take(order, jnp.arange(k), axis=dim)


@lowers(
    "aten.view.default", "aten._unsafe_view", "aten.reshape", "aten.squeeze", "aten.unsqueeze", "aten.view_copy.default",
    "prims.view_of",
)  # fmt: skip
def _view(x: Any, *others: Any, **kwargs: Any) -> Any:
    return x  # the caller gives it the shape that the graph says


@lowers("aten.permute")
def _permute(x: Any, dims: Any) -> Any:
    import jax.numpy as jnp

    return jnp.transpose(x, [dim % max(x.ndim, 1) for dim in dims])


@lowers("aten.transpose")
def _transpose(x: Any, first: int, second: int) -> Any:
    import jax.numpy as jnp

    return jnp.swapaxes(x, first, second) if x.ndim else x


@lowers("aten.t")
def _t(x: Any) -> Any:
    return x.T


@lowers("aten.expand")
def _expand(x: Any, sizes: Any, *, implicit: bool = False) -> Any:
    import jax.numpy as jnp

    new = len(sizes) - x.ndim
    return jnp.broadcast_to(x, [x.shape[at - new] if size == -1 else size for at, size in enumerate(sizes)])


@lowers("aten.repeat")
def _repeat(x: Any, repeats: Any) -> Any:
    import jax.numpy as jnp

    return jnp.tile(x, repeats)


@lowers("aten.cat")
def _cat(tensors: Any, dim: int = 0) -> Any:
    import jax.numpy as jnp

    # PyTorch leaves empty one-dim tensors out, whatever the rank of the others.
    kept = [one for one in tensors if one.shape != (0,)] or tensors[:1]
    return jnp.concatenate(kept, axis=dim)


@lowers("aten.stack")
def _stack(tensors: Any, dim: int = 0) -> Any:
    import jax.numpy as jnp

    return jnp.stack(tensors, axis=dim)


@lowers("aten.flip")
def _flip(x: Any, dims: Any) -> Any:
    import jax.numpy as jnp

    return jnp.flip(x, [dim % max(x.ndim, 1) for dim in dims]) if x.ndim and dims else x


@lowers("aten.split_with_sizes")
def _split(x: Any, sizes: Any, dim: int = 0) -> Any:
    import jax.numpy as jnp

    ends = [sum(sizes[: at + 1]) for at in range(len(sizes) - 1)]
    return jnp.split(x, ends, axis=dim)


@lowers("aten.unbind")
def _unbind(x: Any, dim: int = 0) -> Any:
    import jax.numpy as jnp

    return [jnp.take(x, at, axis=dim) for at in range(x.shape[dim])]


@lowers("aten.constant_pad_nd")
def _pad(x: Any, pads: Any, value: Any = 0) -> Any:
    import jax
    import jax.numpy as jnp

    pairs = [(0, 0, 0)] * (x.ndim - len(pads) // 2) + [(pads[at], pads[at + 1], 0) for at in range(len(pads) - 2, -1, -2)]
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), pairs)


@lowers("aten.diagonal")
def _diagonal(x: Any, offset: int = 0, first: int = 0, second: int = 1) -> Any:
    import jax.numpy as jnp

    return jnp.diagonal(x, offset, first, second)


@lowers("aten.tril")
def _tril(x: Any, diagonal: int = 0) -> Any:
    import jax.numpy as jnp

    return jnp.tril(x, diagonal)


@lowers("aten.triu")
def _triu(x: Any, diagonal: int = 0) -> Any:
    import jax.numpy as jnp

    return jnp.triu(x, diagonal)
