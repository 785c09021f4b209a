"""Look-ups, gathers, scatters, sorts and pooling: what they move, and of a table only the rows that are taken."""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, (tuple, list)) else out


@register("aten.embedding")
def embedding(weight: Any, indices: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Rows of ``weight`` [N, K] taken by ``indices``."""
    return Cost(kind="embedding", flops=0.0, m=_size(indices), n=weight.shape[0], k=weight.shape[1], reads={0: float(_size(out))})


@register("aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(weight: Any, indices: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Rows of ``weight`` taken and summed by bag: one addition per element taken."""
    taken = float(_size(indices) * weight.shape[1])
    return Cost(
        kind="embedding", flops=taken, m=_size(indices), n=weight.shape[0], k=weight.shape[1], reads={0: taken},
        writes=float(_size(_first(out))),
    )


@register("aten.embedding_dense_backward", "aten._embedding_bag_dense_backward", "aten._embedding_bag_backward")
def embedding_backward(gradient: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """A dense gradient of the table: zeroed whole, then the rows added."""
    return Cost(kind="embedding", flops=float(_size(gradient)))


@register("aten.index_select", "aten.gather", "aten.index", "aten.take", "aten._unsafe_index", "aten._unsafe_masked_index")
def gather(x: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Reads what it takes, not the whole source."""
    return Cost(kind="dispatch", flops=0.0, reads={0: float(_size(out))})


@register("aten.index_put", "aten.index_put_", "aten._unsafe_index_put", "aten._index_put_impl_")
def index_put(x: Any, indices: Any, values: Any, *_: Any, **__: Any) -> Cost:
    """Touches the places that are written."""
    moved = float(_size(values)) if _size(values) > 1 else float(max((_size(i) for i in indices if i is not None), default=0))
    return Cost(kind="dispatch", flops=0.0, reads={0: 0.0}, writes=moved)


@register("aten.scatter", "aten.scatter_", "aten.scatter_add", "aten.scatter_add_", "aten.scatter_reduce", "aten.scatter_reduce_")
def scatter(x: Any, dim: int, index: Any, *_: Any, **__: Any) -> Cost:
    """Touches one place per index."""
    return Cost(kind="dispatch", flops=0.0, reads={0: 0.0}, writes=float(_size(index)))


@register("aten.index_add", "aten.index_add_", "aten.index_copy", "aten.index_copy_")
def index_add(x: Any, dim: int, index: Any, source: Any, *_: Any, **__: Any) -> Cost:
    """Reads and writes the rows that ``source`` falls on."""
    return Cost(kind="dispatch", flops=float(_size(source)), reads={0: float(_size(source))}, writes=float(_size(source)))


@register(
    "aten.sort", "aten.argsort", "aten.topk", "aten.kthvalue", "aten.msort", "aten.unique_dim", "aten._unique2", "aten.searchsorted",
    "aten.bucketize",
)
def sort(x: Any, *_: Any, **__: Any) -> Cost:
    """``n log2 n`` comparisons along the last dim at most, on the vector unit; moved once in and once out."""
    n = x.shape[-1] if len(x.shape) else 1
    return Cost(kind="dispatch", flops=float(_size(x)) * max(1.0, math.log2(max(n, 2))))


@register("aten.histc", "aten.bincount", "aten.one_hot", "aten.segment_reduce", "aten.masked_scatter", "aten.repeat_interleave")
def count(x: Any, *_: Any, **__: Any) -> Cost:
    """One operation per element."""
    return Cost(kind="dispatch", flops=float(_size(x)))


@register(
    "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.avg_pool2d", "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d",
    "aten.avg_pool1d", "aten.adaptive_avg_pool1d",
)
def pool(x: Any, kernel: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """One operation per element under each window."""
    first = _first(out)
    spatial = 3 if len(x.shape) == 5 else 2
    taps = math.prod(kernel) if isinstance(kernel, (tuple, list)) else int(kernel) ** spatial
    adaptive = _size(x) / max(_size(first), 1)
    return Cost(kind="elementwise", flops=float(_size(first)) * max(min(taps, _size(x)), adaptive), reduces=True)


@register(
    "aten.max_pool2d_with_indices_backward", "aten.max_pool3d_with_indices_backward", "aten.avg_pool2d_backward",
    "aten.avg_pool3d_backward", "aten._adaptive_avg_pool2d_backward", "aten._adaptive_avg_pool3d_backward",
    "aten.adaptive_max_pool2d_backward", "aten.adaptive_max_pool3d_backward",
)
def pool_backward(gradient: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """One operation per element of the larger side."""
    return Cost(kind="elementwise", flops=float(max(_size(gradient), _size(out))), reduces=True)


@register("aten.grid_sampler_2d_backward", "aten.grid_sampler_3d_backward")
def grid_backward(gradient: Any, x: Any, grid: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """The gradient of each sample is spread over what it was interpolated from, and summed into its place in the grid."""
    return Cost(kind="elementwise", flops=float(2 * max(_size(gradient), _size(x))), reduces=True)


@register(
    "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d", "aten._upsample_nearest_exact2d",
    "aten.upsample_bilinear2d", "aten.upsample_bicubic2d", "aten.upsample_trilinear3d", "aten.grid_sampler_2d",
    "aten.grid_sampler_3d",
    "aten.upsample_nearest2d_backward", "aten.upsample_nearest1d_backward", "aten.upsample_nearest3d_backward",
    "aten.upsample_bilinear2d_backward", "aten.upsample_bicubic2d_backward", "aten._upsample_bicubic2d_aa",
    "aten._upsample_bilinear2d_aa", "aten.pixel_shuffle", "aten.pixel_unshuffle",
)
def resample(x: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Interpolation: at most 16 taps an element (bicubic), on the vector unit; both sides moved once."""
    return Cost(kind="elementwise", flops=float(max(_size(x), _size(_first(out)))), reduces=True)
