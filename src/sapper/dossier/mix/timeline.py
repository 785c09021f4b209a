"""The timeline of one step as SVG, written by hand: no library, text stays text, colours follow the page around it.

A lane is drawn event by event where each is wide enough to see. Where a step has more passes than that, its whole length is drawn as
shares (how much of each moment was forward, backward, or waiting), and below it the first and the last passes one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sapper import messages, units
from sapper.dossier.charts.canvas import SERIES, clip, text_width
from sapper.dossier.mix.lanes import Happening, Lane, lanes, span_s
from sapper.mix.plan import MixPlan

WIDTH = 1080.0
LABELS, SHARES, GAP = 258.0, 52.0, 22.0
"""Columns of names on the left and of busy shares on the right; space between two windows."""
HEAD, AXIS, FOOT = 22.0, 26.0, 34.0
"""Of a pipeline's heading, of the time axis, of the legend."""
SMALL = 10.5
MOST_SINGLE = 110
"""Events of a lane that are drawn one by one over the whole width."""
ZOOM = 11
"""Passes of the slowest lane that a window shows."""
BIN = 4.0
"""Width of one share."""
COLOURS = {"forward": "blue", "backward": "orange", "recompute": "sky", "send": "grey", "reduce": "green", "update": "pink"}
THIN = frozenset({"send"})
"""Goes on beside the passes, and is a line under them."""
GROUP_COLOURS = ("teal", "wine", "olive", "vermilion", "sky", "grey")


@dataclass(frozen=True)
class _Window:
    """A part of the step on a part of the width."""

    left: float
    width: float
    start_s: float
    end_s: float
    single: bool
    """Events one by one; else shares."""

    def x(self, at_s: float) -> float:
        """Place of a moment."""
        inside = min(max(at_s, self.start_s), self.end_s)
        return self.left + self.width * (inside - self.start_s) / (self.end_s - self.start_s)


def timeline(plan: MixPlan, events: Iterable[Happening], lang: str, *, groups: Sequence[str] = (), alone: bool = True) -> str:
    """One step of ``plan`` as an ``<svg>`` element.

    Args:
        plan: Whose seats the events name.
        events: Of one step.
        lang: ``en`` or ``zh``.
        groups: In the order of their colours; those that are not named follow.
        alone: The file stands by itself: with a background and fonts of its own, which a page around it has already.
    """
    shown, hidden = lanes(plan, events)
    length_s = span_s(shown)
    if not shown or length_s <= 0:
        return ""
    named = dict.fromkeys((*groups, *(lane.group for lane in shown)))
    colours = {name: GROUP_COLOURS[at % len(GROUP_COLOURS)] for at, name in enumerate(named)}
    height = 26.0 if len(shown) <= 10 else 18.0 if len(shown) <= 28 else 13.0
    pieces: list[str] = []
    top = 6.0
    for windows in _panels(shown, length_s):
        top = _panel(pieces, plan, shown, windows, top=top, height=height, colours=colours, lang=lang)
    top = _legend(pieces, shown, top=top, lang=lang)
    if hidden:
        pieces.append(_text(0, top + 4, messages.text("mix.timeline.hidden", lang, count=hidden), size=SMALL, muted=True))
        top += 20
    return _svg(pieces, top, plan, lang, alone=alone)


