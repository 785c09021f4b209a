"""Copies and micro-batches: a fleet of columns that takes the global batch in the least time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sapper.mix.plan import Pipeline
from sapper.mix.problem import Supply
from sapper.mix.search.chains import Column
from sapper.mix.search.knapsack import Lines, whole
from sapper.mix.search.segments import Kind, Table
from sapper.predict.arrays import Floats, Ints

STEPS = 30
"""Halvings of the range of step times."""


@dataclass(frozen=True)
class Pool:
    """Columns as arrays. Legend: K = columns, G = groups, R = distinct numbers of replicas, U = distinct uses of chips."""

    groups: tuple[Supply, ...]
    columns: tuple[Column, ...]
    chips: Ints
    """[K, G]"""
    sizes: Ints
    """[K] sequences of a micro-batch."""
    limits_of: Ints
    """[K] micro-batches at most."""
    fill_s: Floats
    """[K]"""
    replicas: tuple[int, ...]
    """[R]"""
    paces_s: Floats
    """[K, R] the slowest stage with so many replicas; next to nothing where there is none."""

    @staticmethod
    def of(groups: tuple[Supply, ...], columns: Sequence[Column]) -> Pool:
        """All of ``columns`` over the chips of ``groups``."""
        at = {supply.name: g for g, supply in enumerate(groups)}
        replicas = tuple(sorted({kind.replicas for one in columns for kind in one.kinds}))
        rank = {count: r for r, count in enumerate(replicas)}
        chips, paces = np.zeros((len(columns), len(groups)), np.int64), np.full((len(columns), len(replicas)), 1e-30)
        for k, one in enumerate(columns):
            for name, count in one.taken:
                chips[k, at[name]] = count
            for count, pace in one.turns_s:
                paces[k, rank[count]] = pace
        return Pool(
            groups=groups,
            columns=tuple(columns),
            chips=chips,
            sizes=np.array([one.micro_batch for one in columns], np.int64),
            limits_of=np.array([one.limit for one in columns], np.int64),
            fill_s=np.array([one.fill_s for one in columns]),
            replicas=replicas,
            paces_s=paces,
        )

    @cached_property
    def limits(self) -> Ints:
        """[G] chips there are."""
        return np.array([supply.chips for supply in self.groups], np.int64)

    @cached_property
    def keys(self) -> list[tuple[int, ...]]:
        """[K] chips by group, and sequences of a micro-batch."""
        return [(*row, size) for row, size in zip(self.chips.tolist(), self.sizes.tolist(), strict=True)]

    @cached_property
    def alike(self) -> tuple[Ints, Ints, Ints]:
        """Columns that take the same chips: [K] an order that brings them together, [U] where each use begins, [U, G] its chips."""
        order = np.lexsort(self.chips.T)
        rows = self.chips[order]
        starts = np.flatnonzero(np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1))))
        return order, starts, rows[starts]

    def most(self, time_s: float) -> Ints:
        """[K] micro-batches in ``time_s``: :meth:`Column.most`."""
        left = time_s - self.fill_s
        turns = np.minimum(np.maximum(left, 0.0)[:, None] / self.paces_s + 1e-9, 1e12).astype(np.int64) + 1
        return np.where(left < 0.0, 0, np.minimum(self.limits_of, (turns * np.array(self.replicas)).min(axis=1)))

    def times_s(self, counts: Ints) -> Floats:
        """[K] of so many micro-batches: :meth:`Column.time_s`."""
        turns = -(-counts[:, None] // np.array(self.replicas)) - 1
        return np.asarray(self.fill_s + (turns * self.paces_s).max(axis=1), float)

    def pick(self, keep: np.ndarray) -> Pool:
        """The columns where ``keep`` holds."""
        return Pool(
            self.groups, tuple(itertools.compress(self.columns, keep)), self.chips[keep], self.sizes[keep], self.limits_of[keep],
            self.fill_s[keep], self.replicas, self.paces_s[keep],
        )  # fmt: skip


def after_s(table: Table, groups: Sequence[Supply], columns: Sequence[Column]) -> Floats:
    """[K] what each column's chips do after the last micro-batch, if columns of its size and degrees fill the cluster."""
    known: dict[tuple[tuple[Kind, ...], tuple[int, ...]], float] = {}
    members: dict[tuple[object, ...], dict[tuple[str, int], int]] = {}
    for one in columns:
        # neither reduction nor update depends on the size of a micro-batch
        if (one.kinds, one.cuts) in known:
            continue
        worst = 0.0
        for kind, params, update_s in table.closing(one.kinds, one.cuts, one.micro_batch):
            key = one.taken, kind.tp, kind.replicas
            if key not in members:
                members[key] = _members(groups, dict(one.taken), kind)
            shards = members[key].get((kind.group, kind.tp), 1) if kind.zero else 1
            reduce_s = table.problem.network.all_reduce_s(params * kind.tp * table.problem.state.wire, members[key])
            worst = max(worst, reduce_s + update_s / shards)
        known[one.kinds, one.cuts] = worst
    return np.array([known[one.kinds, one.cuts] for one in columns])


def _members(groups: Sequence[Supply], taken: Mapping[str, int], kind: Kind) -> dict[tuple[str, int], int]:
    """Who holds the layers of a stage of ``kind``, if columns that take so many chips fill each of ``groups``."""
    size, found = sum(taken.values()), {}
    for supply in groups:
        tp = max((tp for tp in supply.tps if tp <= kind.tp), default=min(supply.tps))
        found[supply.name, tp] = max(1, supply.chips // max(taken.get(supply.name, 0), size)) * kind.replicas
    return found


def quickest(pool: Pool, batch: int) -> tuple[Pipeline, ...] | None:
    """The fleet of ``pool`` that takes ``batch`` sequences in the least time of its slowest pipeline; None where it cannot."""
    high = float(pool.times_s(np.where(pool.limits_of >= batch, -(-batch // pool.sizes), pool.limits_of)).max())
    order, starts, uses = pool.alike
    lines = Lines(uses, pool.limits)

    def enough(time_s: float) -> Ints | None:
        """Copies of each column that take ``batch`` or more in ``time_s``; of those with the same chips, the one that takes most."""
        values = np.minimum(pool.most(time_s) * pool.sizes, batch)[order]
        best = np.maximum.reduceat(values, starts).astype(float)
        relaxed = lines.relax(best)
        if relaxed.value < batch - 1e-6:
            return None
        copies = whole(best, uses, limits=pool.limits, relaxed=relaxed)
        if float(best @ copies) < batch:
            return None
        counts = np.zeros(len(values), np.int64)
        for u in np.flatnonzero(copies):
            end = starts[u + 1] if u + 1 < len(starts) else len(values)
            counts[order[starts[u] + int(np.argmax(values[starts[u] : end]))]] = copies[u]
        return counts

    counts = enough(high)
    if counts is None:
        return None
    low, best = 0.0, (high, counts)
    for _ in range(STEPS):
        # Times of fleets span orders of magnitude at first.
        middle = (low + high) / 2.0 if low else high / 4.0
        counts = enough(middle)
        if counts is None:
            low = middle
        else:
            high, best = middle, (middle, counts)
        if high - low <= 1e-4 * high:
            break
    return exactly(pool, batch, counts=best[1], time_s=best[0])


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
