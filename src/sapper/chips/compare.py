"""The A100 question side by side: rows of a comparison, with the ratio of each value to the first chip's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sapper import messages
from sapper.chips.derived import number
from sapper.chips.export_rules import export_arithmetic
from sapper.chips.schema import DTYPES, Chip, Measured, Price
from sapper.evidence import Fact, Grade, worst
from sapper.evidence.fact import letter
from sapper.messages import Phrase

_UNITS = {"int8": "TOP/s", "int4": "TOP/s"}
_SAME = 0.01
"""Peaks of namesakes within this much are the same chip in another package."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value of one chip."""

    value: float | str | None = None
    """In the row's unit, which is a base unit; None: unknown."""
    text: str | None = None
    """What a reader sees instead of the value, where a number is not all."""
    phrase: tuple[str, dict[str, Any]] | None = None
    """A message that a reader sees instead."""
    grade: Grade | None = None
    status: str | None = None
    source: str | None = None
    date: str | None = None
    ratio: float | None = None
    """To the first chip's value."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One property of all chips."""

    key: str
    """Name in JSON and CSV, with the unit as its suffix."""
    label: str
    """Message code."""
    values: dict[str, str] = msgspec.field(default_factory=dict)
    scale: float = 1.0
    """A table divides by it."""
    cells: tuple[Cell, ...]


def comparable(chips: Sequence[Chip]) -> bool:
    """Whether namesakes state the same peaks, so that a comparison may show each of them for one name."""
    for dtype in DTYPES:
        known = [peak for chip in chips if (peak := number(chip.peak_flops_per_s.get(dtype)))]
        if known and max(known) > min(known) * (1 + _SAME):
            return False
    return any(number(fact) for chip in chips for fact in chip.peak_flops_per_s.values())


def comparison(chips: Sequence[Chip]) -> list[Row]:
    """All rows for ``chips``; rows that none of them can fill are left out, except the bf16 peak."""
    rows = [
        _facts(
            chips, f"peak_{dtype}_flops_per_s", "chips.row.peak", _peak(dtype),
            scale=1e12, dtype=dtype, unit=_UNITS.get(dtype, "TFLOP/s"),
        )
        for dtype in DTYPES
        if dtype == "bf16" or any(dtype in chip.peak_flops_per_s for chip in chips)
    ]
    rows += [
        _measured(chips),
        _facts(chips, "memory_bytes", "chips.row.memory", lambda chip: chip.memory.capacity_bytes, scale=2.0**30),
        _texts(chips, "memory_type", "chips.row.memory_type", lambda chip: chip.memory.type),
        _facts(chips, "memory_bytes_per_s", "chips.row.bandwidth", lambda chip: chip.memory.bandwidth_bytes_per_s, scale=1e9),
        _facts(chips, "scale_up_bytes_per_s", "chips.row.scale_up", _scale_up, scale=1e9),
        _texts(chips, "scale_up_name", "chips.row.scale_up_name", lambda chip: chip.scale_up and chip.scale_up.name),
        _topology(chips),
        _texts(chips, "scale_up_domain", "chips.row.domain", lambda chip: chip.scale_up and chip.scale_up.domain_size),
        _facts(chips, "scale_out_bytes_per_s", "chips.row.scale_out", _scale_out, scale=1e9),
        _facts(chips, "tdp_w", "chips.row.power", lambda chip: chip.tdp_w),
        _per_watt(chips),
        _price(chips, per_hour=False),
        _price(chips, per_hour=True),
        _facts(chips, "release", "chips.row.release", lambda chip: chip.release),
        _export(chips),
        _tpp(chips),
        _software(chips),
    ]
    return [row for row in rows if row.key == "peak_bf16_flops_per_s" or any(_known(cell) for cell in row.cells)]


