"""``sapper clusters``: show what a cluster is made of, and check a cluster file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import Column, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.clusters.sheet import Line

_COLUMNS = ("group", "level", "field", "value", "grade", "source")
_CSV = ("group", "level", "to", "field", "value", "unit", "grade", "source", "date", "note")
_FAULT = ("file", "line", "field", "value", "code", "problem", "expected")


@click.group("clusters", help="clusters.help", short_help="cli.help.clusters", no_args_is_help=True)
def command() -> None:
    """The group of verbs."""


@command.command("show", help="clusters.help.show")
@click.argument("cluster", nargs=-1, required=True)
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="clusters.option.assume")
@format_option
@chips_dir_option
def show(cluster: tuple[str, ...], assume: tuple[str, ...], fmt: str) -> None:
    """The groups and links of a cluster, with their evidence."""
    from sapper.clusters.assume import Assumptions, read_flags
    from sapper.clusters.sheet import lines
    from sapper.clusters.spec import parse_cluster

    assumed = Assumptions.of(read_flags(assume))
    # The words of a spec with spaces may come unquoted: `sapper clusters show 64x ascend-910b3`.
    found = parse_cluster(" ".join(cluster), assumptions=assumed)
    sheet = lines(found)
    if fmt == "json":
        emit_json({
            "name": found.name, "chips": found.chips,
            "groups": [{"name": g.name, "chip": g.chip.id, "nodes": g.nodes, "chips_per_node": g.chips_per_node} for g in found.groups],
            "values": sheet, "unknown": [_place(line) for line in sheet if line.unknown],
        })
    elif fmt == "csv":
        emit([_raw(line) for line in sheet], [Column(key, "clusters.column.field") for key in _CSV], fmt=fmt)
    else:
        title = messages.text("clusters.title", name=found.name, chips=f"{found.chips:,}", groups=len(found.groups))
        columns = [Column(key, f"clusters.column.{key}") for key in _COLUMNS]
        emit(_rows(sheet), columns, fmt=fmt, title=title)
        click.echo(f"\n{messages.text('clusters.legend')}")
        _talk_gaps(sheet)
    for entry in assumed.unused():
        talk("clusters.unused", text=entry.text)


@command.command("check", help="clusters.help.check")
@click.argument("file", type=click.Path())
@format_option
@chips_dir_option
def check(file: str, fmt: str) -> int:
    """Each fault of a cluster file, with its line and what is expected."""
    from sapper.clusters.file import check_cluster

    checked = check_cluster(file)
    rows = [
        {"file": fault.file, "line": fault.line, "field": fault.field, "value": fault.value, "code": fault.code,
         "problem": fault.problem(), "expected": fault.expected()}
        for fault in checked.faults
    ]
    if fmt == "json":
        emit_json(rows)
    elif fmt == "csv":
        emit(rows, [Column(key, "clusters.column.field") for key in _FAULT], fmt=fmt)
    else:
        for fault in checked.faults:
            place = fault.file if fault.line is None else f"{fault.file}:{fault.line}"
            click.echo(f"{place}: {fault.problem()} [{fault.code}]")
            if fault.expected():
                click.echo(f"  -> {fault.expected()}")
    if checked.cluster is not None:
        talk("clusters.checked", file=file, groups=len(checked.cluster.groups), chips=f"{checked.cluster.chips:,}")
        return 0
    talk("clusters.faults", file=file, count=len(rows))
    return 1


def _raw(line: Line) -> dict[str, Any]:
    return {key: getattr(line, key) for key in _CSV}


def _rows(sheet: list[Line]) -> list[dict[str, Any]]:
    """Table rows: names of group and level only where they change, values in human units."""
    rows = []
    before: tuple[str, str] | None = None
    for line in sheet:
        place = (line.group, _level(line))
        same = before is not None and place == before
        rows.append({
            "group": "" if before is not None and line.group == before[0] else line.group,
            "level": "" if same else place[1],
            "field": messages.text(f"clusters.field.{line.field}"),
            "value": _shown(line), "grade": _grade(line), "source": _source(line),
        })
        before = place
    return rows


def _level(line: Line) -> str:
    return messages.text(f"clusters.level.{line.level}", to=line.to) if line.to else messages.text(f"clusters.level.{line.level}")


def _shown(line: Line) -> str | None:
    from sapper import units
    from sapper.clusters.assume import J_PER_KWH

    value = line.value
    if line.field == "topology" and value is not None:
        return messages.text(f"chips.topology.{value}")
    if value is None or isinstance(value, str):
        return value
    if line.unit == "bytes/s":
        return units.scaled(value, "B/s")
    if line.unit == "s":
        return units.duration(value)
    if line.unit == "W":
        return units.scaled(value, "W")
    if line.unit.endswith("/J"):
        return f"{value * J_PER_KWH:.3g} {line.unit.removesuffix('/J')}/kWh"
    return f"{value:,g}"


def _grade(line: Line) -> str:
    from sapper.evidence.fact import letter

    return letter(line.grade) if line.grade is not None and not line.unknown else ""


def _source(line: Line) -> str:
    if line.source is None or line.source.startswith("not in the "):
        return messages.text("clusters.nowhere") if line.source else ""
    return line.source if line.date is None else f"{line.source} ({line.date})"


def _place(line: Line) -> str:
    return ".".join(filter(None, (line.group, line.level, line.field)))


def _talk_gaps(sheet: list[Line]) -> None:
    """Unknown values, on stderr."""
    gaps = [
        f"{line.group}: {_level(line)}, {messages.text(f'clusters.field.{line.field}')}"
        for line in sheet if line.unknown and not line.to
    ]
    if gaps:
        talk("clusters.unknown", what="; ".join(gaps))
