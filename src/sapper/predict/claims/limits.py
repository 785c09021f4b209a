"""Limits: the most that the chips of a row can do, from the catalogue alone."""

from __future__ import annotations

import re

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.chips.schema import Chip
from sapper.errors import SapperError
from sapper.evidence import Fact
from sapper.predict.rows.chips_of import chip_of
from sapper.predict.rows.row import Row, RowFault
from sapper.workloads.op import DTYPE_BYTES

_WIDTHS: tuple[tuple[float, str], ...] = (
    (0.5, r"fp4|int4|float4|bfp4|\bw4|4-?bit|awq|gptq|nf4"),
    (1.0, r"fp8|float8|int8|bfp8|e4m3|\bw8|8-?bit|aqt"),
    (2.0, r"bf16|bfloat16|fp16|float16|\bhalf\b|\bamp\b|16-?bit"),
    (4.0, r"fp32|float32|tf32|single|32-?bit"),
)
"""Bytes of a weight by the words of a precision, narrowest first."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """One chip of a row; None where the catalogue does not know."""

    chip: str
    """Catalogue id."""
    peak_flops_per_s: float | None
    """Dense, at the fastest dtype that the row's precision may mean."""
    bandwidth_bytes_per_s: float | None
    capacity_bytes: float | None
    power_w: float | None
    """Of the board."""
    devices: int
    """Dies or cores of a chip that a program may count as devices."""


def limits_of(row: Row, catalogue: Catalogue) -> Limits | None:
    """What one chip of the row can do at most; None where the catalogue does not know the chip."""
    try:
        chip, _ = chip_of(row, catalogue)
    except (RowFault, SapperError):
        return None
    memory = chip.memory
    pools = [number(memory.capacity_bytes), *(number(fact) for name, fact in memory.extra.items() if name.endswith("_bytes"))]
    known = [value for value in pools if value is not None]
    return Limits(
        chip=chip.id, peak_flops_per_s=_peak(chip, width_bytes(row.precision)), bandwidth_bytes_per_s=number(memory.bandwidth_bytes_per_s),
        capacity_bytes=sum(known) if known else None, power_w=number(chip.tdp_w),
        devices=chip.devices_per_card or 1,
    )


def number(fact: Fact | None) -> float | None:
    """The best estimate of a fact; None where it is unknown."""
    return None if fact is None else fact.number


def width_bytes(precision: str | None) -> float | None:
    """Bytes of a weight in the narrowest dtype that the words name; None where they name none."""
    words = re.sub(r"\([^)]*off[^)]*\)", " ", (precision or "").lower())
    return next((width for width, pattern in _WIDTHS if re.search(pattern, words)), None)


def _peak(chip: Chip, width: float | None) -> float | None:
    """Dense FLOP/s (or op/s) that matmuls of that width cannot exceed.

    Without a width: the fastest of all. Where the catalogue has no peak at the width, the hardware may double the next
    wider one, so twice that is the bound. The fp32 peak of data sheets is that of the vector units; matrix units that
    multiply fp32 do twice that (CDNA 2), and few catalogues list them.
    """
    peaks = {name: value for name, fact in chip.peak_flops_per_s.items() if (value := number(fact)) is not None and value > 0}
    if width is None:
        return max(peaks.values(), default=None)
    at_width = [value for name, value in peaks.items() if DTYPE_BYTES.get(name) == width]
    wider = [value for name, value in peaks.items() if DTYPE_BYTES.get(name, 0.0) > width]
    if width == DTYPE_BYTES["fp32"] and "fp32" in peaks:
        at_width.append(2.0 * peaks["fp32"])
    return max([*at_width, *wider] if at_width else [2.0 * value for value in wider], default=None)
