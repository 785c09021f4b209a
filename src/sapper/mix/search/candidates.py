"""Columns worth considering on a set of groups: chains of like stages on one group, and chains that cross from one group to another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from sapper.mix.problem import Problem, Supply
from sapper.mix.search.chains import Chain, Column
from sapper.mix.search.cuts import cut
from sapper.mix.search.segments import NO_WAY, Kind, Segments, Table
from sapper.predict.arrays import Bools

DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)
"""Stages of one group in a chain: every small number, then steps of a fifth."""
CROSSING = (1, 2, 4, 8)
"""Stages of each group in a chain over several groups."""
RIVALS = 2
"""Sizes of micro-batch by which chains over several groups, of the same depths and tensor degrees, are cut."""
AMPLE = 0.6
"""Share of a chip's memory below which a like share of the layers leaves memory no part in the choice."""


def kinds_of(problem: Problem, supply: Supply) -> list[Kind]:
    """How a stage on ``supply`` may work, at the ZeRO stage that takes least memory; ``lighten`` lowers it where more fits."""
    zero = max(problem.zeros)
    return [Kind(supply.name, tp, recompute, zero) for tp in supply.tps if tp <= supply.chips for recompute in problem.recomputes]


def columns(table: Table, groups: tuple[Supply, ...]) -> list[Column]:
    """Distinct columns on all of ``groups`` and no other, each cut exactly."""
    problem = table.problem
    kinds = {supply.name: kinds_of(problem, supply) for supply in groups}
    sizes = [size for size in problem.micro_batches if size <= problem.global_batch]
    if len(groups) == 1:
        chains = [(chain, size) for chain in _like(problem, groups[0], kinds[groups[0].name]) for size in sizes]
    elif len(groups) == 2:
        chains = [one for first, second in itertools.permutations(groups) for one in _crossing(table, first, second, kinds, sizes)]
    else:
        chains = list(_through(table, groups, kinds, sizes))
    asked = [_asked(problem, groups, chain, size) for chain, size in chains]
    found = cut(table, asked)
    # A chain that does not fit in full may fit as long as few micro-batches are on their way.
    fitting = {chain.kinds for chain, column in zip(asked, found, strict=True) if column is not None}
    few = [
        replace(chain, count=limit, limit=limit)
        for chain in asked
        if chain.kinds not in fitting and len(chain.kinds) > 1
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


def _like(problem: Problem, supply: Supply, kinds: list[Kind]) -> Iterator[tuple[Kind, ...]]:
    """Chains of like stages on one group."""
    for kind in kinds:
        for depth in DEPTHS:
            if depth <= problem.layers and depth * kind.tp <= supply.chips:
                yield (kind,) * depth


def _crossing(
    table: Table, first: Supply, second: Supply, kinds: dict[str, list[Kind]], sizes: list[int]
) -> Iterator[tuple[tuple[Kind, ...], int]]:
    """Chains from ``first`` to ``second`` with their sizes of micro-batch: of each two tensor degrees and depths, the fastest by sight."""
    rivals: dict[tuple[int, ...], list[tuple[float, int, tuple[Kind, ...], int]]] = {}
    room: dict[tuple[object, ...], Bools] = {}
    layers, batch = table.problem.layers, table.problem.global_batch
    for head, tail in itertools.product(kinds[first.name], kinds[second.name]):
        if head.recompute != tail.recompute or head.zero != tail.zero:
            continue
        for size in sizes:
            for (before, after), least_s in _by_sight(table, head, tail, size, room).items():
                copies = min(first.chips // (before * head.chips), second.chips // (after * tail.chips))
                if before + after <= layers and copies:
                    each = rivals.setdefault((before, after, head.tp, tail.tp), [])
                    each.append((least_s(batch / (size * copies)), len(each), (head,) * before + (tail,) * after, size))
    for each in rivals.values():
        yield from ((chain, size) for least_s, _, chain, size in sorted(each)[:RIVALS] if least_s < NO_WAY)


def _by_sight(
    table: Table, head: Kind, tail: Kind, size: int, room: dict[tuple[object, ...], Bools]
) -> dict[tuple[int, int], Callable[[float], float]]:
    """Stages of each kind -> micro-batches -> time as if layers could be split evenly and messages took no time.

    ``room``: what was found of stages of other chains.
    """
    ends = [table.segments(kind, size) for kind in (head, tail)]
    if ends[0] is None or ends[1] is None:
        return {}

    def fits(end: int, kind: Kind, stages: int, flight: int) -> Bools:
        key, segments = (end, kind, size, stages, flight), ends[end]
        assert segments is not None
        if key not in room:
            room[key] = _may_fit(segments, ahead=end == 0, kind=kind, stages=stages, flight=flight)
        return room[key]

    passes = [one.times.forward_s + one.times.backward_s for one in ends if one is not None]
    ahead, behind = np.cumsum(passes[0])[:-1], np.cumsum(passes[1][::-1])[::-1][1:]
    way = ahead + behind
    paces = [[one / stages for stages in CROSSING] for one in (ahead, behind)]
    found: dict[tuple[int, int], Callable[[float], float]] = {}
    for (b, before), (a, after) in itertools.product(enumerate(CROSSING), enumerate(CROSSING)):
        fill = np.where(fits(0, head, before, after + 1) & fits(1, tail, after, 1), way, NO_WAY)
        pace = np.maximum(paces[0][b], paces[1][a])
        found[before, after] = lambda count, fill=fill, pace=pace: float((fill + max(count - 1.0, 0.0) * pace).min())  # type: ignore[misc]
    return found


def _may_fit(segments: Segments, *, ahead: bool, kind: Kind, stages: int, flight: int) -> Bools:
    """[L - 1] by cut: whether ``stages`` of ``kind`` hold all before (behind) it, with ``flight`` micro-batches each at the least."""
    state, supply, size = segments.problem.state, segments.problem.group(kind.group), len(segments.params)
    # What is sharded is counted as nothing: over how many chips is not known yet.
    each = sum(one for one, level in ((state.weight, 3), (state.gradient, 2), (state.optimizer, 1)) if kind.zero < level)
    need = segments.params * each + segments.saved * flight
    room = (supply.capacity_bytes - supply.overhead_bytes) * stages
    return np.asarray((need[0, 1 : size - 1] if ahead else need[1 : size - 1, -1]) <= room)


def _through(
    table: Table, groups: tuple[Supply, ...], kinds: dict[str, list[Kind]], sizes: list[int]
) -> Iterator[tuple[tuple[Kind, ...], int]]:
    """Chains over three groups or more, in each order and depth: of all sizes of micro-batch, or, where memory is ample, of the fastest by
    sight and the smallest."""
    for ordered in itertools.permutations(groups):
        for depth in CROSSING:
            own = [kinds[supply.name][0] for supply in ordered]
            chain = tuple(kind for kind in own for _ in range(depth))
            if len(chain) <= table.problem.layers and (copies := copies_of(ordered, chain)):
                times = [(_shared_s(table, own, depth, size, copies), size) for size in sizes]
                fastest = [size for _, size in sorted(times)[:RIVALS]]
                ample = all(_is_ample(table, own, depth, size) for size in fastest)
                yield from ((chain, size) for size in sizes if not ample or size in fastest or size == min(sizes))


def _is_ample(table: Table, own: list[Kind], depth: int, size: int) -> bool:
    """Whether ``depth`` stages of each kind hold like shares of the layers, nothing sharded, with memory to spare for unlike ones."""
    state, stages = table.problem.state, depth * len(own)
    for place, kind in enumerate(own):
        segments, supply = table.segments(kind, size), table.problem.group(kind.group)
        if segments is None:
            return False
        states = segments.params[0, -1] * (state.weight + state.gradient + state.optimizer)
        on_their_way = segments.saved[0, -1] * (stages - place * depth)
        if states + on_their_way > stages * AMPLE * (supply.capacity_bytes - supply.overhead_bytes):
            return False
    return True


def _shared_s(table: Table, own: list[Kind], depth: int, size: int, copies: int) -> float:
    """A share of the batch through ``depth`` stages of each kind, as if layers were alike and could be divided at will."""
    found = [table.segments(kind, size) for kind in own]
    if any(one is None for one in found):
        return NO_WAY
    passes = [float(one.pass_s[0, -1]) for one in found if one is not None]
    pace_s = 1.0 / sum(depth / each for each in passes)
    return pace_s * (depth * len(own) + max(table.problem.global_batch / (size * copies) - 1.0, 0.0))
