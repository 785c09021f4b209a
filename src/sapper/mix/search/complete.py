"""Small problems whole: every chain of stage kinds, replicas included, and every fleet of them that a step time allows.

What is left to judgement is only how the reduction of gradients is foreseen while fleets are put together; the objective prices the
best fleets of every foreseen level.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sapper.mix.plan import Pipeline
from sapper.mix.problem import Problem, Supply
from sapper.mix.search.candidates import copies_of, kinds_of
from sapper.mix.search.cuts import Chain, Column, cut
from sapper.mix.search.fleet import Pool, exactly
from sapper.mix.search.segments import Kind, Table

CHIPS = 8
FEW_CHIPS = 5
"""Up to which fleets are looked at one by one, and chains cut for every number of micro-batches."""
CHAINS = 600
"""The shortest so many are enumerated."""
ASKED = 6_000
"""Chains times micro-batches, up to which each chain is cut for every number of micro-batches."""
RIVALS = 6
"""Columns kept for each set of chips, size and number of micro-batches."""
VISITS = 10_000
"""Sets of columns that are looked at one by one, times sequences of the batch."""
WORK = 40_000
"""Pairs of chip counts times sequences, up to which fleets are put together exactly."""


def every_chain(problem: Problem, groups: tuple[Supply, ...]) -> list[tuple[Kind, ...]]:
    """The chains that the chips of ``groups`` suffice for, the shortest first; none where the groups are large."""
    if sum(supply.chips for supply in groups) > CHIPS:
        return []
    kinds = {supply.name: kinds_of(problem, supply) for supply in groups}
    return list(itertools.islice(_grow(problem, groups, kinds), CHAINS))


def _grow(problem: Problem, groups: tuple[Supply, ...], kinds: dict[str, list[Kind]]) -> Iterator[tuple[Kind, ...]]:
    """Shorter chains before longer ones."""
    layer: list[tuple[tuple[Kind, ...], tuple[int, ...]]] = [((), tuple(supply.chips for supply in groups))]
    for _ in range(problem.layers):
        longer = []
        for chain, left in layer:
            for g, supply in enumerate(groups):
                for kind in kinds[supply.name]:
                    for replicas in range(1, left[g] // kind.tp + 1):
                        rest = (*left[:g], left[g] - replicas * kind.tp, *left[g + 1 :])
                        longer.append(((*chain, replace(kind, replicas=replicas)), rest))
            if len(longer) > CHAINS:
                break
        layer = longer
        yield from (chain for chain, _ in layer)


def every_column(table: Table, groups: tuple[Supply, ...], chains: list[tuple[Kind, ...]]) -> list[Column]:
    """The best cuts of ``chains`` for each number of micro-batches (for few and many, where there are too many chains).

    Of each set of chips, the fastest at any number of them.
    """
    batch = table.problem.global_batch
    asked = []
    for size, kinds in itertools.product(table.problem.micro_batches, chains):
        most = batch // size
        share = max(1, round(most / copies_of(groups, kinds)))
        wide = few_chips(groups) and most * len(chains) <= ASKED
        counts = set(range(1, most + 1)) if wide else {count for count in (1, share // 2, share, 2 * share) if 0 < count <= most}
        asked += [Chain(kinds, size, count, tuple(kind.replicas for kind in kinds), most) for count in sorted(counts)]
    found = cut(table, asked)
    # Few micro-batches may fit where many do not.
    few = [
        replace(chain, limit=chain.count)
        for chain, column in zip(asked, found, strict=True)
        if column is None and chain.count < sum(kind.replicas for kind in chain.kinds)
    ]
    asked, found = asked + few, found + cut(table, few)
    ranked: dict[tuple[tuple[int, ...], int, int], list[tuple[float, int, Column]]] = {}
    for index, (chain, column) in enumerate(zip(asked, found, strict=True)):
        if column is not None:
            key = tuple(column.chips(supply.name) for supply in groups), chain.micro_batch, chain.count
            ranked.setdefault(key, []).append((column.time_s(chain.count), index, column))
    kept = [column for rivals in ranked.values() for _, _, column in sorted(rivals)[:RIVALS]]
    return list({(one.kinds, one.micro_batch, one.cuts, one.limit): one for one in kept}.values())


def few_chips(groups: tuple[Supply, ...]) -> bool:
    """Whether ``groups`` are so small that :func:`rivals` may be asked."""
    return sum(supply.chips for supply in groups) <= FEW_CHIPS


def small_enough(groups: tuple[Supply, ...], batch: int) -> bool:
    """Whether :func:`exact_fleet` may be asked."""
    grid = 1
    for supply in groups:
        grid *= supply.chips + 1
    return grid * grid * batch <= WORK


def exact_fleet(pool: Pool, batch: int) -> tuple[Pipeline, ...] | None:
    """The fleet of ``pool`` whose slowest pipeline is done first, of all that take ``batch`` exactly."""
    low, high = 0.0, max(one.time_s(min(one.limit, -(-batch // one.micro_batch))) for one in pool.columns)
    best = _within(pool, batch, high)
    while best is not None and high - low > 1e-6 * high:
        middle = (low + high) / 2.0
        found = _within(pool, batch, middle)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    return best


def _within(pool: Pool, batch: int, time_s: float) -> tuple[Pipeline, ...] | None:
    """A fleet that takes ``batch`` in ``time_s``: sums that chips can make, as bits, by chips."""
    most = pool.most(time_s)
    # Of columns with the same chips and size, the one that takes most stands for all.
    quickest: dict[tuple[int, ...], int] = {}
    for k, key in enumerate(pool.keys):
        if most[k] and (key not in quickest or most[k] > most[quickest[key]]):
            quickest[key] = k
    single: dict[tuple[int, ...], dict[int, tuple[int, int]]] = {}
    for (*of_groups, size), k in quickest.items():
        sums = single.setdefault(tuple(of_groups), {})
        for count in range(1, min(int(most[k]), batch // size) + 1):
            sums.setdefault(size * count, (k, count))
    limits = tuple(int(one) for one in pool.limits)
    full = (1 << (batch + 1)) - 1
    reach: dict[tuple[int, ...], int] = {}
    for left in itertools.product(*(range(limit + 1) for limit in limits)):
        bits = 1
        for chips, sums in single.items():
            rest = tuple(a - b for a, b in zip(left, chips, strict=True))
            if min(rest) >= 0:
                before = reach[rest]
                for taken in sums:
                    bits |= before << taken
        reach[left] = bits & full
    if not reach[limits] >> batch & 1:
        return None
    return _traced(pool, batch, single=single, reach=reach)


def _traced(
    pool: Pool, batch: int, *, single: dict[tuple[int, ...], dict[int, tuple[int, int]]], reach: dict[tuple[int, ...], int]
) -> tuple[Pipeline, ...]:
    left, copies = tuple(int(one) for one in pool.limits), dict[tuple[int, int], int]()
    while batch:
        for chips, sums in single.items():
            rest = tuple(a - b for a, b in zip(left, chips, strict=True))
            taken = next((one for one in sums if min(rest) >= 0 and one <= batch and reach[rest] >> (batch - one) & 1), None)
            if taken is not None:
                copies[sums[taken]] = copies.get(sums[taken], 0) + 1
                left, batch = rest, batch - taken
                break
    return tuple(pool.columns[k].pipeline(micro_batches=count, copies=number) for (k, count), number in copies.items())


def rivals(pool: Pool, batch: int, *, below_s: float) -> Iterator[tuple[Pipeline, ...]]:
    """Fleets whose slowest pipeline is done before ``below_s``, column by column and the most useful first; as many as ``VISITS`` allows.

    For what :func:`exact_fleet` does not see: a fleet of slower pipelines that have less to reduce.
    """
    worth = pool.most(below_s) * pool.sizes
    order = sorted(np.flatnonzero(worth).tolist(), key=lambda k: (-worth[k] / int(pool.chips[k].sum()), k))
    uses, takes = [tuple(pool.chips[k].tolist()) for k in order], [int(worth[k]) for k in order]
    limits = tuple(pool.limits.tolist())
    reach = _reach(uses, takes, limits)
    left_to_visit = VISITS // batch

    def grow(start: int, chosen: tuple[int, ...], left: tuple[int, ...], taken: int) -> Iterator[tuple[int, ...]]:
        nonlocal left_to_visit
        for at in range(start, len(order)):
            rest = tuple(a - b for a, b in zip(left, uses[at], strict=True))
            if min(rest) < 0 or taken + takes[at] + reach[rest] < batch:
                continue
            left_to_visit -= 1
            if left_to_visit < 0:
                return
            longer = (*chosen, order[at])
            if taken + takes[at] >= batch:
                yield longer
            yield from grow(at, longer, rest, taken + takes[at])

    for chosen in grow(0, (), limits, 0):
        fleet = _together(pool, batch, chosen)
        if fleet is not None:
            yield fleet


def _reach(uses: list[tuple[int, ...]], takes: list[int], limits: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """Chips left -> most sequences that they can take."""
    best: dict[tuple[int, ...], int] = {}
    for use, taken in zip(uses, takes, strict=True):
        best[use] = max(best.get(use, 0), taken)
    found: dict[tuple[int, ...], int] = {}
    for left in itertools.product(*(range(limit + 1) for limit in limits)):
        rests = ((tuple(a - b for a, b in zip(left, use, strict=True)), taken) for use, taken in best.items())
        found[left] = max((taken + found[rest] for rest, taken in rests if min(rest) >= 0), default=0)
    return found


def _together(pool: Pool, batch: int, chosen: tuple[int, ...]) -> tuple[Pipeline, ...] | None:
    """The least time in which one copy of each of ``chosen`` takes ``batch``."""
    columns = [pool.columns[k] for k in chosen]
    times = sorted({one.time_s(count) for one in columns for count in range(1, min(one.limit, batch // one.micro_batch) + 1)})
    enough = bisect.bisect_left(times, True, key=lambda time_s: sum(one.most(time_s) * one.micro_batch for one in columns) >= batch)
    if enough == len(times):
        return None
    small = pool.pick(np.isin(np.arange(len(pool.columns)), chosen))
    counts = np.array([chosen.count(k) for k in sorted(set(chosen))], np.int64)
    return exactly(small, batch, counts=counts, time_s=times[enough])