def replacement(chip: Chip) -> tuple[str, dict[str, Any]]:
    """What stands in NVLink's place on ``chip``: a message code and its values."""
    link = chip.scale_up
    if link is None:
        return "chips.nvlink.none", {"chip": chip.name}
    rate = number(link.bandwidth_bytes_per_s)
    pair = number(link.p2p_bytes_per_s)
    unknown = Phrase("chips.unknown")
    size = link.domain_size
    values: dict[str, Any] = {
        "chip": chip.name,
        "name": link.name,
        "rate": unknown if rate is None else f"{short(rate / 1e9)} GB/s",
        "domain": unknown if size is None else str(size),
    }
    if link.topology == "full-mesh" and size and size > 1 and rate is not None:
        each = pair if pair is not None else rate / (size - 1)
        return "chips.nvlink.full-mesh", values | {"pair": f"{short(each / 1e9)} GB/s", "peers": str(size - 1)}
    code = {"full-mesh": "unknown", "torus-2d": "torus", "torus-3d": "torus"}.get(link.topology, link.topology)
    if code == "torus":
        values["axes"] = "2" if link.topology == "torus-2d" else "3"
    return f"chips.nvlink.{code}", values


def short(value: float) -> str:
    """A number with four digits at most behind its first, and thousands apart."""
    magnitude = abs(value)
    places = 0 if magnitude >= 1000 else 1 if magnitude >= 100 else 2 if magnitude >= 1 else 3
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def grade_mark(grade: Grade | None, status: str | None) -> str:
    """The grade's letter; small where a vendor's figure was read at second hand."""
    if grade is None:
        return ""
    return letter(grade).lower() if status == "press_report" and grade == "vendor-claimed" else letter(grade)


def cell_of(fact: Fact | None) -> Cell:
    """A fact as a cell."""
    if fact is None:
        return Cell()
    return Cell(value=fact.value, grade=fact.grade, status=fact.status, source=fact.source, date=fact.date)


def _known(cell: Cell) -> bool:
    return cell.value is not None or cell.text is not None or cell.phrase is not None or cell.status == "withheld"


def _peak(dtype: str) -> Callable[[Chip], Fact | None]:
    return lambda chip: chip.peak_flops_per_s.get(dtype)


def _scale_up(chip: Chip) -> Fact | None:
    return chip.scale_up.bandwidth_bytes_per_s if chip.scale_up else None


def _scale_out(chip: Chip) -> Fact | None:
    return chip.scale_out.bandwidth_bytes_per_s if chip.scale_out else None


def _facts(chips: Sequence[Chip], key: str, label: str, get: Callable[[Chip], Fact | None], *, scale: float = 1.0, **values: str) -> Row:
    return Row(key=key, label=label, values=values, scale=scale, cells=_with_ratios([cell_of(get(chip)) for chip in chips]))


