"""``sapper evidence``: import, list, show, export and check the measurements that this machine or a team has gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sapper import messages
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import Column, emit, emit_json, format_option, talk

F = TypeVar("F", bound=Callable[..., Any])

_FILTERS: tuple[Callable[[Any], Any], ...] = (
    click.option("--chip", metavar="NAME", help="evidence.option.chip"),
    click.option("--kind", metavar="KIND", help="evidence.option.kind"),
    click.option("--metric", metavar="METRIC", help="evidence.option.metric"),
    click.option("--dtype", metavar="DTYPE", help="evidence.option.dtype"),
    click.option("--since", metavar="DATE", help="evidence.option.since"),
)


def store_option(function: F) -> F:
    """Adds ``--store URL``, given to the function as ``store``."""
    return click.option("--store", metavar="URL", help="evidence.option.store")(function)


def _filters(function: F) -> F:
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@click.group("evidence", help="cli.help.evidence", no_args_is_help=True)
def command() -> None:
    """The group of verbs."""


@command.command("import", help="evidence.help.import")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--chip", metavar="NAME", help="evidence.option.import_chip")
@click.option("--date", metavar="DATE", help="evidence.option.date")
@click.option(
    "--grade", type=click.Choice(["measured-here", "measured-elsewhere", "vendor-claimed"]), default="measured-elsewhere",
    show_default=True, help="evidence.option.grade",
)
@click.option("--dry-run", is_flag=True, help="evidence.option.dry_run")
@store_option
@format_option
@chips_dir_option
def import_(
    files: tuple[str, ...], chip: str | None, date: str | None, grade: str, dry_run: bool, store: str | None, fmt: str
) -> int:
    """Add what files hold to the store; one transaction per file."""
    from sapper.chips import catalogue
    from sapper.chips.limits import KnownChips
    from sapper.cli import _evidence
    from sapper.evidence.read import Given, read_evidence

    known = KnownChips(catalogue())
    given = Given(chip=_evidence.chip_id(chip), date=date, grade=_evidence.grade_of(grade))
    read = [read_evidence(path, chips=known, given=given) for path in files]
    rows = _evidence.imported(read, store=store, dry_run=dry_run)
    _evidence.print_imported(read, rows, fmt=fmt)
    return 1 if any(file.refused for file in read) else 0


@command.command("list", help="evidence.help.list")
@_filters
@click.option("--history", is_flag=True, help="evidence.option.history")
@click.option("--shipped", is_flag=True, help="evidence.option.shipped")
@store_option
@format_option
@chips_dir_option
def list_(history: bool, shipped: bool, store: str | None, fmt: str, **chosen: str | None) -> None:
    """One line per record."""
    from sapper.cli import _evidence

    records = _evidence.found(store, shipped=shipped, history=history, chosen=chosen)
    if fmt == "json":
        emit_json([_evidence.whole(record) for record in records])
        return
    columns = _evidence.RAW_COLUMNS if fmt == "csv" else _evidence.COLUMNS
    emit([_evidence.row(record) for record in records], columns, fmt=fmt)
    if fmt == "table":
        talk("evidence.list.count", count=len(records))


@command.command("show", help="evidence.help.show")
@click.argument("id_", metavar="ID")
@store_option
@format_option
def show(id_: str, store: str | None, fmt: str) -> None:
    """Every field of one record."""
    from sapper.cli import _evidence

    fields = _evidence.fields(id_, store=store)
    if fmt == "json":
        emit_json(fields)
        return
    rows = [{"field": name, "value": value} for name, value in fields.items()]
    emit(rows, [Column("field", "evidence.column.field"), Column("value", "evidence.column.value", show=_evidence.plain)], fmt=fmt)


@command.command("export", help="evidence.help.export")
@_filters
@click.option("--standing", is_flag=True, help="evidence.option.standing")
@click.option("--out", type=click.Path(), metavar="FILE", help="evidence.option.out")
@store_option
@chips_dir_option
def export(standing: bool, out: str | None, store: str | None, **chosen: str | None) -> None:
    """Write records as JSON Lines."""
    from sapper.cli import _evidence

    records = _evidence.found(store, shipped=False, history=not standing, chosen=chosen)
    _write("".join(f"{record.line}\n" for record in records), out)
    if out is not None:
        talk("evidence.export.done", count=len(records), path=out)


def _write(text: str, out: str | None) -> None:
    import sys

    from sapper.files import write_atomic

    if out is not None:
        write_atomic(out, text)
        return
    # The same bytes whatever the locale: the format is UTF-8.
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))


@command.command("check", help="evidence.help.check")
@store_option
@format_option
def check(store: str | None, fmt: str) -> int:
    """Whether the store is whole."""
    from sapper.evidence import Store
    from sapper.evidence.check import check_store

    with Store.open(store) as opened:
        faults, count, place = check_store(opened), opened.count(), opened.place
    rows = [{"code": fault.code, "id": fault.id, "text": fault.text} for fault in faults]
    if fmt == "table":
        for fault in faults:
            click.echo(f"{fault.text} [{fault.code}]")
    else:
        emit(rows, [Column(key, f"evidence.column.{key}") for key in ("code", "id", "text")], fmt=fmt)
    click.echo(messages.text("evidence.check.faults" if faults else "evidence.check.whole", place=place, count=count, faults=len(faults)),
               err=True)
    return 1 if faults else 0
