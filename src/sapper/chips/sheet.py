"""Everything that the catalogue knows of one chip, as lines in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sapper import units
from sapper.chips.compare import short
from sapper.chips.schema import DTYPES, Chip, Measured
from sapper.evidence import Fact, Grade
from sapper.messages import text


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One value with what vouches for it."""

    section: str
    """Message code of its section."""
    field: str
    """As in the chip file."""
    value: float | str | None
    """In the base unit ``unit``."""
    unit: str = ""
    shown: str | None = None
    """With a unit that a reader expects; None: unknown or withheld."""
    grade: Grade | None = None
    status: str | None = None
    source: str | None = None
    date: str | None = None
    source_read: bool | None = None
    primary_cited: str | None = None
    primary_read: bool | None = None
    note: str | None = None


def lines(chip: Chip) -> list[Line]:
    """All facts, measurements and conflicts of ``chip``."""
    return [*_facts(chip), *_prices(chip), *_measurements(chip), *_conflicts(chip), *_claims(chip)]


def _facts(chip: Chip) -> Iterator[Line]:
    for dtype in DTYPES:
        if dtype in chip.peak_flops_per_s:
            yield line(chip.peak_flops_per_s[dtype], f"peak.{dtype}", section="chips.section.peak")
    for dtype, fact in chip.peak_from_clock_flops_per_s.items():
        yield line(fact, f"peak_from_clock.{dtype}", section="chips.section.peak")
    if chip.compute_units is not None:
        units_of = line(chip.compute_units, "matrix.units", section="chips.section.peak")
        array = "x".join(map(str, chip.matrix_array)) if chip.matrix_array else None
        yield msgspec.structs.replace(units_of, note="; ".join(filter(None, (array, chip.compute_units.note))) or None)
    memory = chip.memory
    pools = {"capacity": memory.capacity_bytes, "usable": memory.usable_bytes, "bandwidth": memory.bandwidth_bytes_per_s}
    pools |= {key.removesuffix("_bytes"): fact for key, fact in memory.extra.items()}
    for key, found in pools.items():
        if found is not None:
            yield line(found, f"memory.{key}", section="chips.section.memory")
    for key, fact in chip.onchip_bytes.items():
        yield line(fact, f"onchip.{key}", section="chips.section.memory")
    links: dict[str, Fact | None] = {"host_link.bandwidth": chip.host_link_bytes_per_s}
    if chip.scale_out:
        links = {"scale_out": chip.scale_out.text, "scale_out.bandwidth": chip.scale_out.bandwidth_bytes_per_s} | links
    if chip.scale_up:
        links = {"scale_up.bandwidth": chip.scale_up.bandwidth_bytes_per_s, "scale_up.p2p": chip.scale_up.p2p_bytes_per_s} | links
    for key, found in links.items():
        if found is not None:
            yield line(found, key, section="chips.section.links")
    made = {"tdp": chip.tdp_w, "release": chip.release, "process": chip.process, "die": chip.die_mm2, "transistors": chip.transistors}
    for key, found in made.items():
        if found is not None:
            yield line(found, key, section="chips.section.made")


def _prices(chip: Chip) -> Iterator[Line]:
    for index, price in enumerate(chip.price):
        yield line(price.amount, f"price[{index}]", section="chips.section.price")


def _measurements(chip: Chip) -> Iterator[Line]:
    for record in chip.measured:
        yield Line(
            section="chips.section.measured", field=measured_name(record), value=record.value, unit=record.unit,
            shown=measured_text(record), grade=record.grade, status=record.status, source=record.source, date=record.date,
            source_read=record.source_read, note="; ".join(filter(None, (record.definition, record.note))) or None,
        )


def measured_name(record: Measured) -> str:
    """What was measured, on how many devices and with which dtype."""
    parts = [record.metric, record.dtype, record.format, f"x{record.devices}" if record.devices else None]
    return " ".join(part for part in parts if part)


def measured_text(record: Measured) -> str | None:
    """The figures of a record on one line."""
    parts = [record.text or "", _share(record.value, record.fraction, record)]
    best = _share(record.best_value, record.fraction_best, record)
    if best:
        parts.append(text("chips.measured.best", value=best))
    if record.fraction_range:
        parts.append(f"{record.fraction_range[0]:.1%} - {record.fraction_range[1]:.1%}")
    parts += [f"x{devices}: {amount(value, 'bytes/s')}" for devices, value in record.by_devices.items()]
    if record.message_bytes:
        parts.append(message_size(record.message_bytes))
    if record.latency_s is not None:
        parts.append(text("chips.measured.latency", value=units.duration(record.latency_s)))
    parts += [f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in record.raw.items()]
    return "; ".join(part for part in parts if part) or None


def _share(value: float | None, fraction: float | None, record: Measured) -> str:
    share = None if fraction is None else f"{fraction:.1%}"
    if value is None:
        return share or ""
    shown = amount(value, record.unit, record.dtype)
    if share is None:
        return shown
    if record.refers_to_flops_per_s is None:
        return f"{shown} = {share}"
    return text("chips.measured.of", value=shown, share=share, peak=amount(record.refers_to_flops_per_s, "flop/s", record.dtype))


def message_size(size_bytes: float) -> str:
    """Size of a message in the unit that its digits suit."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes / factor:g} {unit}"
    return units.scaled(size_bytes, "B")


def _conflicts(chip: Chip) -> Iterator[Line]:
    for conflict in chip.conflicts:
        for index, fact in enumerate(conflict.values):
            found = line(fact, conflict.field, section="chips.section.conflicts")
            comment = conflict.comment if index == 0 else None
            yield msgspec.structs.replace(found, note="; ".join(filter(None, (fact.note, comment))) or None)


def _claims(chip: Chip) -> Iterator[Line]:
    for index, fact in enumerate(chip.relative_claims):
        yield line(fact, f"claim[{index}]", section="chips.section.claims")


def line(fact: Fact, field: str, *, section: str) -> Line:
    """A fact as a line."""
    dtype = field.rpartition(".")[2]
    shown = fact.value if isinstance(fact.value, str) else None if fact.value is None else amount(fact.value, fact.unit, dtype)
    return Line(
        section=section, field=field, value=fact.value, unit=fact.unit, shown=shown, grade=fact.grade, status=fact.status,
        source=fact.source, date=fact.date, source_read=fact.source_read, primary_cited=fact.primary_cited,
        primary_read=fact.primary_read, note=fact.note,
    )


def amount(value: float, unit: str, dtype: str | None = None) -> str:
    """A quantity of a base unit as a reader expects it; integer ``dtype`` counts operations, not floating-point ones."""
    if unit == "flop/s":
        return f"{short(value / 1e12)} {'TOP/s' if dtype in ('int8', 'int4') else 'TFLOP/s'}"
    if unit == "bytes/s":
        return f"{short(value / 1e9)} GB/s" if value < 1e12 else f"{short(value / 1e12)} TB/s"
    if unit == "bytes":
        decimal = value % 2**20 != 0 and value % 1e6 == 0
        if decimal:
            return f"{short(value / 1e6)} MB" if value < 1e9 else f"{short(value / 1e9)} GB"
        return units.gib(value, digits=4) if value >= 2**30 else f"{short(value / 2**20)} MiB"
    if not unit:
        return f"{short(value / 1e9)}e9" if value >= 1e9 else short(value)
    return f"{short(value)} {unit}"
