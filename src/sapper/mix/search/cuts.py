"""The exact cut of the layers for chains of stage kinds, by dynamic programming from the last stage to the first.

Chains of one or two runs of like stages are for :mod:`sapper.mix.search.runs` where every cut sends as much as any other; here are all
the others. From the back, because what a stage keeps in flight depends on the stages after it alone
(:func:`sapper.mix.order.in_flight`), and so does the way of a micro-batch to the end and back. Chains of one length are cut together.

Legend: B = chains of a batch, N = layers + 1, S = stages, W = N - S; arrays [B, W, W] are indexed [chain, first, last] of stage s, where
``first`` counts from layer s and ``last`` from layer s + 1: before stage s are s layers at the least, and behind it one for each stage.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sapper.mix.order import in_flights
from sapper.mix.search.chains import Chain, Column
from sapper.mix.search.runs import cut_runs, runs_of
from sapper.mix.search.segments import NO_WAY, Kind, Link, Table
from sapper.predict.arrays import Floats, Ints

CELLS = 300_000
"""Of an array [B, N, N]: what a processor's cache holds well."""


def _windows(kinds: tuple[Kind, ...]) -> list[int]:
    """Micro-batches that every replica of each stage starts before its first is back."""
    behind = itertools.accumulate(kind.replicas for kind in reversed(kinds))
    return [held // kind.replicas for kind, held in zip(reversed(kinds), behind, strict=True)][::-1]


def cut(table: Table, chains: Sequence[Chain]) -> list[Column | None]:
    """The fastest column of each of ``chains``, exactly; None where it does not fit or has no times."""
    found: list[Column | None] = [None] * len(chains)
    left = [index for index, chain in enumerate(chains) if _may_work(table, chain)]
    runs = {index: own for index in left if table.even and (own := runs_of(chains[index])) is not None}
    if runs:
        asked = list(runs)
        columns, back = cut_runs(table, [chains[index] for index in asked], list(runs.values()))
        for index, column in zip(asked, columns, strict=True):
            found[index] = column
        left = sorted({*left} - {*asked} | {asked[place] for place in back})
    by_length: dict[int, list[int]] = {}
    for index in left:
        by_length.setdefault(len(chains[index].kinds), []).append(index)
    size = max(1, CELLS // (table.problem.layers + 1) ** 2)
    for members in by_length.values():
        for start in range(0, len(members), size):
            part = members[start : start + size]
            for index, column in zip(part, _cut_batch(table, [chains[i] for i in part]), strict=True):
                found[index] = column
    return found


def _may_work(table: Table, chain: Chain) -> bool:
    """Whether there are layers and times for all stages, and each can send to the next."""
    kinds, size = chain.kinds, chain.micro_batch
    return (
        len(kinds) <= table.problem.layers
        and all(table.segments(kind, size) is not None for kind in dict.fromkeys(kinds))
        and table.reaches(kinds, size)
    )


@dataclass(frozen=True)
class _Steps:
    """One stage of every chain, over all runs of layers that it may hold."""

    pass_s: Floats
    """[B, W, W]"""
    pace_s: Floats
    """[B, W, W]"""
    rest_s: Floats
    """[B, W, W] all micro-batches after the first at that pace; infinite where it may not hold the run."""
    weight: Floats
    """[B] micro-batches after the first, on one replica."""
    window: Floats
    """[B] micro-batches that one replica starts before the first is through."""
    sends_s: Floats
    """[B, W] of an activation and its gradient, and of what is sent once more."""

    def pick(self, keep: Ints) -> _Steps:
        """Some of the chains."""
        return _Steps(*(getattr(self, one.name)[keep] for one in fields(self)))


def _cut_batch(table: Table, chains: list[Chain]) -> list[Column | None]:
    steps = _steps(table, chains)
    quick, cuts = _least_fill(steps, below=np.full(len(chains), np.inf))
    floor = _least_pace(steps)
    quick_pace = _pace(steps, cuts)
    best = quick + quick_pace
    for fill, other in [_least_fill(steps, below=floor * (1.0 + 1e-9) + 1e-30)]:
        total = np.where(fill < NO_WAY, fill + _pace(steps, other), np.inf)
        cuts = np.where((total < best)[:, None], other, cuts)
        best = np.minimum(total, best)
    # Between the two, a slower pace may buy a shorter fill, as long as it can still win with the least fill of all.
    below = np.minimum(best - quick, quick_pace)
    active = np.flatnonzero((quick < NO_WAY) & (below > floor * (1.0 + 1e-9)))
    part = steps if len(active) == len(chains) else [step.pick(active) for step in steps]
    while len(active):
        fill, other = _least_fill(part, below=below[active])
        pace = np.where(fill < NO_WAY, _pace(part, other), 0.0)
        better = (fill < NO_WAY) & (fill + pace < best[active])
        cuts[active[better]], best[active[better]] = other[better], (fill + pace)[better]
        below[active] = np.minimum(pace, below[active]) * (1.0 - 1e-12)
        going = (fill < NO_WAY) & (fill + floor[active] < best[active]) & (below[active] > floor[active] * (1.0 + 1e-9))
        if not going.all():
            active, part = active[going], [step.pick(np.flatnonzero(going)) for step in part]
    ways, paces = _ways(steps, cuts)
    return [
        Column(
            kinds=chain.kinds,
            cuts=tuple(s + int(at) for s, at in enumerate(cuts[b])),
            micro_batch=chain.micro_batch,
            paces_s=tuple(float(one) for one in paces[b]),
            fill_s=float(ways[b, 0]),
            limit=chain.limit,
        )
        if quick[b] < NO_WAY
        else None
        for b, chain in enumerate(chains)
    ]


def _steps(table: Table, chains: list[Chain]) -> list[_Steps]:
    held = np.array([in_flights([kind.replicas for kind in chain.kinds], chain.limit) for chain in chains])
    depth, transport = held.shape[1], table.problem.transport
    size = table.problem.layers + 1 - depth
    windows = np.array([_windows(chain.kinds) for chain in chains], float)
    if not transport.windowed:
        windows[:] = np.inf
    found = []
    around: list[tuple[Kind, ...]] = []
    for s in range(depth):
        kinds = [chain.kinds[s] for chain in chains]
        # Stages in the middle of like ones are alike: their arrays are made once.
        if s < 2 or around != [chain.kinds[s - 1 : s + 2] for chain in chains]:
            around = [chain.kinds[s - 1 : s + 2] for chain in chains] if s else []
            pass_s, pace_s, sends_s = _exchanges(table, chains, s)
        part = slice(s, s + size), slice(s + 1, s + 1 + size)
        room = [table.room(kind, chain.micro_batch, shards=chain.shards[s])[part] for kind, chain in zip(kinds, chains, strict=True)]
        weight = np.array([-(-chain.count // kind.replicas) - 1 for kind, chain in zip(kinds, chains, strict=True)], float)
        allowed = np.stack(room) >= held[:, s, None, None]
        pace = pace_s[:, *part]
        rest_s = np.where(allowed, pace * weight[:, None, None], np.inf)
        found.append(
            _Steps(pass_s=pass_s[:, *part], pace_s=pace, rest_s=rest_s, weight=weight, window=windows[:, s], sends_s=sends_s[:, part[1]])
        )  # fmt: skip
    return found


def _exchanges(table: Table, chains: list[Chain], s: int) -> tuple[Floats, Floats, Floats]:
    """[B, N, N] passes and pace of stage ``s``, and [B, N] what it sends."""
    depth, transport = len(chains[0].kinds), table.problem.transport
    nothing = Link(*np.zeros((3, table.problem.layers + 1)))
    segments = [table.segments(chain.kinds[s], chain.micro_batch) for chain in chains]
    pass_s = np.stack([one.pass_s for one in segments if one is not None])
    before = [table.link(chain.kinds[s - 1], chain.kinds[s], chain.micro_batch) if s else nothing for chain in chains]
    after = [table.link(chain.kinds[s], chain.kinds[s + 1], chain.micro_batch) if s + 1 < depth else nothing for chain in chains]
    sends = np.stack([one.send_s for one in after])
    again = transport.again(depth) * np.minimum(sends, NO_WAY) if s == 0 else np.zeros_like(sends)
    pace = pass_s + np.stack([one.after_s for one in before])[:, :, None] + np.stack([one.before_s for one in after])[:, None, :]
    pace = np.maximum(pace, np.stack([one.send_s for one in before])[:, :, None])
    pace = np.maximum(pace, sends[:, None, :]) + again[:, None, :]
    return pass_s, np.minimum(pace, NO_WAY), 2.0 * np.minimum(sends, NO_WAY) + again


def _runs(step: _Steps, cuts: Ints, s: int) -> tuple[Ints, Ints, Ints]:
    return np.arange(len(cuts)), cuts[:, s], cuts[:, s + 1]


def _ways(steps: list[_Steps], cuts: Ints) -> tuple[Floats, Floats]:
    """[B, stages] the way of a micro-batch from each stage to the end and back, and the stage's pace."""
    ways, paces = np.zeros((2, len(cuts), len(steps)))
    way = np.zeros(len(cuts))
    for s in reversed(range(len(steps))):
        step, run = steps[s], _runs(steps[s], cuts, s)
        way = way + step.pass_s[run] + step.sends_s[run[0], run[2]]
        ways[:, s], paces[:, s] = way, np.maximum(step.pace_s[run], way / step.window)
    return ways, paces


def _pace(steps: list[_Steps], cuts: Ints) -> Floats:
    """[B] of the slowest stage, after the first micro-batch."""
    weights = np.stack([step.weight for step in steps], axis=1)
    return np.asarray((_ways(steps, cuts)[1] * weights).max(axis=1), float)


def _least_pace(steps: list[_Steps]) -> Floats:
    """[B] of all cuts, no more than the least of the slowest stage's time after the first micro-batch."""
    size = steps[0].pass_s.shape[1]
    ends = np.full((len(steps[0].weight), size), np.inf)
    ends[:, -1] = 0.0
    for step in reversed(steps):
        ends = np.maximum(step.rest_s, ends[:, None, :]).min(axis=2)
    return np.asarray(ends[:, 0], float)


def _least_fill(steps: list[_Steps], *, below: Floats) -> tuple[Floats, Ints]:
    """[B] the least fill with every stage below ``below``, and [B, stages + 1] its cuts; above ``NO_WAY`` where there is none."""
    chains, size = len(steps[0].weight), steps[0].pass_s.shape[1]
    ends = np.full((chains, size), 2.0 * NO_WAY)
    ends[:, -1] = 0.0
    behind: list[Floats] = []
    for step in reversed(steps):
        behind.append(step.sends_s + ends)
        total = np.where(step.rest_s < below[:, None, None], step.pass_s + behind[-1][:, None, :], 2.0 * NO_WAY)
        ends = total.min(axis=2)
        # The shortest way is both the best and the first to be allowed.
        ends = np.where(ends * step.weight[:, None] < (below * step.window)[:, None], ends, 2.0 * NO_WAY)
    cuts = np.zeros((chains, len(steps) + 1), np.int64)
    for s, (step, rest) in enumerate(zip(steps, reversed(behind), strict=True)):
        first = np.arange(chains), cuts[:, s]
        total = np.where(step.rest_s[first] < below[:, None], step.pass_s[first] + rest, 2.0 * NO_WAY)
        cuts[:, s + 1] = total.argmin(axis=1)
    return np.asarray(ends[:, 0], float), cuts
