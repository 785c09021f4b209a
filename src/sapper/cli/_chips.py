"""How ``sapper chips show`` and ``compare`` look on a terminal, in JSON and in CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from sapper import messages
from sapper.chips.catalogue import Catalogue
from sapper.chips.compare import Cell, Row, comparison, grade_mark, replacement, short
from sapper.chips.derived import coverage, ridge_flop_per_byte
from sapper.chips.export_rules import ExportArithmetic, export_arithmetic
from sapper.chips.schema import Chip, Software, System
from sapper.chips.sheet import Line, lines
from sapper.cli._help import printable, wrap
from sapper.cli.output import Column, console, emit, emit_json, print_rich, talk

_LABEL = 22
_LEAST = 14
"""Characters that a chip needs in a comparison."""

LINE_FIELDS = (
    "section", "field", "value", "unit", "grade", "status", "source", "date", "source_read", "primary_cited", "primary_read", "note",
)


# -- compare


def compare_chips(chips: Sequence[Chip], *, fmt: str) -> None:
    """Print a comparison; ratios are to the first chip."""
    rows = comparison(chips)
    if fmt == "json":
        emit_json(_compare_json(chips, rows))
        return
    if fmt == "csv":
        keys = ("property", *(chip.id for chip in chips))
        table = [dict(zip(keys, (row.key, *(cell.value for cell in row.cells)), strict=True)) for row in rows]
        emit(table, [Column("property", "chips.column.id"), *(Column(chip.id, "chips.column.id") for chip in chips)], fmt=fmt)
        return
    width = console().width
    room = max(1, (width - _LABEL) // (_LEAST + 1))
    rest = list(range(1, len(chips)))
    step = max(1, room - 1)
    blocks = [rest[start:start + step] for start in range(0, len(rest), step)] or [[]]
    for number, block in enumerate(blocks):
        if number:
            click.echo()
        print_rich(_compare_table(chips, rows, [0, *block], width))
    click.echo()
    click.echo(messages.text("chips.compare.nvlink"))
    for chip in chips:
        code, values = replacement(chip)
        _paragraph(messages.text(code, **values), indent=2)
    click.echo()
    _paragraph(messages.text("chips.compare.legend", first=chips[0].name), indent=0)
    _paragraph(messages.text("chips.legend"), indent=0)


def _compare_table(chips: Sequence[Chip], rows: Sequence[Row], shown: Sequence[int], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=False, overflow="fold", max_width=_LABEL)
    each = max(_LEAST, (width - _LABEL) // len(shown) - 1)
    for index in shown:
        table.add_column(Text(printable(chips[index].name)), overflow="fold", max_width=min(each, 40))
    for row in rows:
        texts = (_cell(row, row.cells[index], ratio=index > 0) for index in shown)
        table.add_row(Text(messages.text(row.label, **row.values)), *(Text(printable(text)) for text in texts))
    return table


def _cell(row: Row, cell: Cell, *, ratio: bool) -> str:
    if cell.phrase is not None:
        body = messages.text(cell.phrase[0], **cell.phrase[1])
    elif cell.text is not None:
        body = cell.text
    elif isinstance(cell.value, (int, float)):
        body = short(cell.value / row.scale)
    elif cell.value is not None:
        body = str(cell.value)
    else:
        return messages.text("chips.withheld" if cell.status == "withheld" else "chips.unknown")
    share = f"{cell.ratio:.2f}x" if ratio and cell.ratio is not None else ""
    return " ".join(part for part in (body, grade_mark(cell.grade, cell.status), share) if part)


def _compare_json(chips: Sequence[Chip], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "chips": [{"id": chip.id, "vendor": chip.vendor, "name": chip.name} for chip in chips],
        "rows": [
            {"key": row.key, "cells": [
                {"chip": chip.id, "value": cell.value, "withheld": cell.status == "withheld", "grade": cell.grade, "status": cell.status,
                 "source": cell.source, "date": cell.date, "ratio": cell.ratio}
                for chip, cell in zip(chips, row.cells, strict=True)
            ]}
            for row in rows
        ],
        "instead_of_nvlink": {chip.id: messages.text((found := replacement(chip))[0], **found[1]) for chip in chips},
    }


# -- show


def show_system(system: System, known: Catalogue, *, fmt: str) -> None:
    """Print a system, with the chip that it is made of."""
    if fmt != "table":
        row = msgspec.to_builtins(system)
        if fmt == "json":
            emit_json(row)
        else:
            emit([row], [Column(key, "chips.column.id") for key in ("id", "vendor", "name", "chip", "count")], fmt=fmt)
        return
    click.echo(f"{system.id}  {printable(system.name)}  ({printable(_vendor(system))})")
    count = messages.text("chips.unknown") if system.count is None else f"{system.count:,}"
    click.echo(messages.text("chips.show.contains", count=count, chip=system.chip))
    for note in system.notes:
        _paragraph(note, indent=2)
    if system.chip in known.chips:
        talk("chips.show.chip", chip=system.chip)


def show_chip(chip: Chip, *, fmt: str) -> None:
    """Print everything that is known of a chip."""
    arithmetic = export_arithmetic(chip)
    if fmt == "json":
        derived = {"coverage": coverage(chip), "ridge_flop_per_byte": ridge_flop_per_byte(chip), "export_arithmetic": arithmetic}
        emit_json(msgspec.to_builtins(chip) | {"derived": msgspec.to_builtins(derived)})
        return
    found = lines(chip)
    if fmt == "csv":
        rows = [{**msgspec.structs.asdict(line), "section": line.section.rpartition(".")[2]} for line in found]
        emit(rows, [Column(key, "chips.column.id") for key in LINE_FIELDS], fmt=fmt)
        return
    _head(chip)
    numbers = _numbered_sources(found)
    print_rich(_sheet(found, numbers))
    _about(chip)
    _print_arithmetic(chip, arithmetic)
    _print_sources(found, numbers)
    click.echo()
    _paragraph(messages.text("chips.legend"), indent=0)


def _vendor(entry: Chip | System) -> str:
    if messages.language() == "zh" and entry.vendor_zh:
        return entry.vendor_zh
    return f"{entry.vendor}, {entry.vendor_zh}" if entry.vendor_zh else entry.vendor


def _head(chip: Chip) -> None:
    click.echo(f"{chip.id}  {printable(chip.name)}  ({printable(_vendor(chip))})")
    if chip.aliases:
        _paragraph(messages.text("chips.show.aliases", aliases=", ".join(chip.aliases)), indent=0)
    counts = coverage(chip)
    parts = {
        "chips.show.arch": chip.arch_class, "chips.show.form": chip.form_factor, "chips.show.memory_type": chip.memory.type,
    }
    click.echo(_joined(*(messages.text(code, value=printable(value)) for code, value in parts.items() if value)))
    click.echo(messages.text("chips.show.coverage", **msgspec.structs.asdict(counts)))
    if chip.devices_note:
        _paragraph(chip.devices_note, indent=0)
    click.echo()


def _numbered_sources(found: Sequence[Line]) -> dict[tuple[Any, ...], int]:
    numbers: dict[tuple[Any, ...], int] = {}
    for line in found:
        numbers.setdefault(_source_key(line), len(numbers) + 1)
    return numbers


def _source_key(line: Line) -> tuple[Any, ...]:
    return (line.source, line.date, line.source_read, line.primary_cited, line.primary_read)


def _sheet(found: Sequence[Line], numbers: dict[tuple[Any, ...], int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
    headings = ("field", "value", "grade", "status", "source", "note")
    limits = {"field": 30, "value": 34}
    for heading in headings:
        kept = heading in ("grade", "status", "source")
        table.add_column(Text(messages.text(f"chips.column.{heading}")), overflow="fold", no_wrap=kept, max_width=limits.get(heading))
    section = None
    for line in found:
        if line.section != section:
            if section is not None:
                table.add_row()
            section = line.section
            table.add_row(Text(messages.text(section), style="bold"))
        missing = messages.text("chips.withheld" if line.status == "withheld" else "chips.unknown")
        if line.section == "chips.section.measured" and line.status != "withheld":
            missing = ""
        status = messages.text(f"chips.status.{line.status}") if line.status else ""
        cells = (f"  {line.field}", line.shown or missing, grade_mark(line.grade, line.status), status)
        table.add_row(*(Text(printable(cell)) for cell in (*cells, f"[{numbers[_source_key(line)]}]", line.note or "")))
    return table


def _about(chip: Chip) -> None:
    """What is no number: links, software, prices' tax, notes."""
    code, values = replacement(chip)
    pairs = [("chips.show.scale_up", messages.text(code, **values))]
    if chip.host_link:
        pairs.append(("chips.show.host", _joined(chip.host_link, chip.host_link_note)))
    if chip.software:
        pairs.append(("chips.show.software", _software(chip.software)))
    if chip.price:
        taxes = sorted({messages.text(f"chips.tax.{price.tax}") for price in chip.price})
        pairs.append(("chips.show.tax", ", ".join(taxes)))
    pairs += [("chips.show.note", note) for note in chip.notes]
    click.echo()
    for label, text in pairs:
        _paragraph(messages.text(label, text=text), indent=0)


