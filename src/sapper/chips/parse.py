"""One chip file: TOML table in, :class:`~sapper.chips.schema.Chip` or :class:`~sapper.chips.schema.System` out.

The fields are those of docs/chips.md. A file with any fault gives no chip; all its faults are in :class:`Parsed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sapper.chips import ranges
from sapper.chips.faults import EVIDENCE_FIELDS, Fault, Reader, join
from sapper.chips.measured import measured
from sapper.chips.schema import (
    ARCH_CLASSES,
    DTYPES,
    MARKETS,
    TOPOLOGIES,
    Chip,
    Conflict,
    ExportRule,
    MemorySpec,
    Price,
    ScaleOut,
    ScaleUp,
    Software,
    System,
)
from sapper.evidence import Fact
from sapper.files import parse_toml, read_text

KINDS = ("chip", "class", "system")
EFFECTS = ("licence-required", "below-threshold", "china-variant", "entity-list", "not-us-item", "not-sold", "unclear")
TAXES = ("included", "excluded", "unknown")

_NAMING = ("id", "vendor", "vendor_zh", "name", "aliases", "kind", "tags", "notes", "sources")
CHIP_FIELDS = (
    *_NAMING, "arch", "form_factor", "market", "devices_per_card", "devices_note", "release", "process", "die", "transistors", "tdp",
    "matrix", "peak", "peak_from_clock", "memory", "onchip", "scale_up", "scale_out", "host_link", "software", "price", "export",
    "measured", "conflict", "claim",
)
SYSTEM_FIELDS = (*_NAMING, "chip", "count")

_CONFLICT_QUANTITIES = {
    "peak": "peak", "memory.capacity": "capacity", "memory.bandwidth": "bandwidth", "scale_up.bandwidth": "link",
    "host_link.bandwidth": "link", "tdp": "power", "die": "die",
}


class Parsed(msgspec.Struct, frozen=True):
    """What one file gave."""

    entry: Chip | System | None
    """None where there are faults."""
    faults: tuple[Fault, ...]


def parse_file(path: str) -> Parsed:
    """Read one chip file.

    Raises:
        BadFile: Missing, unreadable, not UTF-8 or not TOML.
    """
    text = read_text(path)
    return parse(parse_toml(text, path), where=path, text=text)


def parse(table: Mapping[str, Any], *, where: str, text: str) -> Parsed:
    """The chip or system of a parsed file, or its faults."""
    reader = Reader(table, where=where, text=text)
    kind = reader.choice(table, "kind", "", KINDS) or "chip"
    fields = (_system if kind == "system" else _chip)(reader, kind)
    if reader.faults:
        return Parsed(None, tuple(sorted(reader.faults, key=lambda f: (f.line or 0, f.field))))
    return Parsed(System(**fields) if kind == "system" else Chip(**fields), ())


def _naming(reader: Reader) -> dict[str, Any]:
    table = reader.table
    return {
        "id": _identifier(reader, "id"),
        "vendor": reader.string(table, "vendor", required=True),
        "vendor_zh": reader.string(table, "vendor_zh"),
        "name": reader.string(table, "name", required=True),
        "aliases": reader.strings(table, "aliases"),
        "tags": reader.strings(table, "tags"),
        "notes": reader.strings(table, "notes"),
        "origin": reader.where,
    }


def _identifier(reader: Reader, key: str) -> str | None:
    value = reader.string(reader.table, key, required=True)
    if value is not None and (value != value.lower() or not value.replace("-", "").isalnum() or not value.isascii()):
        reader.fault("SP-CHIP-027", key, value)
    return value


def _system(reader: Reader, _kind: str) -> dict[str, Any]:
    reader.fields(reader.table, "", SYSTEM_FIELDS)
    return _naming(reader) | {
        "chip": _identifier(reader, "chip"),
        "count": reader.integer(reader.table, "count", "", "devices"),
    }


def _chip(reader: Reader, kind: str) -> dict[str, Any]:
    table = reader.table
    reader.fields(table, "", CHIP_FIELDS)
    peak = _peaks(reader, "peak")
    return _naming(reader) | {
        "kind": kind,
        "arch_class": reader.choice(table, "arch", "", ARCH_CLASSES, required=True),
        "form_factor": reader.string(table, "form_factor"),
        "market": reader.choice(table, "market", "", MARKETS),
        "devices_per_card": reader.integer(table, "devices_per_card", "", "per_card"),
        "devices_note": reader.string(table, "devices_note"),
        "release": reader.fact(table, "release", "", None),
        "process": reader.fact(table, "process", "", None),
        "die_mm2": reader.fact(table, "die", "", "die"),
        "transistors": reader.fact(table, "transistors", "", "transistors"),
        "tdp_w": reader.fact(table, "tdp", "", "power"),
        **_matrix(reader),
        "peak_flops_per_s": peak,
        "peak_from_clock_flops_per_s": _peaks(reader, "peak_from_clock"),
        "memory": _memory(reader),
        "onchip_bytes": _onchip(reader),
        "scale_up": _scale_up(reader),
        "scale_out": _scale_out(reader),
        **_host_link(reader),
        "software": _software(reader),
        "price": tuple(filter(None, (_price(reader, item, path) for path, item in reader.tables(table, "price")))),
        "export_china": tuple(_export(reader, item, path) for path, item in reader.tables(table, "export")),
        "measured": tuple(measured(reader, item, path, peak) for path, item in reader.tables(table, "measured")),
        "conflicts": tuple(_conflict(reader, item, path) for path, item in reader.tables(table, "conflict")),
        "relative_claims": tuple(
            fact for path, item in reader.tables(table, "claim") if (fact := reader.fact_of(item, path, None, value_key="text"))
        ),
    }


def _peaks(reader: Reader, key: str) -> dict[str, Fact]:
    table = reader.sub(reader.table, key)
    reader.fields(table, key, DTYPES)
    found = {dtype: reader.fact(table, dtype, key, "peak") for dtype in DTYPES if dtype in table}
    return {dtype: fact for dtype, fact in found.items() if fact is not None}


def _matrix(reader: Reader) -> dict[str, Any]:
    """How the matrix rate is spread over the chip: units, and the array of one of them where it is systolic."""
    table = reader.sub(reader.table, "matrix")
    reader.fields(table, "matrix", ("units", "rows", "columns"))
    rows, columns = (reader.integer(table, key, "matrix", "array") for key in ("rows", "columns"))
    return {
        "compute_units": reader.fact(table, "units", "matrix", "units"),
        "matrix_array": (rows, columns) if rows and columns else None,
    }


def _memory(reader: Reader) -> MemorySpec:
    table = reader.sub(reader.table, "memory")
    reader.fields(table, "memory", ("type", "capacity", "usable", "bandwidth", "ddr"))
    ddr = reader.fact(table, "ddr", "memory", "capacity")
    return MemorySpec(
        type=reader.string(table, "type", "memory"),
        capacity_bytes=reader.fact(table, "capacity", "memory", "capacity"),
        usable_bytes=reader.fact(table, "usable", "memory", "capacity"),
        bandwidth_bytes_per_s=reader.fact(table, "bandwidth", "memory", "bandwidth"),
        extra={"ddr_bytes": ddr} if ddr else {},
    )


def _onchip(reader: Reader) -> dict[str, Fact]:
    table = reader.sub(reader.table, "onchip")
    reader.fields(table, "onchip", ("l2", "sram", "infinity_cache"))
    found = {key: reader.fact(table, key, "onchip", "onchip") for key in ("l2", "sram", "infinity_cache") if key in table}
    return {key: fact for key, fact in found.items() if fact is not None}


def _scale_up(reader: Reader) -> ScaleUp | None:
    if "scale_up" not in reader.table:
        return None
    path, table = "scale_up", reader.sub(reader.table, "scale_up")
    reader.fields(table, path, ("name", "topology", "bandwidth", "p2p", "domain_size"))
    name = reader.string(table, "name", path, required=True)
    topology = reader.choice(table, "topology", path, TOPOLOGIES, required=True)
    return ScaleUp(
        name=name or "?",
        topology=topology or "unknown",
        bandwidth_bytes_per_s=reader.fact(table, "bandwidth", path, "link"),
        p2p_bytes_per_s=reader.fact(table, "p2p", path, "link"),
        domain_size=reader.integer(table, "domain_size", path, "domain"),
    )


def _scale_out(reader: Reader) -> ScaleOut | None:
    if "scale_out" not in reader.table:
        return None
    table = reader.sub(reader.table, "scale_out")
    text = reader.fact_of(table, "scale_out", None, value_key="text", also=("bandwidth",))
    bandwidth = reader.fact(table, "bandwidth", "scale_out", "link")
    return None if text is None else ScaleOut(text=text, bandwidth_bytes_per_s=bandwidth)


def _host_link(reader: Reader) -> dict[str, Any]:
    table = reader.sub(reader.table, "host_link")
    reader.fields(table, "host_link", ("name", "bandwidth", "note"))
    return {
        "host_link": reader.string(table, "name", "host_link"),
        "host_link_bytes_per_s": reader.fact(table, "bandwidth", "host_link", "link"),
        "host_link_note": reader.string(table, "note", "host_link"),
    }


def _software(reader: Reader) -> Software | None:
    if "software" not in reader.table:
        return None
    path, table = "software", reader.sub(reader.table, "software")
    names = ("stack", "torch_device", "collective", "dist_backend", "note", "source")
    reader.fields(table, path, (*names, "warp", "gfx"))
    gfx = reader.string(table, "gfx", path)
    return Software(
        **{name: reader.string(table, name, path) for name in names},
        warp=reader.integer(table, "warp", path, "warp"),
        extra={"gfx": gfx} if gfx else {},
    )


def _price(reader: Reader, table: dict[str, Any], path: str) -> Price | None:
    dimension = ranges.dimension_of(table["amount"]) if isinstance(table.get("amount"), str) else None
    quantity = f"price_{dimension}" if f"price_{dimension}" in ranges.RANGES else "price_USD"
    amount = reader.fact_of(table, path, quantity, value_key="amount", also=("tax", "quantity"))
    if isinstance(table.get("amount"), (int, float)) and amount is not None:
        reader.fault("SP-CHIP-028", join(path, "amount"), table["amount"])
    tax = reader.choice(table, "tax", path, TAXES)
    count = reader.string(table, "quantity", path)
    if amount is None:
        return None
    currency, _, hour = amount.unit.partition("/")
    return Price(amount=amount, currency=currency, per_hour=bool(hour), tax=tax or "unknown", quantity=count)


def _export(reader: Reader, table: dict[str, Any], path: str) -> ExportRule:
    reader.fields(table, path, ("rule", "source", "from", "status", "date", "dates", "effect"))
    rule = reader.string(table, "rule", path, required=True)
    evidence = reader.evidence(table, path)
    dates = tuple(
        day for index in range(len(reader.strings(table, "dates", path)))
        if (day := reader.date({"dates": table["dates"][index]}, "dates", path))
    )
    return ExportRule(
        rule=rule or "?",
        source=evidence["source"],
        date=reader.date(table, "date", path) or (dates[0] if dates else None),
        dates=dates,
        effect=reader.choice(table, "effect", path, EFFECTS) or "unclear",
        status=evidence["status"] or "unsourced",
    )


def _conflict(reader: Reader, table: dict[str, Any], path: str) -> Conflict:
    reader.fields(table, path, ("field", "values", "comment"))
    field = reader.string(table, "field", path, required=True) or "?"
    head = field if field in _CONFLICT_QUANTITIES else field.partition(".")[0]
    quantity = _CONFLICT_QUANTITIES.get(head) if field.count(" ") == 0 else None
    facts = []
    for at, item in reader.tables(table, "values", path):
        text = not isinstance(item.get("value"), str) or ranges.dimension_of(item["value"]) is None
        fact = reader.fact_of(item, at, None if text and isinstance(item.get("value"), str) else quantity)
        if fact is not None:
            facts.append(fact)
    if not facts and not reader.faults:
        reader.fault("SP-CHIP-013", join(path, "values"))
    return Conflict(field=field, values=tuple(facts), comment=reader.string(table, "comment", path))


__all__ = ["CHIP_FIELDS", "EFFECTS", "EVIDENCE_FIELDS", "KINDS", "SYSTEM_FIELDS", "TAXES", "Parsed", "parse", "parse_file"]
