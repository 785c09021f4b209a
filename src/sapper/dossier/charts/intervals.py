"""Dots with whiskers: job time, and cost where it is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from sapper import messages
from sapper.assess.assessment import Assessment
from sapper.assess.conclude import basis_text, job_scale_s
from sapper.assess.text import badge, money_scale, ranged, spread
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, GRID, INK, MUTED, PAPER, SERIES, WIDTH, clip, text_width
from sapper.dossier.charts.model import Chart
from sapper.evidence import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 25.0
FEWEST = 3
"""Options with a price of one kind from which a chart says more than the table."""
_LOG_FROM = 12.0
"""Spread of the values from which the axis is logarithmic."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the chart: an interval, or the words for why there is none."""

    label: str
    interval: Interval | None
    why: str = ""
    reference: bool = False


def job_time(a: Assessment, lang: str) -> Chart:
    """Job time of every option, refused ones named below."""
    factor, key = job_scale_s(a)
    rows = [Row(label=a.options[at].label, interval=_job(a, at), reference=a.options[at].is_reference) for at in a.ranking]
    rows += [Row(label=a.options[at].label, interval=None, why=a.options[at].why.get(lang, "")) for at in a.unanswered]
    unit = messages.text(f"assess.unit.{key}", lang)
    title = messages.text("dossier.chart.time.title", lang, unit=unit)
    caption = messages.text("dossier.chart.time.caption", lang)
    return _chart("time", title, caption, rows, factor, unit, lang)


def costs(a: Assessment, lang: str) -> list[Chart]:
    """One chart for each currency and basis that enough options have; nothing is converted."""
    found = []
    for at, basis in enumerate(sorted({basis for o in a.options if o.estimate for basis in o.estimate.cost})):
        known = [(o, cost) for o in a.options if (cost := o.estimate.cost.get(basis) if o.estimate else None)]
        if len(known) < FEWEST:
            continue
        known.sort(key=lambda pair: pair[1].mid)
        scale = money_scale([cost.mid for _, cost in known])
        unit = messages.text(f"dossier.money.{scale.key}", lang, currency=messages.text(f"assess.currency.{known[0][1].unit}", lang))
        rows = [Row(label=o.label, interval=cost, reference=o.is_reference) for o, cost in known]
        caption = messages.text("dossier.chart.cost.caption", lang)
        caption += messages.text("dossier.chart.cost.known", lang, known=len(known), of=len(a.options))
        title = messages.text("dossier.chart.cost.title", lang, basis=basis_text(basis, lang), unit=unit)
        found.append(_chart(f"cost{at}", title, caption, rows, scale.factor, unit, lang))
    return found


def _chart(name: str, title: str, caption: str, rows: list[Row], factor: float, unit: str, lang: str) -> Chart:
    words = ("option", "mid", "low", "high", "grade")
    header = tuple(messages.text(f"dossier.column.{word}", lang, unit=unit) for word in words)
    table = tuple(
        (row.label, *spread(row.interval, factor), badge(row.interval)) if row.interval else (row.label, row.why, "", "", "")
        for row in rows
    )
    return Chart(name=name, title=title, caption=caption, svg=_draw(name, title, caption, rows, factor), header=header, rows=table)


def _draw(name: str, title: str, caption: str, rows: list[Row], factor: float) -> str:
    values = [row.interval for row in rows if row.interval]
    texts = [f"{ranged(v, factor)}  {badge(v)}" for v in values]
    left = min(300.0, max(text_width(row.label) for row in rows) + 14)
    right = max((text_width(text) for text in texts), default=0.0) + 16
    height = ROW * len(rows) + 34
    made = canvas.figure(height)
    ax = canvas.axes(made, left=left, bottom=26, width=WIDTH - left - right, height=ROW * len(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    _x_axis(ax, values, factor)
    ax.set_yticks([])
    reference = next((row.interval for row in rows if row.reference and row.interval), None)
    if reference:
        ax.axvspan(reference.low * factor, reference.high * factor, color=GRID, alpha=0.55, linewidth=0)
        ax.axvline(reference.mid * factor, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    to_right = ax.get_yaxis_transform()
    for at, row in enumerate(rows):
        weight = "bold" if row.reference else "normal"
        ax.text(
            -8 / (WIDTH - left - right),
            at,
            clip(row.label, left - 10),
            transform=to_right,
            ha="right",
            va="center_baseline",
            fontsize=FONT,
            fontweight=weight,
            color=INK,
        )
        if row.interval is None:
            ax.text(
                0.005,
                at,
                clip(row.why.replace("`", ""), WIDTH - left - 20),
                transform=to_right,
                ha="left",
                va="center_baseline",
                fontsize=FONT - 1,
                fontstyle="italic",
                color=MUTED,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
            )
            continue
        mid, low, high = (value * factor for value in (row.interval.mid, row.interval.low, row.interval.high))
        colour = MUTED if row.reference else SERIES["blue"]
        ax.plot([low, high], [at, at], color=colour, linewidth=2.2, solid_capstyle="round")
        ax.plot([mid], [at], "o", color=colour, markersize=8)
        ax.text(
            1 + 10 / (WIDTH - left - right),
            at,
            f"{ranged(row.interval, factor)}  {badge(row.interval)}",
            transform=to_right,
            ha="left",
            va="center_baseline",
            fontsize=FONT,
            fontweight=weight,
            color=INK,
        )
    return canvas.svg(made, name=name, title=title, description=caption)


def _x_axis(ax: Axes, values: list[Interval], factor: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    if not values:
        ax.set_xticks([])
        return
    low, high = min(v.low for v in values) * factor, max(v.high for v in values) * factor
    if high / low > _LOG_FROM:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.15, high * 1.15)
        decades = math.log10(high / low)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(0, high * 1.04)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _job(a: Assessment, at: int) -> Interval | None:
    estimate = a.options[at].estimate
    return estimate.job_time if estimate else None
