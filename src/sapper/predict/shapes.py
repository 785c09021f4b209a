"""How well a matmul of a given shape can fill a chip: tiles and waves on GPUs, array fill on systolic chips.

All functions are vectorised; M, N, K and groups broadcast against each other.

Sources: tile and wave quantisation, NVIDIA "Matrix Multiplication Background User's Guide" (2023), sections 3.1-3.2;
systolic fill, Jouppi et al., "In-Datacenter Performance Analysis of a TPU" (ISCA 2017, arXiv:1704.04760), section 2,
and SCALE-Sim (arXiv:1811.02883), section 3.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats

GPU_TILES = ((128, 256, 1.0), (128, 128, 0.95), (64, 128, 0.85), (64, 64, 0.72))
"""(tile M, tile N, rate against the largest tile): smaller tiles reload their operands more often."""
GPU_K_FILL = 96.0
"""Depth K at which prologue and epilogue of a tile cost as much as its main loop."""


@dataclass(frozen=True)
class MatrixUnit:
    """What decides the shape efficiency of a chip.

    Args:
        kind: ``gpu`` (tiles over units), ``systolic`` (an array that K x N weights fill), ``cube`` (NPU cores with tiles).
        units: SMs, CUs or cores; None where nobody states it (no wave quantisation then).
        array: Rows and columns of the multiply array of one unit; None: 128 x 128 tiles.
    """

    kind: str
    units: int | None = None
    array: tuple[int, int] | None = None


def shape_efficiency(m: Floats, n: Floats, k: Floats, *, groups: Floats | float, unit: MatrixUnit) -> Floats:
    """Share of the matrix peak that the shape alone allows, in (0, 1].

    Args:
        m: Rows of the left operand (tokens).
        n: Columns of the result.
        k: Depth of the sum.
        groups: Independent products of that shape that run together.
        unit: The chip's matrix unit.
    """
    m, n, k = (np.maximum(np.asarray(x, float), 1.0) for x in (m, n, k))
    count = np.maximum(np.asarray(groups, float), 1.0)
    if unit.kind == "systolic":
        return _systolic(m, n, k, unit.array or (128, 128))
    if unit.kind == "cube":
        return _tiled(m, n, k, count, unit, ((128, 256, 1.0), (128, 128, 0.97), (64, 128, 0.85)))
    return _tiled(m, n, k, count, unit, GPU_TILES)


@functools.cache
def _orientations(tiles: tuple[tuple[int, int, float], ...]) -> tuple[Floats, Floats, Floats]:
    """(rows, columns, rate) of each tile, upright and turned."""
    both = sorted({(a, b, rate) for tile_m, tile_n, rate in tiles for a, b in ((tile_m, tile_n), (tile_n, tile_m))})
    return tuple(np.array(column, float) for column in zip(*both, strict=True))  # type: ignore[return-value]


def _tiled(m: Floats, n: Floats, k: Floats, groups: Floats, unit: MatrixUnit, tiles: tuple[tuple[int, int, float], ...]) -> Floats:
    m, n, k, groups = np.broadcast_arrays(m, n, k, groups)
    # all tiles at once, along a first axis: a search asks this for few shapes, many times
    a, b, rate = (column.reshape(-1, *(1,) * m.ndim) for column in _orientations(tiles))
    across, down = np.ceil(m / a), np.ceil(n / b)
    share = (m * n) / (across * a * down * b) * rate
    if unit.units:
        share = share * _waves(groups * across * down, k, unit.units)
    return np.asarray(share.max(axis=0) * k / (k + GPU_K_FILL), float)


def _waves(tiles: Floats, k: Floats, units: int) -> Floats:
    """Share of units busy over all waves; a kernel may cut K in up to 8 (stream-K, arXiv:2301.03598) to fill the last wave."""
    best = np.zeros(np.broadcast_shapes(tiles.shape, k.shape))
    for split in (1.0, 4.0):
        waves = tiles * split / units
        share = waves / np.ceil(waves)
        allowed = k / split >= 256.0 if split > 1 else np.ones_like(share, bool)
        best = np.maximum(best, np.where(allowed, share * (1.0 if split == 1 else 0.95), 0.0))
    return best


def _systolic(m: Floats, n: Floats, k: Floats, array: tuple[int, int]) -> Floats:
    rows, columns = array
    fill = k / (np.ceil(k / rows) * rows) * n / (np.ceil(n / columns) * columns)
    return np.asarray(fill * m / (m + rows), float)
