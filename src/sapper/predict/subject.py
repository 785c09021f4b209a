"""TrainSubject: who computes a training step, and the training book of constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.chips.schema import Chip
from sapper.predict.arrays import Floats
from sapper.predict.combine import Constants
from sapper.predict.job import LOW_PRECISIONS
from sapper.predict.prior import Book, book

FRACTIONS = (0.2, 0.95)
"""Shares of the peak that a record may claim: above them it is the peak that is understated (boost clocks, bins)."""
OWN_WEIGHT = 0.9
"""Weight of a chip's own matmul records against its class's median (on the log scale): the best of few large shapes says
less than all of how a model's many shapes will do."""
MATMUL_METRICS = ("matmul", "matmul_mamf")
"""Records of large sustained products; short bursts and typical ranges of a kernel database are not among them."""


def train_book() -> Book:
    """Constants of a training step: the keys are the fields of :class:`~sapper.predict.combine.Constants`, in order."""
    return book("prior")


@dataclass(frozen=True)
class TrainSubject:
    """Who computes: what the effects depend on."""

    chip: str
    vendor: str
    arch: str
    stack: str
    source: str
    precision: str
    fraction: float
    """Measured (or class mean) share of the dense peak that a large matmul reaches on this chip."""
    measured: bool
    """Whether ``fraction`` is the chip's own."""
    silicon: str = ""
    """Vendor and dense 16-bit peak: the same die under another memory or link shares it (H100, H200, H800)."""
    low_fraction: float = 1.0
    """The same of the low-precision peak."""
    ridge: float = 0.0
    """log of (dense 16-bit FLOPs per byte of memory bandwidth / 200)."""
    compiled: bool = False
    moe: bool = False
    lora: bool = False
    searched: bool = False
    """The plan is unknown and taken to be the best that fits."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {
            "arch": self.arch,
            "vendor": self.vendor,
            "chip": self.chip,
            "silicon": self.silicon,
            "stack": self.stack,
            "source": self.source,
            "stack_memory": self.stack,
            "stack_attention": self.stack,
            "stack_launch": self.stack,
            "stack_link": self.stack,
            "stack_tensor": self.stack,
            "stack_host": self.stack,
        }
        flags = {"fp32": self.precision == "fp32", "compile": self.compiled, "moe": self.moe, "lora": self.lora, "searched": self.searched}
        found |= {name: "yes" for name, on in flags.items() if on}
        if not self.measured:
            found["unmeasured"] = self.chip
        if self.precision in LOW_PRECISIONS:
            found |= {"vendor_low": self.vendor, "chip_low": self.chip}
        return found

    def offsets(self) -> dict[str, float]:
        """Log of the matmul fractions: the matmul constants are what is left after them."""
        return {"matmul": float(np.log(self.fraction)), "low": float(np.log(self.low_fraction))}

    def covariates(self) -> dict[str, float]:
        """The ridge, for every slope of the book."""
        return dict.fromkeys(train_book().slope, self.ridge)


def constants_of(eta: Floats) -> Constants:
    """Constants of a training step from their link scale; ``eta`` is C x ... in the order of the book."""
    return Constants(**train_book().natural(eta))


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