def _software(software: Software) -> str:
    named = {
        "device": software.torch_device, "collective": software.collective, "backend": software.dist_backend,
        "warp": software.warp, "source": software.source,
    }
    parts = [software.stack]
    parts += [messages.text(f"chips.software.{key}", value=value) for key, value in named.items() if value is not None and key != "source"]
    parts += [f"{key} {value}" for key, value in software.extra.items()]
    parts.append(software.note)
    if software.source:
        parts.append(messages.text("chips.software.source", value=software.source))
    return _joined(*parts)


def _joined(*parts: str | None) -> str:
    """Clauses of one line, with the semicolon of the language."""
    return messages.text("chips.semicolon").join(part for part in parts if part)


def _print_arithmetic(chip: Chip, result: ExportArithmetic) -> None:
    click.echo()
    click.echo(click.style(messages.text("chips.section.export"), bold=True))
    for rule in chip.export_china:
        effect = messages.text(f"chips.effect.{rule.effect}")
        code = "chips.export.dated" if rule.dates else "chips.export.undated"
        status = messages.text(f"chips.status.{rule.status}")
        text = messages.text(code, effect=effect, dates=", ".join(rule.dates), rule=rule.rule, source=rule.source, status=status)
        _paragraph(text, indent=2)
    unknown = messages.text("chips.unknown")
    text = messages.text(
        "chips.export.numbers",
        tpp=unknown if result.tpp is None else f"{result.tpp:,.0f} ({result.tpp_dtype})",
        density=unknown if result.density is None else f"{result.density:.2f}",
        die=unknown if result.die_mm2 is None else f"{short(result.die_mm2)} mm2",
        io=unknown if result.io_bytes_per_s is None else f"{short(result.io_bytes_per_s / 1e9)} GB/s",
    )
    _paragraph(text, indent=2)
    for found in result.results:
        outcome = messages.text(f"chips.outcome.{found.outcome}")
        if found.missing:
            outcome = messages.text("chips.export.needs", outcome=outcome, fields=", ".join(f"`{name}`" for name in found.missing))
        rule_, condition = found.rule, messages.text(found.rule.condition)
        text = messages.text(
            "chips.export.rule", id=rule_.id, outcome=outcome, condition=condition, source=rule_.source, date=rule_.effective
        )
        _paragraph(text, indent=2)


def _print_sources(found: Sequence[Line], numbers: dict[tuple[Any, ...], int]) -> None:
    click.echo()
    click.echo(click.style(messages.text("chips.section.sources"), bold=True))
    for (source, date, read, cited, cited_read), number in numbers.items():
        parts = [str(source), date]
        parts.append(None if read is None else messages.text("chips.source.read" if read else "chips.source.unread"))
        parts.append(None if cited is None else messages.text("chips.source.cites", page=cited))
        if cited_read is False:
            parts.append(messages.text("chips.source.primary_unread"))
        _paragraph(f"[{number}] {_joined(*parts)}", indent=2, hang=4)


def _paragraph(text: str, *, indent: int, hang: int = 2) -> None:
    """Print a text folded to the terminal's width; wide characters count two."""
    width = console().width
    for number, line in enumerate(wrap(printable(text), max(20, width - indent - hang))):
        click.echo(" " * (indent + (hang if number else 0)) + line)


__all__ = ["compare_chips", "show_chip", "show_system"]
