"""The frontier of serving: tokens per second and chip against what one user sees, a line for each chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sapper import messages, units
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, INK, MUTED, PAPER, SERIES, WIDTH, clip
from sapper.dossier.charts.model import Chart, Key
from sapper.predict.serve.candidates import describe
from sapper.predict.serve.frontier import Frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 380.0
COLOURS = ("blue", "vermilion", "green", "pink", "orange", "sky", "wine", "teal", "olive", "grey")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
SIGNS = "\u25cf\u25a0\u25b2\u25c6\u25bc\u271a\u2716\u25c0\u25b6\u2605"
"""The marks of :data:`MARKS` as letters, for the legend."""


def chart(found: Sequence[Frontier], lang: str) -> Chart | None:
    """The chart with its table; None where no frontier has a point."""
    shown = [one for one in found if one.points]
    if not shown:
        return None
    title, caption = messages.text("serve.chart.title", lang), messages.text("serve.chart.caption", lang)
    words = ("chip", "user_tokens", "chip_tokens", "users", "replica_chips", "plan")
    rows = tuple(
        (
            one.cluster,
            units.significant(point.user_tokens_per_s.mid),
            units.significant(point.chip_tokens_per_s.mid),
            str(point.users),
            str(point.chips),
            describe(point.plan),
        )
        for one in shown
        for point in one.points
    )
    return Chart(
        name="frontier",
        title=title,
        caption=caption,
        svg=_draw(shown, title, caption, lang),
        legend=tuple(Key(colour=_colour(at), label=one.cluster, sign=SIGNS[at % len(SIGNS)]) for at, one in enumerate(shown)),
        header=tuple(messages.text(f"serve.column.{word}", lang) for word in words),
        rows=rows,
    )


def standalone(found: Sequence[Frontier]) -> str:
    """The chart as an SVG file of its own, with the legend inside and fixed colours and fonts."""
    lang = messages.language()
    title, caption = messages.text("serve.chart.title", lang), messages.text("serve.chart.caption", lang)
    source = _draw([one for one in found if one.points], title, caption, lang, legend=True)
    style = "background:#fefefe;color:#1a1c1e;font-family:system-ui,'Noto Sans CJK SC','Microsoft YaHei',sans-serif"
    return source.replace("<svg ", f'<svg style="{style}" ', 1)


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _draw(shown: Sequence[Frontier], title: str, caption: str, lang: str, *, legend: bool = False) -> str:
    from matplotlib.ticker import FuncFormatter, NullLocator

    top = 20.0 * len(shown) + 10 if legend else 8.0
    made = canvas.figure(HEIGHT + top)
    ax = canvas.axes(made, left=70, bottom=44, width=WIDTH - 90, height=HEIGHT - 52)
    ax.grid(axis="y", color=canvas.GRID, linewidth=1)
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    points = [point for one in shown for point in one.points]
    _limits(ax, [point.user_tokens_per_s.mid for point in points], axis="x")
    _limits(ax, [end for point in points for end in (point.chip_tokens_per_s.low, point.chip_tokens_per_s.high)], axis="y")
    ax.set_xlabel(messages.text("serve.chart.x", lang), fontsize=FONT - 1, color=MUTED, labelpad=6)
    ax.set_ylabel(messages.text("serve.chart.y", lang), fontsize=FONT - 1, color=MUTED, labelpad=6)
    for at, one in enumerate(shown):
        colour = SERIES[_colour(at)]
        x = [point.user_tokens_per_s.mid for point in one.points]
        low, mid, high = ([getattr(point.chip_tokens_per_s, end) for point in one.points] for end in ("low", "mid", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.plot(x, mid, marker=MARKS[at % len(MARKS)], color=colour, linewidth=2, markersize=7, markeredgecolor=PAPER, markeredgewidth=0.8)
        if legend:
            y = 1 + (top - 14 - 20.0 * at) / (HEIGHT - 52)
            ax.plot([0.012], [y], marker=MARKS[at % len(MARKS)], color=colour, markersize=8, transform=ax.transAxes, clip_on=False)
            label = clip(one.cluster, WIDTH - 160)
            ax.text(0.03, y, label, transform=ax.transAxes, ha="left", va="center", fontsize=FONT, color=INK)
    return canvas.svg(made, name="frontier", title=title, description=caption)


def _limits(ax: Axes, values: list[float], *, axis: str) -> None:
    """Limits and ticks at 1, 2 and 5 of each decade."""
    positive = [value for value in values if value > 0]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    getattr(ax, f"set_{axis}lim")(low, high)
    ticks = [base * 10.0**power for power in range(-3, 8) for base in (1, 2, 5) if low <= base * 10.0**power <= high]
    getattr(ax, f"set_{axis}ticks")(ticks)
