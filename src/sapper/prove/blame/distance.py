"""How far outputs are from a truth, in units of their own rounding: the yardstick that all counter-runs share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sapper.prove.measure import Yardstick
from sapper.prove.reference import ACCUMULATOR_ROUNDOFF, UNIT_ROUNDOFF, widen

BEYOND = 1e30
"""Roundings of what no rounding explains; a number, so that it can be written as JSON."""


def roundings(got: Sequence[torch.Tensor], truth: Sequence[torch.Tensor], *, dtypes: Sequence[torch.dtype]) -> float:
    """The largest distance over all outputs, in roundings of ``dtypes``; :data:`BEYOND` where integers, shapes or NaNs differ."""
    return max((_one(one, true, dtype) for one, true, dtype in zip(got, truth, dtypes, strict=True)), default=0.0)


def _one(got: torch.Tensor, truth: torch.Tensor, dtype: torch.dtype) -> float:
    if got.shape != truth.shape:
        return BEYOND
    if not got.numel():
        return 0.0
    if dtype not in UNIT_ROUNDOFF:
        return 0.0 if torch.equal(got, truth.to(got.dtype)) else BEYOND
    finite = torch.isfinite(truth.to(dtype))
    if not torch.equal(torch.isfinite(got), finite):
        return BEYOND
    roundoff = UNIT_ROUNDOFF[dtype]
    yardstick = Yardstick(
        widen(truth), roundoff=roundoff, inside=min(roundoff, ACCUMULATOR_ROUNDOFF), tiny=torch.finfo(dtype).tiny,
        drop=None if bool(finite.all()) else ~finite,
    )  # fmt: skip
    norms = yardstick.norms(widen(got))
    return min(max(norms.l2, norms.rows, norms.elements), BEYOND)
