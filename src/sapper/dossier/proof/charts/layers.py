"""Error by layer: what has accumulated against what correct runs reach, and what each layer adds by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sapper import messages
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, GRID, INK, MUTED, PAPER, SERIES, WIDTH, clip
from sapper.dossier.charts.model import Chart, Key
from sapper.dossier.proof.charts.scale import log_axis, shown
from sapper.dossier.proof.parts.model import RED_RATIO
from sapper.prove.model.result import Layer, ModelResult
from sapper.prove.verdict import RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP, BOTTOM, GAP, FOOT, HEAD = 190.0, 130.0, 28.0, 84.0, 24.0
LEFT = 78.0
MOST_NAMES = 14


def chart(result: ModelResult, lang: str) -> Chart | None:
    """The chart with its table; None where no layer has an error."""
    layers = [one for one in result.layers if one.accumulated is not None or one.ratio is not None]
    if not layers:
        return None
    title, caption = (messages.text(f"proof.chart.layers.{name}", lang) for name in ("title", "caption"))
    legend = (
        Key(colour="blue", label=messages.text("proof.chart.layers.accumulated", lang), sign="\N{BLACK CIRCLE}"),
        Key(colour="sky", label=messages.text("proof.chart.layers.envelope", lang)),
        Key(colour="green", label=messages.text("proof.chart.layers.local", lang), sign="\N{BLACK DIAMOND}"),
        Key(colour="vermilion", label=messages.text("proof.chart.layers.outside", lang), sign="\N{MULTIPLICATION X}"),
    )
    words = ("layer", "phase", "accumulated", "envelope", "worst_op", "local_ratio", "amplification")
    return Chart(
        name="layers", title=title, caption=caption, svg=_draw(layers, title, caption, lang), legend=legend,
        header=tuple(messages.text(f"proof.column.{word}", lang) for word in words), rows=tuple(_row(one, lang) for one in layers),
    )  # fmt: skip


def _row(one: Layer, lang: str) -> tuple[str, ...]:
    error = one.accumulated
    return (
        one.path or "-", messages.text(f"proof.phase.{one.phase}", lang), shown(error.error_l2 if error else None),
        shown(error.allowed_l2 if error else None), one.worst or "-", shown(one.ratio), shown(one.amplification_ratio),
    )  # fmt: skip


def _draw(layers: list[Layer], title: str, caption: str, lang: str) -> str:
    made = canvas.figure(HEAD + TOP + GAP + BOTTOM + FOOT)
    width = WIDTH - LEFT - 14
    upper = canvas.axes(made, left=LEFT, bottom=FOOT + BOTTOM + GAP, width=width, height=TOP)
    lower = canvas.axes(made, left=LEFT, bottom=FOOT, width=width, height=BOTTOM)
    for ax in (upper, lower):
        ax.set_xlim(-0.7, len(layers) - 0.3)
        ax.grid(visible=False, axis="x")
        ax.grid(axis="y", color=GRID, linewidth=1)
        ax.set_xticks([])
    _accumulated(upper, layers)
    _local(lower, layers)
    upper.set_ylabel(messages.text("proof.axis.accumulated", lang), fontsize=FONT - 2, color=MUTED)
    lower.set_ylabel(messages.text("proof.axis.local", lang), fontsize=FONT - 2, color=MUTED)
    turn = next((at for at, one in enumerate(layers) if one.phase == "backward"), None)
    if turn is not None:
        for ax in (upper, lower):
            ax.axvline(turn - 0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for at, phase in ((turn - 0.6, "forward"), (turn - 0.4, "backward")):
            text = messages.text(f"proof.phase.{phase}", lang)
            side = "right" if phase == "forward" else "left"
            upper.text(at, 1.02, text, transform=upper.get_xaxis_transform(), ha=side, va="bottom", fontsize=FONT - 1, color=MUTED)
    _names(lower, layers)
    return canvas.svg(made, name="layers", title=title, description=caption)


def _accumulated(ax: Axes, layers: list[Layer]) -> None:
    errors = [(at, one.accumulated) for at, one in enumerate(layers) if one.accumulated is not None]
    allowed = [(at, error.allowed_l2) for at, error in errors if error.allowed_l2]
    got = [(at, error.error_l2, error.outcome in RED) for at, error in errors if error.error_l2]
    floor = log_axis(ax, [value for _, value in allowed] + [value for _, value, _ in got])
    for low, high, colour in ((1.0, RED_RATIO, 0.14), (0.0, 1.0, 0.32)):
        for at, value in allowed:
            ax.bar(at, (high - low) * value if low else value - floor, bottom=low * value if low else floor, width=1.0,
                   color=SERIES["sky"], alpha=colour, linewidth=0)  # fmt: skip
    ax.plot([at for at, _, _ in got], [value for _, value, _ in got], color=SERIES["blue"], linewidth=1.2, alpha=0.6)
    for at, value, bad in got:
        _mark(ax, at, value, bad=bad, colour="blue", marker="o")


def _local(ax: Axes, layers: list[Layer]) -> None:
    ratios = [(at, one.ratio) for at, one in enumerate(layers) if one.ratio]
    log_axis(ax, [value for _, value in ratios] + [1.0, 2 * RED_RATIO])
    ax.axhline(RED_RATIO, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    for at, value in ratios:
        _mark(ax, at, value, bad=value > RED_RATIO, colour="green", marker="D")


def _mark(ax: Axes, at: float, value: float, *, bad: bool, colour: str, marker: str) -> None:
    ax.plot(
        [at], [value], "X" if bad else marker, color=SERIES["vermilion" if bad else colour], markersize=9 if bad else 5,
        markeredgecolor=PAPER, markeredgewidth=0.6,
    )  # fmt: skip


def _names(ax: Axes, layers: list[Layer]) -> None:
    """Names of some layers, slanted; the table has all."""
    every = max(1, -(-len(layers) // MOST_NAMES))
    for at in range(0, len(layers), every):
        ax.text(
            at, -0.05, clip(layers[at].path or "-", FOOT * 1.3, size=FONT - 2), transform=ax.get_xaxis_transform(), ha="right", va="top",
            rotation=35, rotation_mode="anchor", fontsize=FONT - 2, color=MUTED,
        )  # fmt: skip
