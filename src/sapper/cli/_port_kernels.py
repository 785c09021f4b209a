"""``sapper port kernels``: which kernels need more than a rename, with the lines, and what that means on each target."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.port.kernels.triage import Survey, Triage

FORMATS = ("table", "json", "csv")
MOST_LINES = 6
"""Line numbers of one kind of work in a row of the table."""
MOST_UNREAD = 10

_FILES = [
    Column("path", "port.kernels.column.path"),
    Column("kernels", "port.kernels.column.kernels", "right"),
    Column("kind", "port.kernels.column.kind", show=lambda kind: messages.text(f"port.kernels.kind.{kind}")),
    Column("lines", "port.kernels.column.lines"),
]
_WORK = [
    Column("work", "port.kernels.column.work"),
    Column("target", "port.column.target"),
    Column("status", "port.column.status", show=lambda status: messages.text(f"port.status.{status}")),
    Column("equivalent", "port.column.equivalent"),
    Column("note", "port.kernels.column.note"),
    Column("source", "port.column.source"),
]


@click.command("kernels", help="port.kernels.help")
@click.argument("path", type=click.Path(), default=".")
@click.option("--to", "to", multiple=True, metavar="TARGET,...", help="port.kernels.option.to")
@click.option("--lines", "with_lines", is_flag=True, help="port.kernels.option.lines")
@click.option("--exclude", multiple=True, metavar="GLOB", help="port.scan.option.exclude")
@click.option("--format", "fmt", type=click.Choice(FORMATS), default="table", show_default=True, help="cli.option.format")
def command(path: str, to: tuple[str, ...], with_lines: bool, exclude: tuple[str, ...], fmt: str) -> int:
    """Exit code 1 where a kernel needs more than a rename, 0 where none does."""
    from sapper.port import target as targets
    from sapper.port.kernels import survey

    wanted = [targets.find(name) for name in dict.fromkeys(name for names in to for name in names.split(",") if name.strip())]
    found = survey(path, exclude=exclude)
    for one in found.unread[:MOST_UNREAD]:
        talk("port.scan.unread", place=one.path, why=messages.text(one.code, **one.values), code=one.code)
    rows = _consequences(found, [target.name for target in wanted])
    if fmt == "json":
        emit_json({"root": found.root, "files": found.files, "unread": found.unread, "work": rows})
    elif fmt == "csv":
        emit([_row(file, most=None) for file in found.files], _FILES, fmt="csv")
    else:
        _print(found, rows, with_lines=with_lines)
    return int(any(file.kind != "rename" for file in found.files))


def _print(found: Survey, rows: list[dict[str, Any]], *, with_lines: bool) -> None:
    from sapper.port.kernels.work import label

    if not found.files:
        click.echo(messages.text("port.kernels.nothing", root=found.root))
        return
    emit([_row(file, most=MOST_LINES) for file in found.files], _FILES, fmt="table")
    if with_lines:
        for file, line in ((one, line) for one in found.files for line in one.lines):
            click.echo(" ".join((f"{file.path}:{line.line}:", line.code, f"{label(line.work)}:", line.excerpt)))
    click.echo()
    counts = found.count()
    click.echo(messages.text("port.kernels.summary", files=len(found.files), kernels=sum(file.kernels for file in found.files), **counts))
    if rows:
        click.echo()
        emit(rows, _WORK, fmt="table")


def _row(file: Triage, *, most: int | None) -> dict[str, Any]:
    from sapper.port.kernels.work import label

    works = []
    for work, lines in itertools.groupby(sorted(file.lines, key=lambda line: (line.work, line.line)), key=lambda line: line.work):
        numbers = [str(line.line) for line in lines]
        more = "" if most is None or len(numbers) <= most else f" +{len(numbers) - most}"
        works.append(f"{label(work)} {' '.join(numbers[:most])}{more}")
    return {"path": file.path, "kernels": file.kernels, "kind": file.kind, "lines": "; ".join(works)}


def _consequences(found: Survey, names: list[str]) -> list[dict[str, Any]]:
    """What each kind of work that occurs means on each target that is asked for."""
    from sapper.port import target as targets
    from sapper.port.kernels import consequence
    from sapper.port.kernels.work import label

    rows = []
    for line in found.representatives():
        for name in names:
            cell = consequence(line, found.root, targets.find(name))
            note = cell.note_zh if messages.language() == "zh" else cell.note_en
            rows.append(
                {
                    "work": label(line.work), "target": targets.label(targets.find(name)), "status": cell.status, "silence": cell.silence,
                    "equivalent": cell.equivalent, "note": note, "source": cell.source, "date": cell.date,
                }
            )  # fmt: skip
    return rows
