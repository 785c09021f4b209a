"""The exact cut of the layers for a chain of stage kinds, by dynamic programming from the last stage to the first.

From the back, because what a stage keeps in flight depends on the stages after it alone (:func:`sapper.mix.order.in_flight`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sapper.mix.plan import Pipeline, Stage
from sapper.mix.search.segments import Kind, Table
from sapper.predict.arrays import Bools, Floats, Ints

UNLIMITED = 1 << 40
"""Micro-batches: as many as the time allows."""


@dataclass(frozen=True)
class Column:
    """One copy of a pipeline, its number of micro-batches left open."""

    kinds: tuple[Kind, ...]
    cuts: tuple[int, ...]
    """First layer of each stage, and L."""
    micro_batch: int
    paces_s: tuple[float, ...]
    """Each further micro-batch, by stage: :attr:`sapper.mix.objective.StageScore.pace_s`."""
    fill_s: float
    """The first micro-batch through all stages and back."""
    limit: int
    """Micro-batches at most: more would not fit in memory."""

    def time_s(self, count: int) -> float:
        """All of ``count`` micro-batches."""
        return self.fill_s + max((-(-count // kind.replicas) - 1) * one for kind, one in zip(self.kinds, self.paces_s, strict=True))

    def most(self, time_s: float) -> int:
        """Micro-batches in ``time_s``."""
        left = time_s - self.fill_s
        if left < 0.0:
            return 0
        return min(self.limit, *(kind.replicas * (1 + int(left / one + 1e-9)) for kind, one in zip(self.kinds, self.paces_s, strict=True)))

    def chips(self, group: str) -> int:
        """That one copy takes of ``group``."""
        return sum(kind.chips for kind in self.kinds if kind.group == group)

    def pipeline(self, *, micro_batches: int, copies: int) -> Pipeline:
        """The column at work."""
        stages = tuple(
            Stage(group=kind.group, first=first, last=last, tp=kind.tp, replicas=kind.replicas, zero=kind.zero, recompute=kind.recompute)
            for kind, first, last in zip(self.kinds, self.cuts, self.cuts[1:], strict=False)
        )
        return Pipeline(stages=stages, micro_batch=self.micro_batch, micro_batches=micro_batches, copies=copies)


@dataclass(frozen=True)
class _Step:
    """One stage of the chain, over all runs of layers that it may hold."""

    pass_s: Floats
    pace_s: Floats
    """Infinite where the run is empty."""
    allowed: Bools
    weight: int
    """Micro-batches after the first, on one replica."""
    sends_s: Floats


def flights(kinds: tuple[Kind, ...], *, count: int) -> tuple[int, ...]:
    """Micro-batches in flight on a chip of each stage: :func:`sapper.mix.order.in_flight` of a chain that has no layers yet."""
    behind, found = 0, []
    for kind in reversed(kinds):
        behind += kind.replicas
        found.append(min(-(-count // kind.replicas), -(-behind // kind.replicas)))
    return tuple(reversed(found))


def cut(
    table: Table, kinds: tuple[Kind, ...], *, micro_batch: int, count: int, shards: tuple[int, ...], limit: int = UNLIMITED
) -> Column | None:
    """The fastest column of ``kinds`` for ``count`` micro-batches, exactly; None where it does not fit.

    Args:
        table: Costs.
        kinds: Of the stages in order.
        micro_batch: Sequences.
        count: Micro-batches that the time is to be least for.
        shards: Chips that share the sharded states, by stage.
        limit: The column must fit at this many micro-batches.
    """
    steps = _steps(table, kinds, micro_batch=micro_batch, count=count, limit=limit, shards=shards)
    if steps is None:
        return None
    floor = _least_pace(steps)
    if not np.isfinite(floor):
        return None
    balanced, quick = _least_fill(steps, below=floor * (1.0 + 1e-9) + 1e-30), _least_fill(steps, below=np.inf)
    if balanced is None or quick is None:  # two of the groups cannot reach each other
        return None
    best = min(balanced[0] + floor, quick[0] + _pace(steps, quick[1])), balanced[1]
    if best[0] < balanced[0] + floor:
        best = best[0], quick[1]
    # Between the two, a slower pace may buy a shorter fill, as long as it can still win with the least fill of all.
    below = min(best[0] - quick[0], _pace(steps, quick[1]))
    while below > floor * (1.0 + 1e-9):
        found = _least_fill(steps, below=below)
        if found is None:
            break
        pace = _pace(steps, found[1])
        if found[0] + pace < best[0]:
            best = found[0] + pace, found[1]
        if found[0] + floor >= best[0]:
            break
        below = pace
    return _column(steps, kinds, best[1], micro_batch, limit=limit)


def _steps(
    table: Table, kinds: tuple[Kind, ...], *, micro_batch: int, count: int, limit: int, shards: tuple[int, ...]
) -> list[_Step] | None:
    held = flights(kinds, count=limit)
    links = [table.link(a, b, micro_batch) for a, b in itertools.pairwise(kinds)]
    steps: list[_Step] = []
    for index, kind in enumerate(kinds):
        segments = table.segments(kind, micro_batch)
        if segments is None:
            return None
        pace_s, sends_s = segments.pass_s, np.zeros(len(segments.pass_s))
        if index:
            before = links[index - 1]
            pace_s = np.maximum(pace_s + before.after_s[:, None], before.send_s[:, None])
        if index + 1 < len(kinds):
            after = links[index]
            pace_s, sends_s = np.maximum(pace_s + after.before_s[None, :], after.send_s[None, :]), after.send_s
        room = table.room(kind, micro_batch, shards=shards[index])
        steps.append(
            _Step(
                pass_s=segments.pass_s,
                pace_s=pace_s,
                allowed=room >= held[index],
                weight=-(-count // kind.replicas) - 1,
                sends_s=2.0 * sends_s,
            )
        )
    return steps


def _column(steps: list[_Step], kinds: tuple[Kind, ...], cuts: list[int], micro_batch: int, *, limit: int) -> Column:
    runs = list(zip(steps, cuts, cuts[1:], strict=False))
    return Column(
        kinds=kinds,
        cuts=tuple(cuts),
        micro_batch=micro_batch,
        paces_s=tuple(float(step.pace_s[a, b]) for step, a, b in runs),
        fill_s=sum(float(step.pass_s[a, b] + step.sends_s[b]) for step, a, b in runs),
        limit=limit,
    )


def _pace(steps: list[_Step], cuts: list[int]) -> float:
    """Of the slowest stage, after the first micro-batch."""
    return max(step.weight * float(step.pace_s[a, b]) for step, a, b in zip(steps, cuts, cuts[1:], strict=False))


def _least_pace(steps: list[_Step]) -> float:
    """Of all cuts, the least of the slowest stage's time after the first micro-batch."""
    ends = np.full(len(steps[0].pass_s), np.inf)
    ends[-1] = 0.0
    for step in reversed(steps):
        with np.errstate(invalid="ignore"):
            own = np.where(step.allowed, step.pace_s * step.weight, np.inf)
        ends = np.maximum(np.where(np.isnan(own), np.inf, own), ends[None, :]).min(axis=1)
    return float(ends[0])


def _least_fill(steps: list[_Step], *, below: float) -> tuple[float, list[int]] | None:
    """The cut of least fill whose stages all stay below ``below``."""
    ends = np.full(len(steps[0].pass_s), np.inf)
    ends[-1] = 0.0
    choices: list[Ints] = []
    for step in reversed(steps):
        with np.errstate(invalid="ignore"):
            allowed = step.allowed & (step.pace_s * step.weight < below) if np.isfinite(below) else step.allowed
        total = np.where(allowed, step.pass_s + (step.sends_s + ends)[None, :], np.inf)
        choice = total.argmin(axis=1)
        choices.append(choice)
        ends = total[np.arange(len(total)), choice]
    if not np.isfinite(ends[0]):
        return None
    cuts = [0]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return float(ends[0]), cuts