def _panels(shown: Sequence[Lane], length_s: float) -> list[list[_Window]]:
    width = WIDTH - LABELS - SHARES
    most = max(len(lane.events) for lane in shown)
    if most <= MOST_SINGLE:
        return [[_Window(LABELS, width, 0.0, length_s, single=True)]]
    passes = [sorted(one.end_s - one.start_s for one in lane.events if one.kind in ("forward", "backward")) for lane in shown]
    part_s = min(ZOOM * max(times[len(times) // 2] for times in passes if times), length_s / 2)
    half = (width - GAP) / 2
    first = _Window(LABELS, half, 0.0, part_s, single=True)
    last = _Window(LABELS + half + GAP, half, length_s - part_s, length_s, single=True)
    return [[_Window(LABELS, width, 0.0, length_s, single=False)], [first, last]]


def _panel(
    out: list[str], plan: MixPlan, shown: Sequence[Lane], windows: Sequence[_Window], *, top: float, height: float,
    colours: Mapping[str, str], lang: str,
) -> float:  # fmt: skip
    """Draws one panel from ``top`` downwards; returns where it ends."""
    if len(windows) > 1:
        for window, code in zip(windows, ("first", "last"), strict=True):
            out.append(_text(window.left, top + 12, messages.text(f"mix.timeline.{code}", lang), size=SMALL, muted=True))
        top += 18
    pipelines = len({lane.pipeline for lane in shown})
    for window in windows:  # below the lanes, which cover them
        _ticks(out, window, top + HEAD, top + HEAD * pipelines + height * len(shown))
    for at, lane in enumerate(shown):
        if lane.pipeline != (shown[at - 1].pipeline if at else None):
            out.append(_text(0, top + 15, _heading(plan, lane, lang), size=11.5, bold=True))
            top += HEAD
        out.append(f"<g><title>{escape(_told(plan, lane, lang))}</title>")
        out.append(_rect(0, top + 1, 4, height - 2, colours[lane.group]))
        out.append(_text(10, top + height / 2 + 4, clip(_label(lane, lang), LABELS - 22, size=SMALL), size=SMALL))
        for window in windows:
            out.append(_line(window.left, top + height, window.left + window.width))
            (_events if window.single else _shares)(out, lane, window, top=top, height=height)
        share = lane.busy_s / span_s(shown)
        out.append(_text(WIDTH - SHARES + 10, top + height / 2 + 4, f"{share:.0%}", size=SMALL, muted=True))
        out.append("</g>")
        top += height
    return top + AXIS


def _events(out: list[str], lane: Lane, window: _Window, *, top: float, height: float) -> None:
    """Each event as a box, one path for a kind; the number of its micro-batch where there is room."""
    paths: dict[str, list[str]] = {}
    numbers: list[str] = []
    for event in lane.events:
        if event.end_s <= window.start_s or event.start_s >= window.end_s:
            continue
        left, right = window.x(event.start_s), window.x(event.end_s)
        thin = event.kind in THIN
        y, tall = (top + height - 3.5, 2.5) if thin else (top + 2, height - 6.5)
        inner = max(right - left - 0.6, 0.4)
        paths.setdefault(event.kind, []).append(f"M{left:.1f} {y:.1f}h{inner:.1f}v{tall:.1f}h-{inner:.1f}z")
        label = "" if event.micro_batch < 0 or thin else str(event.micro_batch)
        size = min(10.0, height - 6)
        if label and text_width(label, size) + 2 < inner and tall >= 8:
            numbers.append(
                f'<text x="{(left + right) / 2:.1f}" y="{y + tall / 2 + size * 0.36:.1f}" font-size="{size:g}" text-anchor="middle" '
                f'fill="{"#fff" if event.kind == "forward" else "#1a1c1e"}">{label}</text>'
            )
    out += [f'<path d="{"".join(path)}" fill="{_colour(kind)}"/>' for kind, path in paths.items()]
    out += numbers


def _shares(out: list[str], lane: Lane, window: _Window, *, top: float, height: float) -> None:
    """What each moment went to: kinds stacked, waiting is what is left free."""
    bins = int(window.width / BIN)
    step_s = (window.end_s - window.start_s) / bins
    tall = height - 4
    filled: dict[str, list[float]] = {}
    for event in lane.events:
        if event.kind in THIN:
            continue
        shares = filled.setdefault(event.kind, [0.0] * bins)
        first, last = (event.start_s - window.start_s) / step_s, (event.end_s - window.start_s) / step_s
        for at in range(max(int(first), 0), min(math.ceil(last), bins)):
            shares[at] += max(min(last, at + 1) - max(first, at), 0.0)
    base = [0.0] * bins
    for kind in sorted(filled, key=_rank):
        upper = [min(low + more, 1.0) for low, more in zip(base, filled[kind], strict=True)]
        out.append(f'<path d="{_band(base, upper, left=window.left, bottom=top + 2 + tall, tall=tall)}" fill="{_colour(kind)}"/>')
        base = upper


def _band(lower: Sequence[float], upper: Sequence[float], *, left: float, bottom: float, tall: float) -> str:
    """The area between two staircases; runs without height are left out, steps of equal height are one."""
    path: list[str] = []
    at = 0
    while at < len(upper):
        if upper[at] - lower[at] < 0.01:
            at += 1
            continue
        end = at
        while end < len(upper) and abs(upper[end] - upper[at]) < 0.01 and abs(lower[end] - lower[at]) < 0.01:
            end += 1
        y, high, wide = bottom - tall * upper[at], tall * (upper[at] - lower[at]), BIN * (end - at)
        path.append(f"M{left + BIN * at:.1f} {y:.1f}h{wide:g}v{high:.1f}h-{wide:g}z")
        at = end
    return "".join(path)


def _ticks(out: list[str], window: _Window, top: float, bottom: float) -> None:
    """The axis below; a thin line upwards at each mark."""
    length_s = window.end_s - window.start_s
    step_s = _nice(length_s / max(window.width / 110, 2))
    factor, unit = (1.0, "s") if window.end_s >= 1 else (1e3, "ms") if window.end_s >= 1e-3 else (1e6, "us")
    for k in range(math.ceil(window.start_s / step_s - 1e-9), math.floor(window.end_s / step_s + 1e-9) + 1):
        x = window.x(k * step_s)
        out.append(f'<path d="M{x:.1f} {top:.1f}V{bottom + 4:.1f}" stroke="var(--rule, #dfe2e5)" fill="none"/>')
        shown = units.significant(k * step_s * factor, 4)
        label = f"{shown} {unit}"
        anchor = "start" if x < window.left + 12 else "end" if x > window.left + window.width - 12 else "middle"
        out.append(_text(x, bottom + 17, label, size=SMALL, muted=True, anchor=anchor))


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _legend(out: list[str], shown: Sequence[Lane], *, top: float, lang: str) -> float:
    kinds = sorted({event.kind for lane in shown for event in lane.events}, key=_rank)
    x = LABELS
    for kind in kinds:
        code = f"mix.timeline.kind.{kind}"
        label = messages.text(code, lang) if messages.known(code) else kind
        out.append(_rect(x, top + 4, 12, 3 if kind in THIN else 12, COLOURS.get(kind, "silver")))
        out.append(_text(x + 17, top + 14, label, size=11.5))
        x += 17 + text_width(label, 11.5) + 20
    out.append(_text(x, top + 14, messages.text("mix.timeline.free", lang), size=11.5, muted=True))
    return top + FOOT


def _rank(kind: str) -> tuple[int, str]:
    known = list(COLOURS)
    return (known.index(kind) if kind in known else len(known), kind)


def _heading(plan: MixPlan, lane: Lane, lang: str) -> str:
    one = plan.pipelines[lane.pipeline]
    return messages.text(
        "mix.timeline.pipeline", lang, number=lane.pipeline, copies=one.copies, micro_batches=one.micro_batches, size=one.micro_batch
    )


def _label(lane: Lane, lang: str) -> str:
    own = messages.text("mix.timeline.replica", lang, number=lane.replica) if lane.replicas > 1 else ""
    tp = f" tp {lane.tp}" if lane.tp > 1 else ""
    return f"{lane.group}{tp}: {messages.text('mix.timeline.layers', lang, first=lane.first, last=lane.last - 1)}{own}"


def _told(plan: MixPlan, lane: Lane, lang: str) -> str:
    return f"{_heading(plan, lane, lang)}: {_label(lane, lang)}"


def _colour(kind: str) -> str:
    name = COLOURS.get(kind, "silver")
    return f"var(--c-{name}, {SERIES[name]})"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:g}" height="{height:g}" fill="var(--c-{colour}, {SERIES[colour]})"/>'


def _line(x: float, y: float, end: float) -> str:
    return f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="var(--rule, #dfe2e5)" fill="none"/>'


def _text(x: float, y: float, text: str, *, size: float, bold: bool = False, muted: bool = False, anchor: str = "start") -> str:
    colour = "var(--muted, #63686e)" if muted else "currentColor"
    weight = ' font-weight="600"' if bold else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{weight}{place} fill="{colour}">{escape(text)}</text>'


_FONTS = "'Segoe UI','Helvetica Neue',Arial,'Noto Sans','PingFang SC','Microsoft YaHei','Noto Sans CJK SC','WenQuanYi Micro Hei',sans-serif"


def _svg(pieces: Sequence[str], height: float, plan: MixPlan, lang: str, *, alone: bool) -> str:
    title = messages.text("mix.timeline.title", lang, model=plan.model, cluster=plan.cluster)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}"'
    if not alone:
        return f"{head}><title>{escape(title)}</title>{''.join(pieces)}</svg>"
    margin = 18.0
    frame = f'viewBox="-{margin:g} -{margin + 24:g} {WIDTH + 2 * margin:g} {height + 2 * margin + 24:g}"'
    head = head.replace(f'viewBox="0 0 {WIDTH:g} {height:g}"', frame)
    back = f'<rect x="-{margin:g}" y="-{margin + 24:g}" width="100%" height="100%" fill="#fff"/>'
    named = _text(0, -8, title, size=14, bold=True)
    return f'{head} font-family="{_FONTS}" style="color:#1a1c1e"><title>{escape(title)}</title>{back}{named}{"".join(pieces)}</svg>\n'
