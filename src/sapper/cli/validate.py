"""``sapper validate``: predict published measurements and print how far off each one is."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, format_option, talk
from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.predict.rows import Rows
    from sapper.predict.rows.scores import Scored, Summary
    from sapper.predict.validate import Report


@click.command("validate", help="cli.help.validate.long")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--leave-out", type=click.Choice(["chip", "vendor", "source", "model", "time", "none"]), default="chip", show_default=True,
    help="validate.option.leave_out",
)
@click.option("--cut", metavar="YEAR", help="validate.option.cut")
@click.option("--level", default="0.8", show_default=True, metavar="SHARE", help="validate.option.level")
@click.option("--confidence", default="high", show_default=True, metavar="LIST", help="validate.option.confidence")
@click.option("--worst", type=click.IntRange(0, 1000), default=5, show_default=True, help="validate.option.worst")
@click.option("--claims", is_flag=True, help="validate.option.claims")
@click.option("--bars", is_flag=True, help="validate.option.bars")
@format_option
def command(
    files: tuple[str, ...], leave_out: str, cut: str | None, level: str, confidence: str, worst: int, claims: bool, bars: bool, fmt: str
) -> None:
    """Score the predictions of the files' rows, or check what the rows claim; without a file, of the measurements that ship."""
    from sapper.predict.kinds import KINDS
    from sapper.predict.rows.read import read_all
    from sapper.predict.rows.shipped import SHIPPED, shipped_path

    _refuse_idle_flags("--bars" if bars else "--claims" if claims else None, leave_out)
    if bars:
        _measure_bars(files, fmt)
        return
    shipped = SHIPPED if claims else [name for entry in KINDS.values() for name in entry.files]
    given = read_all(files or [shipped_path(name) for name in shipped])
    for refused in given.refused:
        talk("SP-VAL-002", path=refused.path or given.path, line=refused.line, reason=refused.text)
    if claims:
        _check(given, fmt)
        return
    if len(given.rows) > _MANY and leave_out != "none":
        talk("SP-VAL-007", rows=len(given.rows))
    report = _scored(given, leave_out=leave_out, cut=cut, level=level, confidence=confidence)
    if fmt == "json":
        emit_json(report)
    elif fmt == "csv":
        emit([_raw(row) for row in report.rows], _ROW_COLUMNS, fmt=fmt)
    else:
        _tables(report, worst)


def _refuse_idle_flags(instead: str | None, leave_out: str) -> None:
    """Refuse a flag that the line gives and the question makes no use of: silence would read as if it had counted."""
    idle = {"claims"} if instead == "--bars" else set()
    if instead is not None:
        idle |= {"leave_out", "cut", "level", "confidence", "worst"}
    elif leave_out != "time":
        idle.add("cut")
    context = click.get_current_context()
    for name in sorted(idle):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "--" + name.replace("_", "-")
            raise BadValue("SP-VAL-008", where=flag, beside=instead or f"--leave-out {leave_out}")


def _measure_bars(files: tuple[str, ...], fmt: str) -> None:
    """The promises of predict, on the rows that ship."""
    from sapper.chips import catalogue
    from sapper.cli._bars import emit_bars
    from sapper.predict.bars import bars

    if files:
        raise BadValue("SP-VAL-006", where="--bars", value=files[0])
    emit_bars(bars(catalogue()), fmt=fmt)


def _check(given: Rows, fmt: str) -> None:
    """Flag what cannot be true; exit 1 where anything is flagged."""
    from sapper.chips import catalogue
    from sapper.cli._claims import emit_claims
    from sapper.predict.claims import check
    from sapper.predict.rows.shipped import SHIPPED, shipped_rows

    beside = [row for name in SHIPPED for row in shipped_rows(name).rows]
    checked = check(given.rows, catalogue(), beside=beside)
    emit_claims(given, checked, fmt=fmt)
    if checked.findings:
        sys.exit(1)


def _scored(given: Rows, *, leave_out: str, cut: str | None, level: str, confidence: str) -> Report:
    """The report that the options ask for."""
    from sapper.chips import catalogue
    from sapper.predict.kinds import KINDS
    from sapper.predict.splits import CUT_YEAR, LEAVE_OUT, year_of
    from sapper.predict.validate import confidences, level_of, validate

    return validate(
        given, {kind: entry.predictor() for kind, entry in KINDS.items()}, catalogue=catalogue(),
        leave_out=next((name for name in LEAVE_OUT if name == leave_out), None), confidence=confidences(confidence),
        level=level_of(level), cut_year=year_of(cut) if cut else CUT_YEAR,
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}%"


