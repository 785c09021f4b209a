"""The roofline of the machine as measured, with the workload's ops by what became of them (Williams et al. 2009, CACM 52(4))."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sapper import messages, units
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, GRID, INK, MUTED, PAPER, SERIES, WIDTH
from sapper.dossier.charts.model import Chart, Key
from sapper.prove.speed.result import Colour, OpSpeed, Roofline, Speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT, FOOT, LEFT = 330.0, 44.0, 78.0
MARKS: dict[Colour, tuple[str, str, str]] = {
    "green": ("green", "o", "\N{BLACK CIRCLE}"), "amber": ("orange", "^", "\N{BLACK UP-POINTING TRIANGLE}"),
    "red": ("vermilion", "X", "\N{MULTIPLICATION X}"), "grey": ("grey", "s", "\N{BLACK SQUARE}"),
}  # fmt: skip


def chart(speed: Speed, lang: str) -> Chart | None:
    """The chart with its table; None where neither roofline nor rates are known."""
    points = [one for one in speed.ops if one.flops_per_s and one.size_bytes]
    if not points or not speed.measured.peak_flops_per_s or not speed.measured.memory_bytes_per_s:
        return None
    title, caption = (messages.text(f"proof.chart.roofline.{name}", lang) for name in ("title", "caption"))
    legend = [Key(colour=colour, label=messages.text(f"proof.colour.{name}", lang), sign=sign) for name, (colour, _, sign) in MARKS.items()]
    roofs = [("measured", speed.measured)] + ([("catalogue", speed.catalogue)] if speed.catalogue else [])
    return Chart(
        name="speed-roofline", title=title, caption=caption, svg=_draw(speed, points, title, caption, lang), legend=tuple(legend),
        header=tuple(messages.text(f"proof.column.{word}", lang) for word in ("roof", "peak", "bandwidth", "ridge")),
        rows=tuple(_row(name, roof, lang) for name, roof in roofs),
    )  # fmt: skip


def _row(name: str, roof: Roofline, lang: str) -> tuple[str, ...]:
    peak, bandwidth = roof.peak_flops_per_s, roof.memory_bytes_per_s
    unknown = messages.text("cli.unknown", lang)
    return (
        messages.text(f"proof.roof.{name}", lang), units.scaled(peak, "FLOP/s") if peak else unknown,
        units.scaled(bandwidth, "B/s") if bandwidth else unknown, units.significant(peak / bandwidth) if peak and bandwidth else unknown,
    )  # fmt: skip


def _draw(speed: Speed, points: list[OpSpeed], title: str, caption: str, lang: str) -> str:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    made = canvas.figure(HEIGHT + FOOT)
    ax = canvas.axes(made, left=LEFT, bottom=FOOT, width=WIDTH - LEFT - 20, height=HEIGHT - 12)
    ax.grid(axis="y", color=GRID, linewidth=1)
    ax.set(xscale="log", yscale="log")
    intensity = [one.flops / one.size_bytes for one in points]
    rates = [one.flops_per_s or 1.0 for one in points]
    peak = max(roof.peak_flops_per_s or 0.0 for roof in (speed.measured, speed.catalogue) if roof is not None)
    x_range = min(intensity) / 2, max(*intensity, 4 * _ridge(speed.measured)) * 2
    ax.set_xlim(*x_range)
    ax.set_ylim(max(min(rates) / 2, peak * 1e-7), 2.5 * max(peak, *rates))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.scaled(value, "")))
    ax.set_xlabel(messages.text("dossier.axis.intensity", lang), fontsize=FONT - 1, color=MUTED)
    ax.set_ylabel("FLOP/s", fontsize=FONT - 1, color=MUTED)
    _roof(ax, speed.measured, x_range, dashed=False)
    if speed.catalogue is not None and speed.catalogue.peak_flops_per_s and speed.catalogue.memory_bytes_per_s:
        _roof(ax, speed.catalogue, x_range, dashed=True)
    for one in sorted(points, key=lambda one: one.colour == "red"):  # red ones on top
        colour, marker, _ = MARKS[one.colour]
        ax.plot(
            [one.flops / one.size_bytes], [one.flops_per_s or 1.0], marker, color=SERIES[colour], markeredgecolor=PAPER,
            markersize=5 + 16 * math.sqrt(one.step_share or 0.0), markeredgewidth=0.7, alpha=0.9,
        )  # fmt: skip
    return canvas.svg(made, name="speed-roofline", title=title, description=caption)


def _ridge(roof: Roofline) -> float:
    return (roof.peak_flops_per_s or 1.0) / (roof.memory_bytes_per_s or 1.0)


def _roof(ax: Axes, roof: Roofline, x_range: tuple[float, float], *, dashed: bool) -> None:
    assert roof.peak_flops_per_s is not None and roof.memory_bytes_per_s is not None
    x = [x_range[0], _ridge(roof), max(x_range[1], _ridge(roof))]
    y = [x_range[0] * roof.memory_bytes_per_s, roof.peak_flops_per_s, roof.peak_flops_per_s]
    ax.plot(x, y, color=MUTED if dashed else INK, linewidth=1.2 if dashed else 1.8, linestyle=(0, (5, 4)) if dashed else "-")
