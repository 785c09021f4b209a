"""The loss of a short training: its distance from the truth against what correct runs reach, and the ratios of each phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sapper import messages
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, GRID, INK, MUTED, SERIES, WIDTH
from sapper.dossier.charts.model import Chart, Key
from sapper.dossier.proof.charts.scale import log_axis, shown
from sapper.prove.train.result import Row, TrainProof

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP, BOTTOM, GAP, FOOT, HEAD, LEFT = 180.0, 130.0, 26.0, 44.0, 10.0, 78.0
PHASES = {"forward": ("green", "o", "\N{BLACK CIRCLE}"), "backward": ("orange", "s", "\N{BLACK SQUARE}"),
          "optimizer": ("pink", "^", "\N{BLACK UP-POINTING TRIANGLE}")}  # fmt: skip
RATIO: dict[str, Callable[[Row], float | None]] = {
    "forward": lambda row: row.forward_ratio, "backward": lambda row: row.backward_ratio, "optimizer": lambda row: row.optimizer_ratio,
}  # fmt: skip


def chart(proof: TrainProof, lang: str) -> Chart | None:
    """The chart with its table; None where no step was run."""
    if not proof.rows:
        return None
    title, caption = (messages.text(f"proof.chart.loss.{name}", lang) for name in ("title", "caption"))
    legend = (
        Key(colour="blue", label=messages.text("proof.chart.loss.device", lang), sign="\N{BLACK CIRCLE}"),
        Key(colour="grey", label=messages.text("proof.chart.loss.peer", lang), sign="\N{HORIZONTAL BAR}"),
        Key(colour="sky", label=messages.text("proof.chart.loss.envelope", lang)),
        *(Key(colour=colour, label=messages.text(f"proof.phase.{name}", lang), sign=sign) for name, (colour, _, sign) in PHASES.items()),
    )
    words = ("step", "loss", "loss_truth", "distance", "envelope", "forward", "backward", "optimizer")
    return Chart(
        name="loss", title=title, caption=caption, svg=_draw(proof, title, caption, lang), legend=legend,
        header=tuple(messages.text(f"proof.column.{word}", lang) for word in words), rows=tuple(_row(row) for row in proof.rows),
    )  # fmt: skip


def _row(row: Row) -> tuple[str, ...]:
    return (
        str(row.step), *(f"{value:.6g}" if value is not None else "-" for value in (row.loss, row.loss_truth)),
        shown(_apart(row.loss, row)), shown(row.loss_allowed), *(shown(ratio(row)) for ratio in RATIO.values()),
    )  # fmt: skip


def _apart(loss: float | None, row: Row) -> float | None:
    return abs(loss - row.loss_truth) if loss is not None and row.loss_truth is not None else None


def _draw(proof: TrainProof, title: str, caption: str, lang: str) -> str:
    made = canvas.figure(HEAD + TOP + GAP + BOTTOM + FOOT)
    width = WIDTH - LEFT - 14
    upper = canvas.axes(made, left=LEFT, bottom=FOOT + BOTTOM + GAP, width=width, height=TOP)
    lower = canvas.axes(made, left=LEFT, bottom=FOOT, width=width, height=BOTTOM)
    last = max(proof.rows[-1].step, 1)
    for ax in (upper, lower):
        ax.set_xlim(-0.02 * last - 0.3, last * 1.02 + 0.3)
        ax.grid(axis="y", color=GRID, linewidth=1)
        if proof.first is not None:
            ax.axvline(proof.first.step, color=SERIES["vermilion"], linewidth=1.6, linestyle=(0, (4, 3)))
    upper.set_xticklabels([])
    _distances(upper, proof.rows)
    _ratios(lower, proof.rows)
    lower.set_xlabel(messages.text("proof.axis.step", lang), fontsize=FONT - 1, color=MUTED)
    upper.set_ylabel(messages.text("proof.axis.loss", lang), fontsize=FONT - 2, color=MUTED)
    lower.set_ylabel(messages.text("proof.axis.ratio", lang), fontsize=FONT - 2, color=MUTED)
    return canvas.svg(made, name="loss", title=title, description=caption)


def _distances(ax: Axes, rows: tuple[Row, ...]) -> None:
    device = [(row.step, apart) for row in rows if (apart := _apart(row.loss, row))]
    peer = [(row.step, apart) for row in rows if (apart := _apart(row.loss_peer, row))]
    allowed = [(row.step, row.loss_allowed) for row in rows if row.loss_allowed > 0]
    floor = log_axis(ax, [value for _, value in (*device, *peer, *allowed)])
    ax.fill_between([at for at, _ in allowed], floor, [value for _, value in allowed], color=SERIES["sky"], alpha=0.3, linewidth=0)
    for points, colour, mark in ((peer, "grey", ""), (device, "blue", "o")):
        ax.plot(
            [at for at, _ in points], [value for _, value in points], color=SERIES[colour], linewidth=1.6, marker=mark, markersize=3.5
        )


def _ratios(ax: Axes, rows: tuple[Row, ...]) -> None:
    series = {name: [(row.step, value) for row in rows if (value := ratio(row))] for name, ratio in RATIO.items()}
    log_axis(ax, [value for points in series.values() for _, value in points] + [0.1, 2.0])
    ax.axhline(1.0, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    for name, points in series.items():
        colour, mark, _ = PHASES[name]
        ax.plot(
            [at for at, _ in points], [value for _, value in points], color=SERIES[colour], linewidth=1.2, marker=mark, markersize=3.5
        )
