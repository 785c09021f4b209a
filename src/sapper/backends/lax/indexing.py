"""Ops that gather, scatter and slice."""

from __future__ import annotations

from typing import Any

from sapper.backends.base import Unsupported
from sapper.backends.lax.table import lowers


def _bounds(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    low = 0 if start is None else min(max(start + size if start < 0 else start, 0), size)
    high = size if end is None else min(max(end + size if end < 0 else end, 0), size)
    return low, max(high, low)


def _at(x: Any, dim: int, what: Any) -> tuple[Any, ...]:
    return (*(slice(None) for _ in range(dim % x.ndim)), what)


@lowers("aten.slice")
def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    low, high = _bounds(x.shape[dim], start, end)
    return x[_at(x, dim, slice(low, high, step))]


@lowers("aten.select.int")
def _select(x: Any, dim: int, index: int) -> Any:
    return x[_at(x, dim, index % x.shape[dim])]


@lowers("aten.slice_scatter")
def _slice_scatter(
    x: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    low, high = _bounds(x.shape[dim], start, end)
    return x.at[_at(x, dim, slice(low, high, step))].set(source)


@lowers("aten.select_scatter")
def _select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    return x.at[_at(x, dim, index % x.shape[dim])].set(source)


def _indices(indices: Any) -> tuple[Any, ...]:
    return tuple(slice(None) if one is None else one for one in indices)


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def _index(x: Any, indices: Any) -> Any:
    return x[_indices(indices)]


@lowers("aten.index_put", "aten._unsafe_index_put")
def _index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    import jax.numpy as jnp

    masks = [one for one in indices if one is not None and one.dtype == bool]
    if masks:
        if accumulate or len(masks) > 1 or indices[0] is not masks[0] or len(indices) > 1 or values.size != 1:
            raise Unsupported("no lowering to JAX for aten.index_put with a mask whose values decide how many numbers it takes")
        mask = masks[0].reshape(masks[0].shape + (1,) * (x.ndim - masks[0].ndim))
        return jnp.where(mask, values.reshape(()).astype(x.dtype), x)
    place = x.at[_indices(indices)]
    return place.add(values.astype(x.dtype)) if accumulate else place.set(values.astype(x.dtype))


@lowers("aten.index_select")
def _index_select(x: Any, dim: int, index: Any) -> Any:
    import jax.numpy as jnp

    return jnp.take(x, index, axis=dim) if x.ndim else x


@lowers("aten.embedding")
def _embedding(weight: Any, indices: Any, *others: Any) -> Any:
    return weight[indices]


def _along(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    import jax.numpy as jnp

    grid = list(jnp.indices(index.shape, sparse=True))
    grid[dim % x.ndim] = index
    return tuple(grid)


@lowers("aten.gather")
def _gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    return x[_along(x, dim, index)] if x.ndim else x


@lowers("aten.scatter.src", "aten.scatter.value")
def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    import jax.numpy as jnp

    values = jnp.broadcast_to(jnp.asarray(source, x.dtype), index.shape) if not jnp.ndim(source) else source
    corner = tuple(slice(0, size) for size in index.shape)
    return x.at[_along(x, dim, index)].set(values[corner].astype(x.dtype)) if x.ndim else values.reshape(())


@lowers("aten.scatter_add")
def _scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    corner = tuple(slice(0, size) for size in index.shape)
    return x.at[_along(x, dim, index)].add(source[corner]) if x.ndim else x + source


@lowers("aten.index_add")
def _index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    return x.at[_at(x, dim, index)].add(source if alpha == 1 else source * alpha)


@lowers("aten.as_strided")
def _as_strided(x: Any, size: Any, stride: Any, offset: int | None = None) -> Any:
    import numpy as np

    # The graph is functional: what it strides over is a contiguous tensor.
    places = np.full(tuple(size), offset or 0)
    for dim, (count, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (np.arange(count) * step).reshape([-1 if dim == at else 1 for at in range(len(size))])
    return x.reshape(-1)[places]


@lowers("aten.unfold")
def _unfold(x: Any, dim: int, size: int, step: int) -> Any:
    import jax.numpy as jnp
    import numpy as np

    if not x.ndim:
        return x.reshape(1)[:size]
    dim %= x.ndim
    starts = np.arange((x.shape[dim] - size) // step + 1) * step
    windows = x[_at(x, dim, starts[:, None] + np.arange(size)[None])]
    return jnp.moveaxis(windows, dim + 1, -1)
