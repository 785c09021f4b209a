"""Effort by target as bars on one scale: the interval, its middle, and where the vendor's shim would leave it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from sapper.port.effort import Effort, Range
from sapper.port.report.summary import Summary


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A range on a scale; places are shares of its width."""

    start_share: float
    middle_share: float
    width_share: float
    value: Range


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One target."""

    target: str
    lines: Span
    shim_lines: Span | None
    """None where the target has no shim."""
    files: Range
    extrapolated: bool


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A number under the scale."""

    value: int
    place_share: float


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """All targets on one logarithmic scale of lines."""

    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]


def ranges(summary: Summary) -> Scale:
    """The bars of all targets, in their order."""
    most = max((one.effort.lines.high for one in summary.by_target), default=1)
    top = max(1.0, math.log10(max(most, 1)) * 1.02)
    return Scale(
        lines=tuple(
            Line(
                target=one.target, lines=_span(one.effort, top), shim_lines=_span(one.with_shim, top) if one.with_shim else None,
                files=one.effort.files, extrapolated=one.effort.extrapolated,
            )
            for one in summary.by_target
        ),
        ticks=tuple(_ticks(top)),
    )  # fmt: skip


def _span(effort: Effort, top: float) -> Span:
    value = effort.lines
    low, mid, high = (math.log10(max(count, 1)) / top for count in (value.low, value.mid, value.high))
    return Span(start_share=low, middle_share=mid, width_share=max(high - low, 0.004), value=value)


def _ticks(top: float) -> Iterator[Tick]:
    for power in range(math.floor(top) + 1):
        yield Tick(value=10**power, place_share=power / top)
