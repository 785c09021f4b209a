"""``sapper calibrate``: let a user's own runs and probes correct the predictions, and say by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.chips import chips_dir_option
from sapper.cli.evidence import store_option
from sapper.cli.output import Column, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.predict.calibrate import Calibration

MOST_MOVED = 8
"""Constants in the table; JSON has all."""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


_COLUMNS = [
    Column("chip", "calibrate.column.chip"),
    Column("kind", "calibrate.column.kind", show=lambda value: messages.text(f"calibrate.kind.{value}")),
    Column("runs", "calibrate.column.runs", "right"),
    Column("error_before", "calibrate.column.error_before", "right", show=_percent),
    Column("error_after", "calibrate.column.error_after", "right", show=_percent),
    Column("width_before", "calibrate.column.width_before", "right", show=_percent),
    Column("width_after", "calibrate.column.width_after", "right", show=_percent),
]
_MOVED = [
    Column("chip", "calibrate.column.chip"),
    Column("kind", "calibrate.column.kind", show=lambda value: messages.text(f"calibrate.kind.{value}")),
    Column("constant", "calibrate.column.constant"),
    Column("unit", "calibrate.column.unit"),
    Column("before", "calibrate.column.before", "right", show=lambda value: f"{value:.3g}"),
    Column("after", "calibrate.column.after", "right", show=lambda value: f"{value:.3g}"),
]


@click.command("calibrate", help="cli.help.calibrate.long")
@click.option("--from", "files", required=True, multiple=True, type=click.Path(), metavar="FILE", help="calibrate.option.from")
@click.option("--chip", metavar="NAME", help="evidence.option.import_chip")
@click.option("--date", metavar="DATE", help="evidence.option.date")
@click.option("--dry-run", is_flag=True, help="calibrate.option.dry_run")
@store_option
@format_option
@chips_dir_option
def command(files: tuple[str, ...], chip: str | None, date: str | None, dry_run: bool, store: str | None, fmt: str) -> int:
    """Exit code 1 where something of the files was refused."""
    import datetime

    from sapper.chips import catalogue
    from sapper.chips.limits import KnownChips
    from sapper.cli import _evidence
    from sapper.evidence import Store
    from sapper.evidence.read import Given, placed, read_evidence
    from sapper.predict.calibrate import calibrate
    from sapper.predict.own import Own

    known = catalogue()
    given = Given(chip=_evidence.chip_id(chip), date=date or datetime.date.today().isoformat(), grade="measured-here")
    read = [read_evidence(path, chips=KnownChips(known), given=given) for path in files]
    records = [record for file in read for record in file.records]
    for file in read:
        for where, remark in placed(file):
            talk("calibrate.remark", where=where, reason=remark.text)
    with Store.open(store) as opened:
        report = calibrate(Own(tuple(opened.records())), records, known)
        kept = 0 if dry_run else opened.append(records).added
        place = opened.place
    if fmt == "json":
        emit_json({"calibration": report, "kept": kept, "store": None if dry_run else place})
    else:
        _show(report, fmt=fmt)
        talk("calibrate.dry_run" if dry_run else "calibrate.kept", count=kept, store=place)
    return 1 if report.refused or any(file.refused for file in read) else 0


def _show(report: Calibration, *, fmt: str) -> None:
    import msgspec

    def rows(found: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [msgspec.structs.asdict(one) for one in found]

    for refused in report.refused:
        talk("calibrate.refused", run=refused.row_id, reason=refused.text)
    if report.calibrated or fmt == "csv":
        emit(rows(report.calibrated), _COLUMNS, fmt=fmt)
    if fmt == "csv":
        return
    for chip, count in report.probes.items():
        click.echo(messages.text("calibrate.probes", chip=chip, count=count))
    if report.moved:
        click.echo()
        emit(rows(report.moved[:MOST_MOVED]), _MOVED, fmt=fmt, title=messages.text("calibrate.moved"))
    if not report.calibrated and not report.moved:
        click.echo(messages.text("calibrate.nothing"))
