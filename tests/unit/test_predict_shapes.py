"""Shape efficiency of a matmul: tiles, waves, array fill."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sapper.predict.shapes import MatrixUnit, shape_efficiency

GPU = MatrixUnit(kind="gpu", units=108)
SIZES = st.integers(1, 40000).map(float)


def efficiency(m: float, n: float, k: float, unit: MatrixUnit = GPU) -> float:
    return float(shape_efficiency(np.array([m]), np.array([n]), np.array([k]), groups=1.0, unit=unit)[0])


@given(
    SIZES, SIZES, SIZES, st.sampled_from([GPU, MatrixUnit("gpu"), MatrixUnit("systolic", array=(128, 128)), MatrixUnit("cube", units=20)])
)
def test_share_of_peak_lies_between_nothing_and_all(m: float, n: float, k: float, unit: MatrixUnit) -> None:
    assert 0 < efficiency(m, n, k, unit) <= 1


def test_a_row_more_than_a_tile_costs_a_tile() -> None:
    """Tile quantisation, and wave quantisation: 109 tiles take two waves of 108 units."""
    assert efficiency(128, 256 * 108, 4096) > 0.9
    assert efficiency(129, 256 * 108, 4096) < 0.65 * efficiency(128, 256 * 108, 4096) + 0.35 * efficiency(128, 256 * 108, 4096)


def test_systolic_array_is_filled_by_multiples_of_its_width() -> None:
    unit = MatrixUnit(kind="systolic", array=(128, 128))

    assert efficiency(4096, 129, 4096, unit) < 0.55 * efficiency(4096, 128, 4096, unit)
    assert efficiency(16, 4096, 4096, unit) < 0.2


def test_thin_products_fill_less() -> None:
    assert efficiency(8192, 8192, 8192) > efficiency(64, 8192, 8192) > efficiency(1, 8192, 8192)
    assert efficiency(8192, 8192, 8192) > 0.85
