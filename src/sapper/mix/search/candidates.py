"""Columns worth considering on a set of groups: chains of like stages on one group, and chains that cross from one group to another."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sapper.mix.problem import Problem, Supply
from sapper.mix.search.cuts import Chain, Column, cut
from sapper.mix.search.segments import Kind, Table

DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)
"""Stages of one group in a chain: every small number, then steps of a fifth."""
CROSSING = (1, 2, 4, 8)
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


def columns(table: Table, groups: tuple[Supply, ...]) -> list[Column]:
    """Distinct columns on ``groups``, each cut exactly; those on a part of the groups are what the part alone would give."""
    problem = table.problem
    kinds = {supply.name: kinds_of(problem, supply) for supply in groups}
    sizes = [size for size in problem.micro_batches if size <= problem.global_batch]
    asked = [_asked(problem, groups, chain, size) for chain in _chains(problem, groups, kinds) for size in sizes]
    found = cut(table, asked)
    # A chain that does not fit in full may fit as long as few micro-batches are on their way.
    few = [
        replace(chain, count=limit, limit=limit)
        for chain, column in zip(asked, found, strict=True)
        if column is None and len(chain.kinds) > 1
        for limit in sorted({1, 2, len(chain.kinds) // 2, len(chain.kinds) - 1})
        if 0 < limit < len(chain.kinds)
    ]
    found += cut(table, few)
    return list({(one.kinds, one.micro_batch, one.cuts, one.limit): one for one in found if one is not None}.values())


def _asked(problem: Problem, groups: tuple[Supply, ...], chain: tuple[Kind, ...], size: int) -> Chain:
    """The chain cut for its share of the batch if it fills the groups that it is on."""
    copies = copies_of(groups, chain)
    count = max(1, round(problem.global_batch / (size * copies)))
    return Chain(chain, size, count, tuple(copies * kind.replicas for kind in chain))


def copies_of(groups: Iterable[Supply], chain: tuple[Kind, ...]) -> int:
    """Copies of ``chain`` that the chips of ``groups`` suffice for."""
    taken: dict[str, int] = {}
    for kind in chain:
        taken[kind.group] = taken.get(kind.group, 0) + kind.chips
    return min(supply.chips // taken[supply.name] for supply in groups if supply.name in taken)


def _chains(problem: Problem, groups: tuple[Supply, ...], kinds: dict[str, list[Kind]]) -> Iterator[tuple[Kind, ...]]:
    for supply in groups:
        for kind in kinds[supply.name]:
            for depth in DEPTHS:
                if depth <= problem.layers and depth * kind.tp <= supply.chips:
                    yield (kind,) * depth
    for first, second in itertools.permutations(groups, 2):
        for head, tail in itertools.product(kinds[first.name], kinds[second.name]):
            if head.recompute != tail.recompute or head.zero != tail.zero:
                continue
            for before, after in itertools.product(CROSSING, CROSSING):
                chain = (head,) * before + (tail,) * after
                if len(chain) <= problem.layers and copies_of((first, second), chain):
                    yield chain
    for several in range(3, len(groups) + 1):
        for ordered in itertools.permutations(groups, several):
            for depth in (1, 2, 4, 8):
                chain = tuple(kinds[supply.name][0] for supply in ordered for _ in range(depth))
                if len(chain) <= problem.layers and copies_of(ordered, chain):
                    yield chain
