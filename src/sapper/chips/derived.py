"""What follows from a chip file and is therefore computed and not stored: ridge point, counts, the facts themselves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sapper.chips.schema import Chip
from sapper.evidence import Fact

_RIDGE_DTYPES = ("bf16", "fp16")


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much is known of a chip, and how well."""

    values: int
    """Values with a source, prices and claims included; measurements and withheld values apart."""
    unsourced: int
    """Values that nobody's page vouches for."""
    withheld: int
    measured: int
    conflicts: int


def facts(chip: Chip) -> Iterator[tuple[str, Fact]]:
    """Every value of a chip by the field that holds it in its file; prices, conflicts and claims apart."""
    single = {
        "release": chip.release, "process": chip.process, "die": chip.die_mm2, "transistors": chip.transistors,
        "tdp": chip.tdp_w, "matrix.units": chip.compute_units,
        "memory.capacity": chip.memory.capacity_bytes, "memory.usable": chip.memory.usable_bytes,
        "memory.bandwidth": chip.memory.bandwidth_bytes_per_s, "host_link.bandwidth": chip.host_link_bytes_per_s,
    }
    if chip.scale_up:
        single |= {"scale_up.bandwidth": chip.scale_up.bandwidth_bytes_per_s, "scale_up.p2p": chip.scale_up.p2p_bytes_per_s}
    if chip.scale_out:
        single["scale_out"] = chip.scale_out.text
    for field, fact in single.items():
        if fact is not None:
            yield field, fact
    for table, many in (
        ("peak", chip.peak_flops_per_s), ("peak_from_clock", chip.peak_from_clock_flops_per_s), ("onchip", chip.onchip_bytes),
        ("memory", {key.removesuffix("_bytes"): fact for key, fact in chip.memory.extra.items()}),
    ):
        for key, fact in many.items():
            yield f"{table}.{key}", fact


def coverage(chip: Chip) -> Coverage:
    """Counts of what is known of ``chip``."""
    known = [fact for _, fact in facts(chip)] + [price.amount for price in chip.price] + list(chip.relative_claims)
    withheld = sum(fact.withheld for fact in known)
    return Coverage(
        values=len(known) - withheld,
        unsourced=sum(fact.status == "unsourced" for fact in known),
        withheld=withheld,
        measured=sum(record.status != "withheld" for record in chip.measured),
        conflicts=len(chip.conflicts),
    )


def ridge_flop_per_byte(chip: Chip) -> float | None:
    """Arithmetic intensity in FLOP/byte above which dense bf16 (else fp16) is bound by compute; None where unknown.

    Roofline: Williams, Waterman, Patterson, CACM 52(4), 2009, doi:10.1145/1498765.1498785.
    """
    peak = next((found for dtype in _RIDGE_DTYPES if (found := number(chip.peak_flops_per_s.get(dtype)))), None)
    bandwidth = number(chip.memory.bandwidth_bytes_per_s)
    return peak / bandwidth if peak and bandwidth else None


def number(fact: Fact | None) -> float | None:
    """The number of a fact; None where there is no fact, no value or no number."""
    return None if fact is None else fact.number
