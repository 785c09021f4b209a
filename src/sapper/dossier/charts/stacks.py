"""Stacked bars: what a step is spent on, and what fills the memory."""

from __future__ import annotations

import msgspec

from sapper import messages, units
from sapper.assess.assessment import Assessment
from sapper.assess.text import number, percent
from sapper.dossier.charts import canvas
from sapper.dossier.charts.canvas import FONT, INK, MUTED, PAPER, SERIES, WIDTH, clip, text_width
from sapper.dossier.charts.model import Chart, Key

ROW, BAR = 27.0, 0.64
TERM_COLOURS = {
    "matmul": "blue",
    "attention": "sky",
    "memory-bound": "green",
    "optimizer": "teal",
    "launch": "silver",
    "host": "grey",
    "bubble": "yellow",
    "tensor-comm": "vermilion",
    "pipeline-comm": "orange",
    "data-comm": "pink",
    "expert-comm": "wine",
    "context-comm": "olive",
}
"""In the order of the stack: work, then memory, then waiting, then communication."""
PART_COLOURS = {
    "weights": "blue",
    "gradients": "sky",
    "optimizer": "green",
    "activations": "orange",
    "logits": "pink",
    "buffers": "yellow",
    "overhead": "silver",
}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar: its pieces in the unit of the axis, the words at its end, and a mark."""

    label: str
    reference: bool
    pieces: dict[str, float]
    tail: str
    mark: float | None = None
    whisker: tuple[float, float] | None = None


def breakdown(a: Assessment, lang: str) -> Chart | None:
    """Shares of a step by term."""
    bars, rows = [], []
    names = _names([t.name for o in a.options if o.estimate for t in o.estimate.terms if t.time_s > 0], TERM_COLOURS)
    for at in a.ranking:
        option, estimate = a.options[at], a.options[at].estimate
        if estimate is None:
            continue
        total_s = sum(term.time_s for term in estimate.terms)
        shares = {name: sum(t.time_s for t in estimate.terms if t.name == name) / total_s for name in names}
        bars.append(
            Bar(
                label=option.label,
                reference=option.is_reference,
                pieces={n: 100 * s for n, s in shares.items()},
                tail=units.duration(estimate.step_time.mid),
            )
        )
        rows.append(
            (option.label, units.duration(estimate.step_time.mid), *(percent(shares[name]) if shares[name] else "" for name in names))
        )
    if not bars:
        return None
    labels = {name: _label("assess.term", name, lang) for name in names}
    title, caption = messages.text("dossier.chart.breakdown.title", lang), messages.text("dossier.chart.breakdown.caption", lang)
    header = (messages.text("dossier.column.option", lang), messages.text("dossier.column.step", lang), *labels.values())
    return Chart(
        name="breakdown",
        title=title,
        caption=caption,
        svg=_draw("breakdown", title, caption, bars, _colours(names, TERM_COLOURS), limit=100, unit="%"),
        legend=_legend(names, TERM_COLOURS, labels),
        header=header,
        rows=tuple(rows),
    )


def memory(a: Assessment, lang: str) -> Chart | None:
    """Memory of the fullest chip by part, with the interval of the peak and the capacity."""
    bars, rows = [], []
    names = _names([p.name for o in a.options if o.estimate for p in o.estimate.memory.parts if p.size_bytes > 0], PART_COLOURS)
    gib = 2.0**30
    for at in a.ranking:
        option, estimate = a.options[at], a.options[at].estimate
        if estimate is None:
            continue
        parts = {name: sum(p.size_bytes for p in estimate.memory.parts if p.name == name) / gib for name in names}
        peak, capacity = estimate.memory.peak, estimate.memory.capacity_bytes
        cap = number(capacity / gib) if capacity else messages.text("assess.label.unknown", lang)
        bars.append(
            Bar(
                label=option.label,
                reference=option.is_reference,
                pieces=parts,
                tail=f"{number(peak.mid / gib)} / {cap}",
                mark=capacity / gib if capacity else None,
                whisker=(peak.low / gib, peak.high / gib),
            )
        )
        rows.append((option.label, number(peak.mid / gib), cap, *(number(parts[name]) if parts[name] else "" for name in names)))
    if not bars:
        return None
    labels = {name: _label("assess.part", name, lang) for name in names}
    title, caption = messages.text("dossier.chart.memory.title", lang), messages.text("dossier.chart.memory.caption", lang)
    header = tuple(messages.text(f"dossier.column.{word}", lang) for word in ("option", "peak_gib", "capacity_gib")) + tuple(
        labels.values()
    )
    limit = max(max(bar.mark or 0, bar.whisker[1] if bar.whisker else 0, sum(bar.pieces.values())) for bar in bars) * 1.03
    return Chart(
        name="memory",
        title=title,
        caption=caption,
        svg=_draw("memory", title, caption, bars, _colours(names, PART_COLOURS), limit=limit, unit=" GiB"),
        legend=_legend(names, PART_COLOURS, labels),
        header=header,
        rows=tuple(rows),
    )


def _draw(name: str, title: str, caption: str, bars: list[Bar], colours: dict[str, str], *, limit: float, unit: str) -> str:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    left = min(300.0, max(text_width(bar.label) for bar in bars) + 14)
    right = max(text_width(bar.tail) for bar in bars) + 18
    width = WIDTH - left - right
    made = canvas.figure(ROW * len(bars) + 30)
    ax = canvas.axes(made, left=left, bottom=24, width=width, height=ROW * len(bars))
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, limit)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}{unit}"))
    aside = ax.get_yaxis_transform()
    for at, bar in enumerate(bars):
        start = 0.0
        for piece, size in bar.pieces.items():
            ax.barh(
                at,
                size,
                left=start,
                height=BAR,
                color=SERIES[colours[piece]],
                edgecolor=PAPER,
                linewidth=0.8 if size > 0.004 * limit else 0,
            )
            start += size
        if bar.whisker:
            ax.plot(bar.whisker, [at, at], color=INK, linewidth=1.4)
        if bar.mark is not None:
            ax.plot([bar.mark, bar.mark], [at - 0.46, at + 0.46], color=INK, linewidth=2.6)
        weight = "bold" if bar.reference else "normal"
        ax.text(
            -8 / width,
            at,
            clip(bar.label, left - 10),
            transform=aside,
            ha="right",
            va="center_baseline",
            fontsize=FONT,
            fontweight=weight,
            color=INK,
        )
        ax.text(1 + 10 / width, at, bar.tail, transform=aside, ha="left", va="center_baseline", fontsize=FONT, color=MUTED)
    return canvas.svg(made, name=name, title=title, description=caption)


def _names(found: list[str], colours: dict[str, str]) -> list[str]:
    """Names that occur, those of the palette first and in its order."""
    return [name for name in colours if name in found] + sorted(set(found) - set(colours))


def _colours(names: list[str], colours: dict[str, str]) -> dict[str, str]:
    spare = [colour for colour in SERIES if colour not in colours.values()] or list(SERIES)
    unlisted = [name for name in names if name not in colours]
    return {name: colours.get(name) or spare[unlisted.index(name) % len(spare)] for name in names}


def _legend(names: list[str], colours: dict[str, str], labels: dict[str, str]) -> tuple[Key, ...]:
    chosen = _colours(names, colours)
    return tuple(Key(colour=chosen[name], label=labels[name]) for name in names)


def _label(area: str, name: str, lang: str) -> str:
    code = f"{area}.{name}"
    return messages.text(code, lang) if messages.known(code) else name
