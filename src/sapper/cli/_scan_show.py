"""What ``sapper port scan`` prints for a reader: findings, then the tables of targets and of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit

if TYPE_CHECKING:
    from sapper.port.effort import Range
    from sapper.port.report.judged import Judged
    from sapper.port.report.outcome import Outcome
    from sapper.port.report.summary import ClassSummary, TargetSummary

_AT_ONCE = 500
"""Findings that are printed by one call: a call costs as much as ten lines."""


def show(result: Outcome, fmt: str, *, limit: int | None) -> None:
    """Print ``concise``, ``full`` or ``summary`` to stdout; at most ``limit`` findings."""
    if fmt != "summary":
        _findings(result, fmt, limit)
    _summary(result)


def _findings(result: Outcome, fmt: str, limit: int | None) -> None:
    from sapper.port.report import text

    line: Callable[[Judged], str] = text.concise if fmt == "concise" else text.full
    most = len(result.found) if limit is None else limit
    end = "\n\n" if fmt == "full" else "\n"
    with messages.using(messages.language()):  # asked of the environment once, and not for every finding
        for at in range(0, min(most, len(result.found)), _AT_ONCE):
            click.echo("".join(f"{line(one)}{end}" for one in result.found[at : min(at + _AT_ONCE, most)]), nl=False)
    if len(result.found) > most:
        click.echo(messages.text("port.scan.more", count=f"{len(result.found) - most:,}"))
    if result.found and fmt == "concise":
        click.echo()


def _nothing(result: Outcome) -> str:
    """That nothing was found, and in how much."""
    scan = result.scan
    if scan.says_nothing:
        return messages.text("port.scan.none_read", count=f"{scan.unscanned:,}")
    if not scan.files:
        return messages.text("port.scan.no_files")
    if scan.unscanned:
        return messages.text("port.scan.nothing_in_read", count=f"{scan.unscanned:,}")
    return messages.text("port.scan.nothing")


def _summary(result: Outcome) -> None:
    from sapper.port.effort import LEVEL

    summary = result.summary
    if not summary.findings:
        click.echo(_nothing(result))
        return
    text = "port.scan.ties" if summary.ties else "port.scan.no_ties"
    explained = summary.findings - summary.ties
    values = {"ties": f"{summary.ties:,}", "files": f"{summary.files_with_ties:,}", "silent": f"{summary.silent:,}"}
    click.echo(messages.text(text, explained=f"{explained:,}", **(values if summary.ties else {})))
    if summary.ties:
        click.echo()
        emit([_target(one) for one in summary.by_target], _target_columns(), fmt="table")
        extrapolated = any(one.effort.extrapolated for one in summary.by_target)
        click.echo(messages.text("port.scan.effort_extrapolated" if extrapolated else "port.scan.effort", level=f"{LEVEL:.0%}"))
    click.echo()
    emit([_class(one) for one in summary.by_class], _class_columns(), fmt="table")


def _target_columns() -> list[Column]:
    from sapper.port.report.judged import STATUSES

    columns = [Column("target", "port.column.target")]
    columns += [Column(status, f"port.status.{status}", "right") for status in STATUSES]
    columns.append(Column("silent", "port.column.silent", "right"))
    return [*columns, *(Column(name, f"port.column.{name}", "right", ranged) for name in ("lines", "shim_lines", "files"))]


def _target(one: TargetSummary) -> dict[str, Any]:
    return {
        "target": one.target, **one.verdicts, "silent": one.silent, "lines": one.effort.lines, "files": one.effort.files,
        "shim_lines": one.with_shim.lines if one.with_shim else "-",
    }  # fmt: skip


def ranged(value: Range | str) -> str:
    """``low-high``, or the word that stands for it."""
    if isinstance(value, str):
        return value
    return f"{value.low:,}-{value.high:,}" if value.low != value.high else f"{value.low:,}"


def _class_columns() -> list[Column]:
    from sapper.port.report.judged import STANDINGS

    columns = [Column("class", "port.column.class", show=lambda name: messages.text(f"port.class.{name}"))]
    columns += [Column(standing, f"port.standing.{standing}", "right") for standing in STANDINGS]
    return [*columns, Column("silent", "port.column.silent", "right"), Column("files", "port.column.files", "right")]


def _class(one: ClassSummary) -> dict[str, Any]:
    from sapper.port.report.judged import STANDINGS

    return {"class": one.name, **{name: one.standings.get(name, 0) for name in STANDINGS}, "silent": one.silent, "files": one.files}
