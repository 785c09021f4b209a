"""Copies and micro-batches: a fleet of columns that takes the global batch in the least time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sapper.mix.plan import Pipeline
from sapper.mix.problem import Supply
from sapper.mix.search.cuts import Column
from sapper.mix.search.knapsack import relax, whole
from sapper.mix.search.segments import Table
from sapper.predict.arrays import Floats, Ints

STEPS = 30
"""Halvings of the range of step times."""


@dataclass(frozen=True)
class Pool:
    """Columns as arrays. Legend: K = columns, G = groups, S = most stages."""

    groups: tuple[Supply, ...]
    columns: tuple[Column, ...]

    @cached_property
    def chips(self) -> Ints:
        """[K, G]."""
        return np.array([[one.chips(supply.name) for supply in self.groups] for one in self.columns], np.int64)

    @cached_property
    def limits(self) -> Ints:
        """[G] chips there are."""
        return np.array([supply.chips for supply in self.groups], np.int64)

    @cached_property
    def sizes(self) -> Ints:
        """[K] sequences of a micro-batch."""
        return np.array([one.micro_batch for one in self.columns], np.int64)

    @cached_property
    def keys(self) -> list[tuple[int, ...]]:
        """[K] chips by group, and sequences of a micro-batch."""
        return [(*(int(count) for count in row), int(size)) for row, size in zip(self.chips, self.sizes, strict=True)]

    @cached_property
    def _fill_s(self) -> Floats:
        return np.array([one.fill_s for one in self.columns])

    @cached_property
    def _paces(self) -> tuple[Floats, Ints, Ints]:
        depth = max(len(one.kinds) for one in self.columns)
        paces, replicas = np.full((len(self.columns), depth), 1e-30), np.full((len(self.columns), depth), 1 << 20, np.int64)
        for k, one in enumerate(self.columns):
            paces[k, : len(one.kinds)] = one.paces_s
            replicas[k, : len(one.kinds)] = [kind.replicas for kind in one.kinds]
        return paces, replicas, np.array([one.limit for one in self.columns], np.int64)

    def most(self, time_s: float) -> Ints:
        """[K] micro-batches in ``time_s``: :meth:`Column.most`."""
        paces, replicas, limits = self._paces
        left = time_s - self._fill_s
        turns = np.minimum(np.maximum(left, 0.0)[:, None] / paces + 1e-9, 1e12).astype(np.int64) + 1
        return np.where(left < 0.0, 0, np.minimum(limits, (turns * replicas).min(axis=1)))

    def pick(self, keep: np.ndarray) -> Pool:
        """The columns where ``keep`` holds."""
        return Pool(self.groups, tuple(one for one, kept in zip(self.columns, keep, strict=True) if kept))


def after_s(table: Table, groups: Sequence[Supply], column: Column) -> float:
    """What a column's chips do after the last micro-batch, if columns of its size and degrees fill the cluster."""
    problem, size = table.problem, sum(kind.chips for kind in column.kinds)
    worst = 0.0
    for kind in set(column.kinds):
        segments = table.segments(kind, column.micro_batch)
        assert segments is not None, "a column has times"
        runs = [(a, b) for one, a, b in zip(column.kinds, column.cuts, column.cuts[1:], strict=False) if one == kind]
        weight = max(float(segments.params[run]) for run in runs) * kind.tp
        members: dict[tuple[str, int], int] = {}
        for supply in groups:
            sets = max(1, supply.chips // max(column.chips(supply.name), size)) * kind.replicas
            members[supply.name, max((tp for tp in supply.tps if tp <= kind.tp), default=min(supply.tps))] = sets
        update = max(float(segments.update_s[run]) for run in runs)
        shards = members.get((kind.group, kind.tp), 1) if kind.zero else 1
        worst = max(worst, problem.network.all_reduce_s(weight * problem.state.wire, members) + update / shards)
    return worst


def quickest(pool: Pool, batch: int) -> tuple[Pipeline, ...] | None:
    """The fleet of ``pool`` that takes ``batch`` sequences in the least time of its slowest pipeline; None where it cannot."""
    high = float(max(one.time_s(-(-batch // one.micro_batch)) if one.limit >= batch else one.time_s(one.limit) for one in pool.columns))
    counts = _enough(pool, batch, time_s=high)
    if counts is None:
        return None
    low, best = 0.0, (high, counts)
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        counts = _enough(pool, batch, time_s=middle)
        if counts is None:
            low = middle
        else:
            high, best = middle, (middle, counts)
        if high - low <= 1e-4 * high:
            break
    return exactly(pool, batch, counts=best[1], time_s=best[0])


def _enough(pool: Pool, batch: int, *, time_s: float) -> Ints | None:
    """Copies of each column that take ``batch`` or more in ``time_s``."""
    values = (pool.most(time_s) * pool.sizes).astype(float)
    values = np.minimum(values, batch)
    relaxed = relax(values, pool.chips, limits=pool.limits)
    if relaxed.value < batch - 1e-6:
        return None
    counts = whole(values, pool.chips, limits=pool.limits, relaxed=relaxed)
    return counts if float(values @ counts) >= batch else None


def exactly(pool: Pool, batch: int, *, counts: Ints, time_s: float) -> tuple[Pipeline, ...] | None:
    """Take micro-batches from the copies that would finish last until ``batch`` is met; None where the sizes do not allow it."""
    most = pool.most(time_s)
    copies = {(int(k), int(most[k])): int(counts[k]) for k in np.flatnonzero(counts)}
    excess = sum(number * count * int(pool.sizes[k]) for (k, count), number in copies.items()) - batch
    while excess > 0:
        able = [one for one in copies if pool.sizes[one[0]] <= excess]
        if not able:
            return None
        k, count = last = max(able, key=lambda one: pool.columns[one[0]].time_s(one[1]))
        taken = min(copies[last], excess // int(pool.sizes[k]))
        copies[last] -= taken
        if not copies[last]:
            del copies[last]
        if count > 1:
            copies[k, count - 1] = copies.get((k, count - 1), 0) + taken
        excess -= taken * int(pool.sizes[k])
    return tuple(pool.columns[k].pipeline(micro_batches=count, copies=number) for (k, count), number in copies.items())


def thresholds(values: Floats, *, at_most: int) -> list[float]:
    """Distinct levels of ``values`` to try as the greatest time after the last micro-batch."""
    levels = np.unique(values)
    if len(levels) > at_most:
        levels = levels[np.unique(np.linspace(0, len(levels) - 1, at_most).round().astype(int))]
    return [float(level) for level in levels]
