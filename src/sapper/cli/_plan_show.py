"""What ``sapper mix plan`` prints: the plan stage by stage, how good it is, what mixing gains, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sapper import messages, units
from sapper.cli.output import Column, emit, emit_json

if TYPE_CHECKING:
    from sapper.mix.plan import MixPlan
    from sapper.mix.result import Planned, Reason
    from sapper.mix.sheet import Answer, Compared, Row

_MOST_ROWS = 24
"""Stages that the table shows; the first and the last ones of a longer plan."""
_LABEL = 10
"""Columns of the words before the lines."""


def show(answer: Answer, *, compared: Sequence[Compared], top: int, explain: bool, fmt: str) -> None:
    """Print ``answer`` to stdout in the format asked for."""
    from sapper.mix.sheet import sheet

    planned = answer.planned
    rows = sheet(answer.problem, planned.best, planned.score) if planned.best is not None and planned.score is not None else ()
    if fmt == "json":
        emit_json({
            "model": answer.problem.model, "cluster": answer.cluster.name, "planned": planned, "stages": rows,
            "sources": answer.problem.sources, "compared": compared,
        })  # fmt: skip
    elif fmt == "csv":
        emit([_raw(row) for row in rows], [Column(key, "mix.plan.column.stage") for key in _CSV], fmt="csv")
    elif planned.best is None:
        _nowhere(answer)
    else:
        _head(answer, planned.best)
        _table(answer, rows)
        _summary(answer, planned.best)
        _others(planned, compared, top=top)
        if explain:
            _explain(answer, rows)


def _head(answer: Answer, plan: MixPlan) -> None:
    values = {"precision": plan.precision, "seq": plan.seq_len, "batch": plan.global_batch}
    click.echo(messages.text("mix.plan.head", model=plan.model, cluster=answer.cluster.name, **values))


_CSV = (
    "pipeline", "stage", "group", "chips", "copies", "first", "last", "tp", "replicas", "zero", "recompute", "micro_batch",
    "micro_batches", "forward_s", "backward_s", "send_s", "busy", "peak_bytes", "capacity_bytes",
)  # fmt: skip

_COLUMNS = [
    Column("place", "mix.plan.column.stage"),
    Column("group", "mix.plan.column.group"),
    Column("chips", "mix.plan.column.chips", "right"),
    Column("layers", "mix.plan.column.layers", "right"),
    Column("how", "mix.plan.column.how"),
    Column("batch", "mix.plan.column.batch", "right"),
    Column("pass", "mix.plan.column.pass", "right"),
    Column("memory", "mix.plan.column.memory", "right"),
    Column("busy", "mix.plan.column.busy", "right"),
    Column("binds", "mix.plan.column.binds"),
]


def _raw(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _CSV}


def _table(answer: Answer, rows: Sequence[Row]) -> None:
    binds = {(one.pipeline, one.stage): one.reason.code for one in answer.planned.binds}
    shown = list(rows) if len(rows) <= _MOST_ROWS else [*rows[: _MOST_ROWS - 4], *rows[-4:]]
    alike = {_how(row) for row in rows}
    columns = [column for column in _COLUMNS if column.key != "how" or len(alike) > 1]
    emit([_cells(row, binds.get((row.pipeline, row.stage))) for row in shown], columns, fmt="table")
    if len(rows) > len(shown):
        click.echo(messages.text("mix.plan.more", count=len(rows) - len(shown)))
    if len(alike) == 1:
        _line("each", "mix.plan.each", how=alike.pop())


def _how(row: Row) -> str:
    recompute = "" if row.recompute == "none" else messages.text(f"mix.plan.recompute.{row.recompute}")
    return " ".join(part for part in (f"tp={row.tp}", f"dp={row.replicas}", f"zero={row.zero}", recompute) if part)


def _cells(row: Row, code: str | None) -> dict[str, Any]:
    return {
        "place": f"{row.pipeline}.{row.stage}", "group": row.group,
        "chips": f"{row.copies} x {row.chips // row.copies}" if row.copies > 1 else str(row.chips), "layers": f"{row.first}-{row.last}",
        "how": _how(row), "batch": f"{row.micro_batches} x {row.micro_batch}", "pass": units.duration(row.pass_s),
        "memory": f"{row.peak_bytes / 2**30:.1f}/{row.capacity_bytes / 2**30:.0f}", "busy": f"{row.busy:.0%}",
        "binds": None if code is None else messages.text(f"mix.plan.{code.removeprefix('mix.')}"),
    }  # fmt: skip


def _summary(answer: Answer, plan: MixPlan) -> None:
    planned = answer.planned
    assert plan.expected is not None and planned.score is not None
    step = plan.expected.step_time
    _line(
        "step", "mix.plan.step", step=units.duration(step.mid), low=units.duration(step.low), high=units.duration(step.high),
        tokens=f"{answer.tokens_per_step / step.mid:,.0f}",
    )  # fmt: skip
    if planned.bound_s is not None and planned.gap is not None:
        _line("bound", "mix.plan.bound", gap=f"{100 * planned.gap:.1f}%", bound=units.duration(planned.bound_s))
    if planned.verdict is not None:
        _said("verdict", [planned.verdict])
    if len(planned.alone_s) > 1:
        _alone(planned, step.mid)
    _said("idle", planned.idle)


def _alone(planned: Planned, step_s: float) -> None:
    """Each group alone, the sum of them, and the best set of groups that is not all of them."""
    nowhere = messages.text("mix.plan.alone_nowhere")
    each = messages.text("mix.plan.comma").join(
        f"{name} {nowhere if one is None else units.duration(one)}" for name, one in planned.alone_s.items()
    )
    rates = [1.0 / one for one in planned.alone_s.values() if one is not None]
    if len(rates) < 2:
        _line("alone", "mix.plan.alone_few", each=each)
    else:
        _line("alone", "mix.plan.alone", each=each, share=f"{100 / step_s / sum(rates):.0f}%")
    parts = [one for one in planned.subfleets if 1 < len(one.groups) < len(planned.alone_s) and one.step_s is not None]
    best = min(parts, key=lambda one: one.step_s or 0.0, default=None)
    if best is not None and best.step_s is not None:
        _line("part", "mix.plan.part", groups=" + ".join(best.groups), step=units.duration(best.step_s))


def _others(planned: Planned, compared: Sequence[Compared], *, top: int) -> None:
    from sapper.mix.sheet import brief

    for runner in planned.runners[:top]:
        _line(
            "loses", "mix.plan.loses", plan=brief(runner.plan), slower=f"{100 * runner.slower:.1f}%",
            reason=messages.text(runner.reason.code, **runner.reason.values),
        )  # fmt: skip
    for other in compared:
        values = {"path": other.path, "step": units.duration(other.step_s), "slower": f"{100 * other.slower:+.1f}%"}
        if other.lacking_bytes is None:
            _line("compare", "mix.plan.compared", **values)
        else:
            _line("compare", "mix.plan.compared_unfit", stage=other.stage, lacking=units.gib(other.lacking_bytes), **values)
    _line("search", "mix.plan.searched", plans=planned.plans, columns=planned.columns, elapsed=units.duration(planned.elapsed_s))


def _explain(answer: Answer, rows: Sequence[Row]) -> None:
    from sapper.mix.sheet import parts

    assert answer.planned.score is not None
    where, step_s = parts(answer.planned.score), answer.planned.score.step_s
    click.echo()
    for name in ("fill_s", "rest_s", "reduce_s", "update_s", "other_s"):
        value = getattr(where, name)
        _line("time", f"mix.plan.part.{name.removesuffix('_s')}", time=units.duration(value), share=f"{value / step_s:.0%}")
    for one in answer.planned.binds:
        row = next(row for row in rows if (row.pipeline, row.stage) == (one.pipeline, one.stage))
        said = messages.text(one.reason.code, **one.reason.values)
        _line("stage", "mix.plan.why", stage=f"{row.pipeline}.{row.stage}", group=row.group, reason=said)
    for supply in answer.problem.groups:
        source = answer.problem.sources.get(supply.name) or messages.text("cli.unknown")
        _line("source", "mix.plan.source", group=supply.name, source=source, spread=f"{100 * supply.relative_sd:.0f}%")
    for link in answer.cluster.links:
        fact = link.bandwidth_bytes_per_s
        if fact.number is not None:
            _line(
                "link", "mix.plan.link", one=link.from_group, other=link.to_group, rate=units.scaled(fact.number, "B/s"), grade=fact.grade,
                source=fact.source,
            )  # fmt: skip


def _nowhere(answer: Answer) -> None:
    click.echo(messages.text("mix.plan.nowhere", model=answer.problem.model, cluster=answer.cluster.name))
    for reason in answer.planned.why_none:
        click.echo(f"  {messages.text(reason.code, **reason.values)}")
    click.echo(f"  -> {messages.text('mix.plan.nowhere_next')}")


def _said(label: str, reasons: Iterable[Reason]) -> None:
    for reason in reasons:
        click.echo(_labelled(label, messages.text(reason.code, **reason.values)))


def _line(label: str, code: str, /, **values: Any) -> None:
    click.echo(_labelled(label, messages.text(code, **values)))


def _labelled(label: str, text: str) -> str:
    """A label and its text, which hangs beside it where the width of the terminal is known."""
    from sapper.cli._help import width_of, wrap
    from sapper.cli.output import console

    word = messages.text(f"mix.plan.label.{label}")
    head = word + " " * max(_LABEL - width_of(word), 1)
    lines = wrap(text, max(console().width - _LABEL, 30))
    return head + f"\n{' ' * _LABEL}".join(lines)
