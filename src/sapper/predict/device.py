"""Device: the few numbers of a chip that the arithmetic needs, or the name of the one that is missing."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.chips.schema import Chip
from sapper.errors import MissingFact
from sapper.evidence import Fact
from sapper.predict.estimate import Used
from sapper.predict.job import LOW_PRECISIONS
from sapper.predict.shapes import MatrixUnit

KINDS = {
    "gpu": "gpu",
    "npu": "cube",
    "systolic-tpu": "systolic",
    "sram-lpu": "systolic",
    "dataflow": "cube",
    "transformer-asic": "systolic",
    "cpu": "cube",
}
"""Architecture class of the catalogue -> how a matmul fills it."""


@dataclass(frozen=True)
class Device:
    """A chip at one precision, in base units."""

    chip: Chip
    precision: str
    wide_dtype: str
    """Dtype of what stays out of the low precision (heads, attention cores, routers)."""
    peak_flops_per_s: float
    """Dense, of ``precision``."""
    wide_flops_per_s: float
    """Dense, of ``wide_dtype``."""
    bandwidth_bytes_per_s: float
    capacity_bytes: float
    """What a program can have."""
    unit: MatrixUnit
    used: tuple[Used, ...]


def device_of(chip: Chip, precision: str) -> Device:
    """The device that ``chip`` is at ``precision``.

    Raises:
        MissingFact: The catalogue has no dense peak for the precision, no bandwidth or no capacity; the field is named.
    """
    wide = precision
    if precision in LOW_PRECISIONS:
        wide = "fp16" if _number(chip.peak_flops_per_s.get("bf16")) is None else "bf16"
    peak_fact = need(chip, f"peak_flops_per_s.{precision}", chip.peak_flops_per_s.get(precision))
    wide_fact = need(chip, f"peak_flops_per_s.{wide}", chip.peak_flops_per_s.get(wide))
    bandwidth = need(chip, "memory.bandwidth", chip.memory.bandwidth_bytes_per_s)
    capacity = need(chip, "memory.capacity", chip.memory.usable_bytes or chip.memory.capacity_bytes)
    used = [Used(key=f"{chip.id} dense peak {precision}", fact=peak_fact)]
    if wide != precision:
        used.append(Used(key=f"{chip.id} dense peak {wide}", fact=wide_fact))
    used += [Used(key=f"{chip.id} memory bandwidth", fact=bandwidth), Used(key=f"{chip.id} memory capacity", fact=capacity)]
    units = _number(chip.compute_units)
    array = chip.matrix_array
    if chip.compute_units is not None:
        used.append(Used(key=f"{chip.id} compute units", fact=chip.compute_units))
    unit = MatrixUnit(kind=KINDS.get(chip.arch_class, "gpu"), units=int(units) if units else None, array=array)
    return Device(
        chip=chip,
        precision=precision,
        wide_dtype=wide,
        peak_flops_per_s=_positive(peak_fact),
        wide_flops_per_s=_positive(wide_fact),
        bandwidth_bytes_per_s=_positive(bandwidth),
        capacity_bytes=_positive(capacity),
        unit=unit,
        used=tuple(used),
    )


def need(chip: Chip, field: str, fact: Fact | None) -> Fact:
    """``fact``, or a refusal that names ``field``.

    Raises:
        MissingFact: There is no number.
    """
    if fact is not None and fact.number is not None:
        return fact
    if fact is not None and fact.withheld:
        raise MissingFact("SP-PRED-011", chip=chip.id, field=field)
    raise MissingFact("SP-PRED-010", chip=chip.id, field=field, known=", ".join(sorted(chip.peak_flops_per_s)) or "-")


def _number(fact: Fact | None) -> float | None:
    return None if fact is None else fact.number


def _positive(fact: Fact) -> float:
    number = fact.number
    assert number is not None and number > 0, fact
    return number
