"""How the chips of a slice lie in a torus, and which axes close to rings."""

from __future__ import annotations

import functools
import math

RANK = {"ring": 1, "torus-2d": 2, "torus-3d": 3}
"""Axes of a topology."""
CUBE = 4
"""Side of the cube whose faces optical switches join: TPU v4, arXiv:2304.01433, section 2.2."""


@functools.cache
def slice_dims(chips: int, rank: int) -> tuple[int, ...]:
    """``chips`` as a product of ``rank`` factors as alike as they can be, greatest first: 32 chips in 3D are 4, 4, 2.

    Providers offer slices of this form (Cloud TPU v5p: 2x4x4, 4x4x8, 8x8x16, ...).
    """
    if rank == 1:
        return (chips,)
    best: tuple[int, ...] = (chips, *(1,) * (rank - 1))
    for first in range(1, math.isqrt(chips) + 1):
        for side in (first, chips // first):
            if chips % side == 0:
                dims = tuple(sorted((side, *slice_dims(chips // side, rank - 1)), reverse=True))
                if (dims[0] / dims[-1], dims) < (best[0] / best[-1], best):
                    best = dims
    return best


def wraps(dims: tuple[int, ...], domain: int) -> tuple[bool, ...]:
    """Which axes of a slice close to rings.

    One or two axes: those as long as the whole domain's axis (TPU v5e and v6e wrap at 16 of 16 only). Three axes: all
    where each is a multiple of a cube of 4, else none (TPU v4 and v5p). Both as jax-ml/scaling-book, tpus.md, and the
    Cloud TPU documentation state them.
    """
    if len(dims) < 3:
        whole = slice_dims(domain, len(dims))
        return tuple(size > 1 and size == side for size, side in zip(dims, whole, strict=True))
    return (all(size % CUBE == 0 for size in dims),) * len(dims)
