"""Measured rates of chips as observations of the training book: what the catalogue knows of matmuls and copies.

A record is not what a training step reaches: the best of many large matmuls lies above it. So each kind of measurement
is a level of the effect ``probe``, which the fit learns from chips that have both records and rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from sapper.chips import catalogue
from sapper.chips.schema import Chip, Measured
from sapper.predict.fit import Fitted, Observation, condition
from sapper.predict.job import LOW_PRECISIONS
from sapper.predict.subject import Silicon, silicon_of

KINDS = {"matmul": "large", "matmul_mamf": "mamf", "gemm": "median", "matmul_training": "training",
         "attention_training": "training", "memory_bandwidth": "copy", "memory_bandwidth_elementwise": "elementwise"}
"""Metric of a record -> kind of measurement: one large product, the best of many (MAMF), the median of a kernel table, the
mean over the products of training steps, a copy, element-wise kernels."""
SD = {"large": 0.05, "mamf": 0.18, "median": 0.20, "training": 0.05, "copy": 0.10, "elementwise": 0.10}
"""Log scale, by kind: how far a chip's record may stand from what its kind says of other chips."""
STREAMS = ("copy", "elementwise")
"""Kinds of measurement that read and write memory and multiply nothing."""
PLAUSIBLE = (0.1, 1.1)
"""Shares of a peak that are kept: above them it is the peak that is understated, below them another unit that ran."""


@dataclass(frozen=True)
class ProbeSubject:
    """Which chip was measured, and how."""

    silicon: Silicon
    kind: str
    precision: str

    @property
    def chip(self) -> str:
        """Catalogue id."""
        return self.silicon.chip

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {**self.silicon.effects(), "probe": self.kind}
        if self.precision == "fp32":  # other units than those of 16 bit: what a kind of record says of training is its own there
            found |= {"probe": f"{self.kind} full", "fp32": "yes"}
        if self.precision in LOW_PRECISIONS:
            found |= {"probe": f"{self.kind} low", "vendor_low": self.silicon.vendor, "chip_low": self.chip}
        return found

    def as_own(self) -> ProbeSubject:
        """A record says where it was measured by itself."""
        return self

    def offsets(self) -> dict[str, float]:
        """Nothing is known beforehand."""
        return {}

    def covariates(self) -> dict[str, float]:
        """Those of the silicon; a short benchmark feels its power limit less."""
        return {**self.silicon.covariates(), "density_probe": self.silicon.density}


def observations_of(chips: Iterable[Chip]) -> list[Observation]:
    """What the records of ``chips`` say of the training book's constants."""
    return [one for chip in chips for record in chip.measured if (one := _observation(chip, record)) is not None]


@functools.cache
def catalogue_observations() -> tuple[Observation, ...]:
    """What all records of the catalogue say."""
    return tuple(observations_of(catalogue().chips.values()))


def informed(fitted: Fitted, chip: Chip) -> Fitted:
    """``fitted`` with the records of ``chip`` where it has not seen them: a chip of the user's own catalogue."""
    records = [] if f"chip:{chip.id}" in fitted.columns else observations_of([chip])
    return condition(fitted, records) if records else fitted


def measured(chip: Chip) -> tuple[Measured, ...]:
    """The records of ``chip`` that are observations."""
    return tuple(record for record in chip.measured if _observation(chip, record) is not None)


def _observation(chip: Chip, record: Measured) -> Observation | None:
    kind, share = KINDS.get(record.metric), _share(record)
    if kind is None or share is None or not PLAUSIBLE[0] <= share <= PLAUSIBLE[1]:
        return None
    if kind in STREAMS:
        return Observation(ProbeSubject(silicon_of(chip, "bf16"), kind, "bf16"), "memory", share, SD[kind])
    if record.dtype not in ("bf16", "fp16", "fp32", *LOW_PRECISIONS):
        return None
    constant = "attention" if record.metric.startswith("attention") else "low" if record.dtype in LOW_PRECISIONS else "matmul"
    return Observation(ProbeSubject(silicon_of(chip, record.dtype), kind, record.dtype), constant, share, SD[kind])


def _share(record: Measured) -> float | None:
    """Of the peak: the figure, else the middle of the range of a source's software releases."""
    if record.fraction is not None or record.fraction_range is None:
        return record.fraction
    return math.sqrt(record.fraction_range[0] * record.fraction_range[1])