def _short(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _group_columns(label: str) -> list[Column]:
    return [
        Column("group", label),
        Column("n", "validate.rows", "right"),
        Column("answered", "validate.answered", "right"),
        Column("median_abs", "validate.median", "right", _percent),
        Column("mean_abs", "validate.mean", "right", _percent),
        Column("max_abs", "validate.max", "right", _percent),
        Column("bias", "validate.bias", "right", _signed),
        Column("coverage", "validate.coverage", "right", _percent),
        Column("width", "validate.width", "right", _percent),
    ]


_ROW_COLUMNS = [
    Column(key, f"validate.{key}")
    for key in (
        "id", "source", "chip", "vendor", "confidence", "metric", "unit", "measured", "predicted", "low", "high", "error",
        "optimism", "inside", "impossible", "in_training", "code", "field", "reason",
    )
]

_WORST_COLUMNS = [
    Column("id", "validate.id"),
    Column("unit", "validate.unit"),
    Column("measured", "validate.measured", "right", _short),
    Column("predicted", "validate.predicted", "right", _short),
    Column("low", "validate.low", "right", _short),
    Column("high", "validate.high", "right", _short),
    Column("error", "validate.error", "right", _signed),
]

_MANY = 2_000
"""Rows from which somebody who waits is told so."""
_MOST_LISTED = 20
"""Rows without an answer that a terminal lists one by one."""
_UNANSWERED_COLUMNS = [Column("id", "validate.id"), Column("field", "validate.field"), Column("reason", "validate.reason")]


def _raw(row: Scored) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in _ROW_COLUMNS}


def _tables(report: Report, worst: int) -> None:
    """The report on a terminal: groups, the whole, the worst rows, and what could not be answered."""
    click.echo(_method(report))
    for title, groups in (("validate.chip", report.by_chip), ("validate.source", report.by_source), ("validate.vendor", report.by_vendor)):
        click.echo()
        emit([_group(name, groups[name]) for name in groups], _group_columns(title), fmt="table")
    click.echo()
    whole = [_group(messages.text("validate.all"), report.summary), _group(messages.text("validate.naive"), report.naive)]
    emit(whole, _group_columns("validate.all_rows"), fmt="table")
    if report.other_confidence:
        click.echo()
        kinds = ", ".join(f"{name} ({count:,})" for name, count in report.other_confidence.items())
        click.echo(messages.text("validate.other_confidence", kinds=kinds))
    if report.flagged:
        click.echo()
        flagged = len({flag.id for flag in report.flagged})
        click.echo(messages.text("validate.flagged", flagged=flagged))
    if report.summary.impossible:
        mean = messages.text("cli.unknown") if report.summary.mean_abs_all is None else _percent(report.summary.mean_abs_all)
        click.echo(messages.text("validate.beyond", count=report.summary.impossible, mean=mean))
    scored = [row for row in report.rows if row.error is not None and not row.impossible]
    ranked = sorted(scored, key=lambda row: -abs(row.error or 0.0))[:worst]
    if ranked:
        click.echo()
        columns = _WORST_COLUMNS
        emit([{column.key: getattr(row, column.key) for column in columns} for row in ranked], columns, fmt="table",
             title=messages.text("validate.worst", count=len(ranked)))
    missing = [row for row in report.rows if row.predicted is None]
    if missing:
        click.echo()
        lines, columns = _unanswered(missing)
        emit(lines, columns, fmt="table", title=messages.text("validate.unanswered", count=len(missing)))


def _unanswered(missing: list[Scored]) -> tuple[list[dict[str, Any]], list[Column]]:
    """Row by row where they are few, else counted by source and reason."""
    if len(missing) <= _MOST_LISTED:
        return [{"id": row.id, "field": row.field, "reason": row.reason} for row in missing], _UNANSWERED_COLUMNS
    counted = Counter((row.family, row.field, row.reason) for row in missing)
    lines = [{"n": count, "family": family, "field": field, "reason": reason} for (family, field, reason), count in counted.most_common()]
    return lines, [Column("n", "validate.rows", "right"), Column("family", "validate.family"), *_UNANSWERED_COLUMNS[1:]]


def _group(name: str, group: Summary) -> dict[str, Any]:
    return {
        "group": name, "n": group.n, "answered": group.answered, "median_abs": group.median_abs, "mean_abs": group.mean_abs,
        "max_abs": group.max_abs, "bias": group.bias, "coverage": group.coverage, "width": group.width,
    }


def _method(report: Report) -> str:
    """One sentence on who answered: which prior, fitted on what."""
    how = f"validate.method.{report.leave_out or 'none'}"
    return messages.text(
        how, file=report.file, rows=len(report.rows), pool=report.pool_rows, folds=report.folds, level=f"{100 * report.level:.0f}%",
        confidence=", ".join(report.confidence), cut=f"{report.cut_year or 0.0:g}", aside=report.not_asked,
        seen=sum(row.in_training for row in report.rows), version=report.version,
    )
