"""Measured records of a chip file, each attached to the peak that it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sapper.chips import ranges
from sapper.chips.faults import EVIDENCE_FIELDS, Reader, join
from sapper.chips.schema import Measured
from sapper.evidence import Fact

FIELDS = (
    "metric", "dtype", "format", "value", "best", "text", "fraction", "fraction_best", "fraction_range", "devices", "by_devices",
    "latency", "message", "peak", "definition", "details", *EVIDENCE_FIELDS,
)
_SAME_PEAK = 0.02
"""A published fraction has two or three digits, so the peak that it implies is known to about this much."""


def measured(reader: Reader, table: dict[str, Any], path: str, peak: Mapping[str, Fact]) -> Measured:
    """One ``[[measured]]`` table.

    Args:
        reader: Notes the faults.
        table: The record.
        path: Its place, such as ``measured[2]``.
        peak: The chip's peaks by dtype, for the one that a fraction refers to.
    """
    reader.fields(table, path, FIELDS)
    evidence = reader.evidence(table, path, status="measured")
    value, unit = _valued(reader, table, "value", path)
    best, best_unit = _valued(reader, table, "best", path)
    if unit and best_unit and unit != best_unit:
        reader.fault("SP-CHIP-029", join(path, "best"), table["best"], unit=unit)
    dtype = reader.string(table, "dtype", path)
    fraction = _fraction(reader, table, "fraction", path)
    fraction_best = _fraction(reader, table, "fraction_best", path)
    stated = reader.quantity(table["peak"], join(path, "peak"), "peak") if "peak" in table else None
    refers = stated
    if refers is None and (unit or best_unit) == "flop/s":
        refers = _implied(value, fraction, dtype, peak) or _implied(best, fraction_best, dtype, peak)
    record = Measured(
        metric=reader.string(table, "metric", path, required=True) or "?",
        dtype=dtype,
        format=reader.string(table, "format", path),
        value=value,
        unit=unit or best_unit,
        best_value=best,
        text=reader.string(table, "text", path),
        fraction=fraction,
        fraction_best=fraction_best,
        fraction_range=_range(reader, table, path),
        devices=reader.integer(table, "devices", path, "devices"),
        by_devices=_by_devices(reader, table, path),
        latency_s=reader.quantity(table["latency"], join(path, "latency"), "latency") if "latency" in table else None,
        message_bytes=reader.quantity(table["message"], join(path, "message"), "message") if "message" in table else None,
        refers_to_flops_per_s=refers,
        definition=reader.string(table, "definition", path),
        source=evidence["source"],
        date=evidence.get("date"),
        grade=evidence["grade"],
        status=evidence["status"],
        source_read=evidence.get("source_read"),
        note=evidence.get("note"),
        raw=dict(reader.sub(table, "details", path)),
    )
    if not _says(record):
        reader.fault("SP-CHIP-030", path)
    return record


def _says(record: Measured) -> bool:
    return record.status == "withheld" or any(
        (record.value, record.best_value, record.text, record.fraction, record.fraction_best, record.fraction_range,
         record.by_devices, record.latency_s, record.note, record.raw)
    )


def _valued(reader: Reader, table: dict[str, Any], key: str, path: str) -> tuple[float | None, str]:
    if key not in table:
        return None, ""
    text = table[key]
    dimension = ranges.dimension_of(text) if isinstance(text, str) else None
    if dimension not in ranges.OF_DIMENSION:
        reader.fault("SP-CHIP-031", join(path, key), text)
        return None, ""
    quantity = ranges.OF_DIMENSION[dimension]
    if quantity == "bandwidth":
        quantity = "link"  # a measured rate may be that of a slow link
    return reader.quantity(text, join(path, key), quantity), dimension


def _fraction(reader: Reader, table: dict[str, Any], key: str, path: str) -> float | None:
    return reader.number(table[key], join(path, key), "fraction") if key in table else None


def _range(reader: Reader, table: dict[str, Any], path: str) -> tuple[float, float] | None:
    if "fraction_range" not in table:
        return None
    at, value = join(path, "fraction_range"), table["fraction_range"]
    if not isinstance(value, list) or len(value) != 2:
        reader.fault("SP-CHIP-032", at, value)
        return None
    low, high = (reader.number(item, f"{at}[{index}]", "fraction") for index, item in enumerate(value))
    if low is None or high is None:
        return None
    if low > high:
        reader.fault("SP-CHIP-032", at, value)
        return None
    return low, high


def _by_devices(reader: Reader, table: dict[str, Any], path: str) -> dict[str, float]:
    found = {}
    at = join(path, "by_devices")
    for key, value in reader.sub(table, "by_devices", path).items():
        if not (key.isascii() and key.isdigit() and int(key) > 0):
            reader.fault("SP-CHIP-033", join(at, key), value)
            continue
        number = reader.quantity(value, join(at, key), "link")
        if number is not None:
            found[key] = number
    return found


def _implied(value: float | None, fraction: float | None, dtype: str | None, peak: Mapping[str, Fact]) -> float | None:
    """The peak that ``value`` is ``fraction`` of: the chip's own where it agrees, else the quotient."""
    if not value or not fraction:
        return None
    quotient = value / fraction
    near = [known for name, fact in peak.items() if (known := fact.number) and abs(known / quotient - 1) <= _SAME_PEAK
            and (dtype is None or name == dtype)]
    return min(near, key=lambda known: abs(known / quotient - 1)) if near else quotient
