"""Rooflines: each op of the step against what the chip's peak and bandwidth allow (Williams et al. 2009, CACM 52(4))."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sapper import messages, units
from sapper.assess.assessment import Assessment, Option
from sapper.assess.text import number, percent
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, INK, MUTED, PAPER, SERIES, WIDTH, clip
from sapper.dossier.charts.model import Chart, Key
from sapper.predict.estimate import OpTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, GAP, PANEL = 3, 30.0, 178.0
KINDS = {"matmul": ("blue", "o"), "attention": ("orange", "^"), "other": ("green", "s")}
SIGNS = {"o": "\N{BLACK CIRCLE}", "^": "\N{BLACK UP-POINTING TRIANGLE}", "s": "\N{BLACK SQUARE}"}


def roofline(a: Assessment, lang: str) -> Chart | None:
    """A panel for each answered option whose peak and bandwidth are known."""
    shown = [option for at in a.ranking if _roof(option := a.options[at])]
    if not shown:
        return None
    title, caption = messages.text("dossier.chart.roofline.title", lang), messages.text("dossier.chart.roofline.caption", lang)
    legend = tuple(
        Key(colour=colour, label=messages.text(f"dossier.kind.{kind}", lang), sign=SIGNS[mark]) for kind, (colour, mark) in KINDS.items()
    )
    words = ("option", "peak", "bandwidth", "ridge", "achieved", "compute_bound", "memory_bound")
    return Chart(
        name="roofline",
        title=title,
        caption=caption,
        svg=_draw(shown, title, caption, lang),
        legend=legend,
        header=tuple(messages.text(f"dossier.column.{word}", lang) for word in words),
        rows=tuple(_row(option) for option in shown),
    )


def _roof(option: Option) -> tuple[float, float] | None:
    """Peak and bandwidth, in FLOP/s and bytes/s."""
    chip = option.chip
    if option.estimate is None or chip.peak_flops_per_s is None or chip.bandwidth_bytes_per_s is None:
        return None
    peak, bandwidth = chip.peak_flops_per_s.number, chip.bandwidth_bytes_per_s.number
    return (peak, bandwidth) if peak and bandwidth and _points(option) else None


def _points(option: Option) -> list[OpTime]:
    return [op for op in option.estimate.ops if op.flops > 0 and op.size_bytes > 0 and op.time_s > 0] if option.estimate else []


def _row(option: Option) -> tuple[str, ...]:
    roof = _roof(option)
    assert roof is not None
    ops, (peak, bandwidth) = _points(option), roof
    total_s = sum(op.time_s for op in ops)
    achieved = sum(op.flops for op in ops) / total_s
    bound = {limit: sum(op.time_s for op in ops if op.limit == limit) / total_s for limit in ("compute", "memory")}
    return (
        option.label,
        units.scaled(peak, "FLOP/s"),
        units.scaled(bandwidth, "B/s"),
        number(peak / bandwidth),
        f"{units.scaled(achieved, 'FLOP/s')} ({percent(achieved / peak)})",
        percent(bound["compute"]),
        percent(bound["memory"]),
    )


def _draw(shown: list[Option], title: str, caption: str, lang: str) -> str:
    rows = math.ceil(len(shown) / COLUMNS)
    width = (WIDTH - 46 - GAP * (COLUMNS - 1) - 6) / COLUMNS
    step = PANEL + 54
    made = canvas.figure(rows * step + 14)
    x_range, y_range = _ranges(shown)
    for at, option in enumerate(shown):
        row, column = divmod(at, COLUMNS)
        bottom = (rows - 1 - row) * step + 36
        ax = canvas.axes(made, left=46 + column * (width + GAP), bottom=bottom, width=width, height=PANEL - 14)
        _panel(ax, option, x_range, y_range, width, first=column == 0)
        if at + COLUMNS >= len(shown):
            ax.set_xlabel(messages.text("dossier.axis.intensity", lang), fontsize=FONT - 1.5, color=MUTED, labelpad=3)
    return canvas.svg(made, name="roofline", title=title, description=caption)


def _ranges(shown: list[Option]) -> tuple[tuple[float, float], tuple[float, float]]:
    """One range of x and one of y for all panels, so that they can be compared by eye."""
    intensities = [op.flops / op.size_bytes for option in shown for op in _points(option)]
    rates = [op.flops / op.time_s / 1e12 for option in shown for op in _points(option)]
    roofs = [roof for option in shown if (roof := _roof(option))]
    top = max(peak for peak, _ in roofs) / 1e12
    high = max(*intensities, *(2 * peak / bandwidth for peak, bandwidth in roofs))
    return (max(min(intensities), 1e-2) / 2, high * 2), (max(min(rates), top * 1e-5) / 2, top * 2.2)


def _panel(ax: Axes, option: Option, x_range: tuple[float, float], y_range: tuple[float, float], width: float, *, first: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    roof = _roof(option)
    assert roof is not None
    peak, bandwidth = roof[0] / 1e12, roof[1] / 1e12
    ax.set(xscale="log", yscale="log", xlim=x_range, ylim=y_range)
    ax.grid(axis="y", color=canvas.GRID, linewidth=1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    if not first:
        ax.set_yticklabels([])
    ridge = peak / bandwidth
    ax.plot([x_range[0], ridge, x_range[1]], [x_range[0] * bandwidth, peak, peak], color=INK, linewidth=1.6)
    ops = _points(option)
    total_s = sum(op.time_s for op in ops)
    for op in ops:
        colour, marker = KINDS.get(op.kind, KINDS["other"])
        size = 4 + 13 * math.sqrt(op.time_s / total_s)
        ax.plot(
            [op.flops / op.size_bytes],
            [op.flops / op.time_s / 1e12],
            marker,
            color=SERIES[colour],
            markersize=size,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            alpha=0.9,
        )
    weight = "bold" if option.is_reference else "normal"
    ax.text(
        0.02,
        1.03,
        clip(option.label, width - 10),
        transform=ax.transAxes,
        ha="left",
        va="bottom",
        fontsize=FONT,
        fontweight=weight,
        color=INK,
    )