def _with_ratios(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    first = cells[0].value
    if not isinstance(first, (int, float)) or not first:
        return tuple(cells)
    return tuple(
        msgspec.structs.replace(cell, ratio=cell.value / first) if isinstance(cell.value, (int, float)) else cell for cell in cells
    )


def _texts(chips: Sequence[Chip], key: str, label: str, get: Callable[[Chip], Any]) -> Row:
    return Row(key=key, label=label, cells=tuple(Cell(value=get(chip)) for chip in chips))


def _topology(chips: Sequence[Chip]) -> Row:
    cells = []
    for chip in chips:
        known = chip.scale_up and chip.scale_up.topology != "unknown"
        name = chip.scale_up.topology if chip.scale_up and known else None
        cells.append(Cell(value=name, phrase=(f"chips.topology.{name}", {}) if name else None))
    return Row(key="scale_up_topology", label="chips.row.topology", cells=tuple(cells))


def _measured(chips: Sequence[Chip]) -> Row:
    cells = []
    for chip in chips:
        record = best_matmul(chip)
        if record is None or record.value is None:
            cells.append(Cell())
            continue
        share = f" = {record.fraction:.0%}" if record.fraction else ""
        text = f"{short(record.value / 1e12)} {record.dtype}{share}"
        cells.append(
            Cell(value=record.value, text=text, grade=record.grade, status=record.status, source=record.source, date=record.date)
        )
    return Row(key="measured_matmul_flops_per_s", label="chips.row.measured", scale=1e12, cells=_with_ratios(cells))


def best_matmul(chip: Chip) -> Measured | None:
    """The measured dense matmul rate that says most: sustained before single shots, bf16 before fp16, best software first."""
    order = {"matmul_mamf": 0, "matmul": 1}
    found = [
        record for record in chip.measured
        if record.metric in order and record.dtype in ("bf16", "fp16") and record.format is None and record.value is not None
    ]
    return min(found, key=lambda r: (r.dtype != "bf16", order[r.metric], -(r.value or 0.0)), default=None)


def _per_watt(chips: Sequence[Chip]) -> Row:
    cells = []
    for chip in chips:
        peak = next((f for dtype in ("bf16", "fp16") if (f := chip.peak_flops_per_s.get(dtype)) and f.number), None)
        power = chip.tdp_w
        if peak is None or power is None or not peak.number or not power.number:
            cells.append(Cell())
            continue
        grade = worst("derived", peak.grade, power.grade)
        cells.append(Cell(value=peak.number / power.number, grade=grade, status="estimate"))
    return Row(key="peak_flops_per_j", label="chips.row.per_watt", scale=1e12, cells=_with_ratios(cells))


def newest_price(chip: Chip, *, per_hour: bool) -> Price | None:
    """The latest price of a card, or of an hour of it in a cloud."""
    found = [price for price in chip.price if price.per_hour is per_hour and price.amount.number is not None]
    return max(found, key=lambda price: price.amount.date or "", default=None)


def _price(chips: Sequence[Chip], *, per_hour: bool) -> Row:
    cells = []
    for chip in chips:
        price = newest_price(chip, per_hour=per_hour)
        if price is None:
            cells.append(Cell())
            continue
        cell = cell_of(price.amount)
        amount = f"{short(price.amount.number or 0.0)} {price.currency}"
        if price.tax != "unknown":
            amount = f"{amount} {messages.text(f'chips.tax.{price.tax}')}"
        cells.append(msgspec.structs.replace(cell, text=f"{amount} ({price.amount.date})" if price.amount.date else amount))
    kind = "price_per_hour" if per_hour else "price"
    return Row(key=kind, label=f"chips.row.{kind}", cells=tuple(cells))


def _export(chips: Sequence[Chip]) -> Row:
    cells = []
    for chip in chips:
        rules = [rule for rule in chip.export_china if rule.effect != "unclear"]
        if not rules:
            cells.append(Cell())
            continue
        rule = max(rules, key=lambda rule: (rule.effect == "licence-required", rule.date is not None))
        date = min((other.date for other in rules if other.effect == rule.effect and other.date), default=None)
        code = f"chips.effect.{rule.effect}"
        phrase = ("chips.effect.since", {"effect": Phrase(code), "date": date}) if date else (code, {})
        cells.append(Cell(value=rule.effect, phrase=phrase, status=rule.status, source=rule.source, date=date))
    return Row(key="export_to_china", label="chips.row.export", cells=tuple(cells))


def _tpp(chips: Sequence[Chip]) -> Row:
    cells = []
    for chip in chips:
        result = export_arithmetic(chip)
        if result.tpp is None:
            cells.append(Cell())
            continue
        outcome = result.results[1].outcome
        phrase = ("chips.tpp", {"tpp": f"{result.tpp:,.0f}", "outcome": Phrase(f"chips.outcome.{outcome}")})
        cells.append(Cell(value=result.tpp, phrase=phrase, grade="derived", status="estimate"))
    return Row(key="tpp", label="chips.row.tpp", cells=tuple(cells))


def _software(chips: Sequence[Chip]) -> Row:
    def text(chip: Chip) -> str | None:
        if chip.software is None:
            return None
        parts = [part for part in (chip.software.torch_device, chip.software.collective) if part]
        return " / ".join(parts) or chip.software.stack

    return _texts(chips, "software", "chips.row.software", text)
