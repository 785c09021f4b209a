"""What ``sapper validate --bars`` prints: each promise, its figures of today, the targets, and the best published elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json

if TYPE_CHECKING:
    from sapper.predict.bars import Bar, Bars, Figure

_COLUMNS = [
    Column("bar", "bars.bar"),
    Column("figure", "bars.what"),
    Column("today", "bars.today", "right"),
    Column("target", "bars.target", "right"),
    Column("met", "bars.met"),
    Column("answered", "bars.answered", "right"),
    Column("best", "bars.elsewhere"),
]
_RAW = [
    Column("key", "bars.bar"), Column("name", "bars.what"), Column("value", "bars.today"), Column("most", "bars.target"),
    Column("least", "bars.target"), Column("met", "bars.met"), Column("rows", "bars.rows"), Column("answered", "bars.answered"),
]
_GROUPS = [Column("group", "bars.group"), Column("rows", "bars.rows", "right"), Column("figures", "bars.figures")]
_WORST = 5
"""Groups of a missed bar that a terminal shows."""


def emit_bars(found: Bars, *, fmt: str) -> None:
    """Print the bars."""
    if fmt == "json":
        emit_json(found)
    elif fmt == "csv":
        emit(
            [
                {"key": bar.key, "name": one.name, "value": one.value, "most": one.most, "least": one.least, "met": one.met,
                 "rows": bar.rows, "answered": bar.answered}
                for bar in found.bars for one in bar.figures
            ], _RAW, fmt=fmt,
        )
    else:
        _table(found)


def _table(found: Bars) -> None:
    title = messages.text("bars.title", date=found.date, version=found.version, level=f"{100 * found.level:.0f}%")
    emit([line for bar in found.bars for line in _lines(bar)], _COLUMNS, fmt="table", title=title)
    for bar in found.bars:
        if bar.met is False and bar.groups:
            click.echo()
            worst = [{"group": group["group"], "rows": group.get("rows"), "figures": _group(group)} for group in bar.groups[:_WORST]]
            emit(worst, _GROUPS, fmt="table", title=messages.text("bars.worst", bar=messages.text(f"bars.name.{bar.key}")))


def _lines(bar: Bar) -> list[dict[str, Any]]:
    name, best = messages.text(f"bars.name.{bar.key}"), messages.text(f"bars.best.{bar.key}")
    first = {"bar": name, "answered": f"{bar.answered} / {bar.rows}", "best": best}
    return [
        (first if index == 0 else {"bar": "", "answered": "", "best": ""})
        | {"figure": messages.text(f"bars.figure.{one.name}"), "today": shown(one, one.value), "target": target(one), "met": _met(one)}
        for index, one in enumerate(bar.figures)
    ]


def shown(figure: Figure, value: float | None) -> str:
    """A value of the figure as tables have it."""
    if value is None:
        return messages.text("cli.unknown")
    return {"share": f"{100 * value:.1f}%", "count": f"{value:,.0f}", "plain": f"{value:.2f}"}[figure.unit]


def target(figure: Figure) -> str:
    """The target of the figure; empty where it has none."""
    if figure.most is not None and figure.least is not None:
        return f"{shown(figure, figure.least)} - {shown(figure, figure.most)}"
    if figure.most is not None:
        return f"<= {shown(figure, figure.most)}"
    return "" if figure.least is None else f">= {shown(figure, figure.least)}"


def _met(figure: Figure) -> str:
    return "" if figure.met is None else messages.text("bars.yes" if figure.met else "bars.no")


def _group(group: dict[str, Any]) -> str:
    parts = []
    for name, value in group.items():
        if name not in ("group", "rows") and value is not None:
            text = f"{value:.2f}" if name == "tau" else f"{100 * value:+.1f}%" if name in ("bias", "over") else f"{100 * value:.1f}%"
            parts.append(f"{messages.text(f'bars.figure.{name}')} {text}")
    return ", ".join(parts)
