"""Columns worth considering on a set of groups: chains of like stages on one group, and chains that cross from one group to another."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from sapper.mix.problem import Problem, Supply
from sapper.mix.search.cuts import Column, cut
from sapper.mix.search.segments import Kind, Table

DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)
"""Stages of one group in a chain: every small number, then steps of a fifth."""
CROSSING = (1, 2, 3, 4, 6)
"""Stages of each group in a chain over several groups."""


def kinds_of(problem: Problem, supply: Supply) -> list[Kind]:
    """How a stage on ``supply`` may work; ZeRO 1 is never slower than 0 (it moves the same bytes and updates a part)."""
    light = max((zero for zero in problem.zeros if zero <= 1), default=None)
    zeros = ([] if light is None else [light]) + [zero for zero in problem.zeros if zero >= 2]
    return [
        Kind(supply.name, tp, recompute, zero)
        for tp in supply.tps
        if tp <= supply.chips
        for recompute in problem.recomputes
        for zero in zeros
    ]


def columns(table: Table, groups: tuple[Supply, ...], *, crossing: bool = True) -> list[Column]:
    """Distinct columns on ``groups``, each cut exactly."""
    problem = table.problem
    kinds = {supply.name: kinds_of(problem, supply) for supply in groups}
    found: dict[tuple[tuple[Kind, ...], int, tuple[int, ...]], Column] = {}
    for micro_batch in problem.micro_batches:
        if micro_batch > problem.global_batch:
            continue
        for chain in _chains(problem, groups, kinds, crossing=crossing):
            for one in _cut(table, groups, chain, micro_batch):
                found.setdefault((one.kinds, one.micro_batch, one.cuts), one)
    return list(found.values())


def _cut(table: Table, groups: tuple[Supply, ...], chain: tuple[Kind, ...], micro_batch: int) -> Iterator[Column]:
    """The chain cut for the micro-batches that a copy is likely to get, and for few where many do not fit."""
    copies = copies_of(groups, chain)
    likely = max(1, round(table.problem.global_batch / (micro_batch * max(1.0, fleet_of(groups, chain)))))
    shards = tuple(copies * kind.replicas for kind in chain)
    column = cut(table, chain, micro_batch=micro_batch, count=likely, shards=shards)
    if column is not None:
        yield column
    elif len(chain) > 1:
        for limit in {1, min(2, len(chain) - 1), min(likely, len(chain) - 1)}:
            column = cut(table, chain, micro_batch=micro_batch, count=limit, shards=shards, limit=limit)
            if column is not None:
                yield column


def copies_of(groups: Iterable[Supply], chain: tuple[Kind, ...]) -> int:
    """Copies of ``chain`` that the chips of ``groups`` suffice for."""
    taken: dict[str, int] = {}
    for kind in chain:
        taken[kind.group] = taken.get(kind.group, 0) + kind.chips
    return min(supply.chips // taken[supply.name] for supply in groups if supply.name in taken)


def fleet_of(groups: Iterable[Supply], chain: tuple[Kind, ...]) -> float:
    """Columns of the size of ``chain`` that all chips of ``groups`` would make."""
    return sum(supply.chips for supply in groups) / sum(kind.chips for kind in chain)


def _chains(problem: Problem, groups: tuple[Supply, ...], kinds: dict[str, list[Kind]], *, crossing: bool) -> Iterator[tuple[Kind, ...]]:
    for supply in groups:
        for kind in kinds[supply.name]:
            for depth in DEPTHS:
                if depth <= problem.layers and depth * kind.tp <= supply.chips:
                    yield (kind,) * depth
    if not crossing:
        return
    for first, second in itertools.product(groups, groups):
        for head, tail in itertools.product(kinds[first.name], kinds[second.name]):
            if head == tail or head.recompute != tail.recompute or head.zero != tail.zero:
                continue
            for before, after in itertools.product(CROSSING, CROSSING):
                if before + after <= problem.layers and copies_of(groups, (head,) * before + (tail,) * after):
                    yield (head,) * before + (tail,) * after
    for several in range(3, len(groups) + 1):
        for ordered in itertools.permutations(groups, several):
            for depth in (1, 2, 4, 8):
                for heads in itertools.product(*(kinds[supply.name][:1] for supply in ordered)):
                    chain = tuple(kind for kind in heads for _ in range(depth))
                    if len(chain) <= problem.layers and copies_of(groups, chain) >= 1:
                        yield chain
