"""The errors that Sapper promises: they may shrink, and a change that makes them grow turns red."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sapper.chips import catalogue
from sapper.predict.engine import shipped_fit
from sapper.predict.predictor import TrainPredictor
from sapper.predict.rows import read_rows
from sapper.predict.validate import pool, validate

ROWS = Path(__file__).parents[1] / "data" / "measurements_training.jsonl"


@pytest.mark.slow
def test_leave_one_chip_out_over_all_rows_of_confidence_high() -> None:
    summary = validate(read_rows(ROWS), {"training": TrainPredictor()}, catalogue=catalogue(), leave_out="chip").summary

    assert summary.answered_share >= 0.97
    assert summary.median_abs is not None and summary.median_abs <= 0.08
    assert summary.mean_abs is not None and summary.mean_abs <= 0.12
    assert summary.coverage is not None and 0.74 <= summary.coverage <= 0.86


@pytest.mark.slow
def test_the_posterior_that_ships_is_the_one_that_the_rows_give() -> None:
    """Somebody who changes physics or rows runs scripts/fit_priors.py."""
    fitted = TrainPredictor().fit(pool(catalogue())).fitted
    shipped = shipped_fit()

    assert fitted is not None and fitted.columns == shipped.columns and fitted.rows == shipped.rows
    assert all(math.isclose(a, b, abs_tol=5e-3) for a, b in zip(fitted.mean, shipped.mean, strict=True))
