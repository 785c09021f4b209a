"""What the catalogue's records say of the share of its dense peak that a chip's matmuls reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapper.chips.schema import Chip

FRACTIONS = (0.2, 0.95)
"""Shares of the peak that a record may claim: above them it is the peak that is understated (boost clocks, bins)."""
OWN_WEIGHT = 0.9
"""Weight of a chip's own matmul records against its class's median (on the log scale): the best of few large shapes says
less than all of how a model's many shapes will do."""
MATMUL_METRICS = ("matmul", "matmul_mamf")
"""Records of large sustained products; short bursts and typical ranges of a kernel database are not among them."""


def matmul_fraction(chip: Chip, precision: str, others: Sequence[Chip]) -> tuple[float, bool]:
    """Share of the dense peak that large matmuls reach: the chip's own records drawn towards its class's median, else that median.

    Returns:
        The fraction (at most 1) and whether it is the chip's own.
    """
    own = _fractions(chip, precision)
    like = [float(np.median(f)) for o in others if o.id != chip.id and o.arch_class == chip.arch_class and (f := _fractions(o, "bf16"))]
    every = [float(np.median(f)) for o in others if o.id != chip.id and (f := _fractions(o, "bf16"))]
    pool = like if len(like) >= 3 else every
    usual = float(np.clip(np.median(pool), *FRACTIONS)) if pool else 0.8
    if not own:
        return usual, False
    return float(np.clip(np.median(own), *FRACTIONS)) ** OWN_WEIGHT * usual ** (1.0 - OWN_WEIGHT), True


def _fractions(chip: Chip, precision: str) -> list[float]:
    names = ("bf16", "fp16") if precision in ("bf16", "fp16") else (precision,)
    return [m.fraction for m in chip.measured if m.metric in MATMUL_METRICS and m.dtype in names and m.fraction is not None]
