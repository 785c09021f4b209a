"""Rates: the few numbers of a chip that serving needs, in the precisions of a job, and what stands in for a missing one."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.chips.schema import Chip
from sapper.predict.device import KINDS, need
from sapper.predict.estimate import Used
from sapper.predict.serve.job import ServeJob
from sapper.predict.shapes import MatrixUnit

STORED_BYTES: dict[str, float] = {
    "fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0 + 4.0 / 128**2, "int8": 1.0, "int4": 0.5 + 2.5 / 128, "fp4": 0.5 + 1.0 / 16,
}
"""Bytes of a stored weight with its scales: fp8 in blocks of 128 x 128 with an fp32 scale (arXiv:2412.19437, section 3.3.2);
int4 in groups of 128 with a 16-bit scale and a 4-bit zero (AWQ, arXiv:2306.00978, section 5.1); fp4 in blocks of 16 with an
fp8 scale (NVFP4; MXFP4 has 32, OCP Microscaling v1.0, section 5)."""
CACHE_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5 + 1.0 / 16}
ACTIVATION_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
WIDE = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Rates:
    """A chip in the precisions of a job."""

    chip: Chip
    compute_dtype: str
    """In which the quantised layers multiply on this chip."""
    fallback: bool
    """The chip has no unit for the job's compute dtype, so that the weights are widened and multiply in 16 bit."""
    peak_flops_per_s: float
    wide_flops_per_s: float
    bandwidth_bytes_per_s: float
    capacity_bytes: float
    unit: MatrixUnit
    used: tuple[Used, ...]

    @property
    def low(self) -> bool:
        """Whether the quantised layers multiply in fewer than 16 bits."""
        return self.compute_dtype not in WIDE


def rates_of(chip: Chip, job: ServeJob) -> Rates:
    """The chip at the precisions of ``job``.

    Raises:
        MissingFact: The catalogue has no 16-bit peak, no bandwidth or no capacity; the field is named.
    """
    wide = _wide(chip, job.dtype)
    wide_fact = need(chip, f"peak_flops_per_s.{wide}", chip.peak_flops_per_s.get(wide))
    own = chip.peak_flops_per_s.get(job.compute_dtype)
    has_own = own is not None and own.number is not None
    fallback = not has_own and job.compute_dtype not in WIDE
    compute = job.compute_dtype if has_own else wide
    peak_fact = own if has_own and own is not None else wide_fact
    bandwidth = need(chip, "memory.bandwidth", chip.memory.bandwidth_bytes_per_s)
    capacity = need(chip, "memory.capacity", chip.memory.usable_bytes or chip.memory.capacity_bytes)
    used = [Used(key=f"{chip.id} dense peak {compute}", fact=peak_fact)]
    if compute != wide:
        used.append(Used(key=f"{chip.id} dense peak {wide}", fact=wide_fact))
    used += [Used(key=f"{chip.id} memory bandwidth", fact=bandwidth), Used(key=f"{chip.id} memory capacity", fact=capacity)]
    units = chip.compute_units.number if chip.compute_units else None
    return Rates(
        chip=chip, compute_dtype=compute, fallback=fallback, peak_flops_per_s=_value(peak_fact.number),
        wide_flops_per_s=_value(wide_fact.number), bandwidth_bytes_per_s=_value(bandwidth.number), capacity_bytes=_value(capacity.number),
        unit=MatrixUnit(kind=KINDS.get(chip.arch_class, "gpu"), units=int(units) if units else None, array=chip.matrix_array),
        used=tuple(used),
    )


def _wide(chip: Chip, dtype: str) -> str:
    """The 16-bit dtype that the chip multiplies in: the job's, or the other one where the catalogue has only that."""
    for name in (dtype, "bf16", "fp16"):
        fact = chip.peak_flops_per_s.get(name)
        if fact is not None and fact.number is not None:
            return name
    return dtype


def _value(number: float | None) -> float:
    assert number is not None and number > 0
    return number
