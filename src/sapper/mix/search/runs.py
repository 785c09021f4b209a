"""The exact cut of the layers for chains of one or two runs of like stages, where every cut sends as much as any other.

The way of a micro-batch then follows from the layer ``c`` between the two runs alone, and what is left for each ``c`` is to have the
slowest stage as fast as can be. A stage that may hold some layers may hold any part of them, in time and in memory alike; so that the
stages, from the last to the first, each take as many layers as a given time allows, and the time is long enough if that reaches the
front (the greedy answer to the linear partition problem). The least such time is found by halving. A ``c`` that is slower than the
best by sight is left out, and of the others those alone are looked at closer that beat the best in the time that this leaves them.
Of cuts that take the same time, the layers are then shared out evenly where that is one of them: a stage with no more layers than others
needs less memory, so less ZeRO, and has less to reduce.

A stage may be left without layers on the way. Where the best cut has such a stage, nothing is proved, and the chain is handed back.

Legend: B = chains, S = stages of the longest, E = elements (a chain with its ``c``), N = layers + 1. Stages are counted from the last;
elements are in the order of their chains, the longest first, so that those that have a stage come before those that do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sapper.mix.search.chains import Chain, Column
from sapper.mix.search.segments import NO_WAY, Kind, Link, Segments, Table
from sapper.predict.arrays import Bools, Floats, Ints

UNLIMITED = 1e30
"""What is not limited; finite, so that nothing times it is nothing."""
LEAST_S = 1e-9
"""The shortest time that is tried."""
NEAR = 1e-8
"""Share of a time that another must be shorter by to be looked for."""
HAIR = 1e-12
"""Share of all passes of a shape that sums may differ by."""
FIRST_TRY = 0.02
"""Share of the time by sight that the first time tried is longer by."""


class Run(NamedTuple):
    """Like stages behind each other."""

    kind: Kind
    stages: int
    shards: int


def runs_of(chain: Chain) -> list[Run] | None:
    """One run or two; None where the chain has more."""
    kinds, stages = chain.kinds, len(chain.kinds)
    head = kinds.count(kinds[0])
    tail = stages - head
    if kinds != (kinds[0],) * head + (kinds[-1],) * tail:
        return None
    ends = [Run(kinds[0], head, chain.shards[0])] + ([Run(kinds[-1], tail, chain.shards[-1])] if tail else [])
    return ends if chain.shards == tuple(run.shards for run in ends for _ in range(run.stages)) else None


class _Shapes:
    """Layers of the shapes that a batch is of, end to end in flat arrays. Legend: H = shapes."""

    def __init__(self, table: Table) -> None:
        self.table, self.size = table, table.problem.layers + 1
        self._at: dict[int, int] = {}
        self._found: list[Segments] = []

    def add(self, kind: Kind, micro_batch: int) -> tuple[int, Segments]:
        """Where the layers of a shape are."""
        segments = self.table.segments(kind, micro_batch)
        assert segments is not None, "chains have times"
        if id(segments) not in self._at:
            self._at[id(segments)] = len(self._found)
            self._found.append(segments)
        return self._at[id(segments)], segments

    def close(self) -> None:
        """Make the arrays."""
        ahead = [one.ahead for one in self._found]
        self.passes_s, self.params, self.saved = (np.concatenate(list(part)) for part in zip(*ahead, strict=True))
        """[H N] of all layers before."""
        self.working = np.concatenate([one.working.ravel() for one in self._found])
        """[H N N]"""
        self._scale = 0.5 / np.maximum(np.array([passes[-1] for passes, _, _ in ahead]), 1e-30)
        self._keys = (np.arange(len(ahead))[:, None] + self.passes_s.reshape(len(ahead), -1) * self._scale[:, None]).ravel()

    def first(self, shape: Ints, need_s: Floats) -> Ints:
        """The first layer that passes of ``need_s`` are before."""
        keys = shape + np.maximum(need_s * self._scale[shape] - HAIR, -0.25)
        return np.asarray(np.searchsorted(self._keys, keys) - shape * self.size)


@dataclass(frozen=True)
class _Batch:
    """Chains as arrays, the longest first."""

    shapes: _Shapes
    depth: Ints
    """[B]"""
    tail: Ints
    """[B] stages of the last run."""
    shape: Ints
    """[S, B]"""
    weight: Floats
    """[S, B] micro-batches after the first, on one replica."""
    turns: Floats
    """[S, B] one over that."""
    wait_s: Floats
    """[S, B] beside the passes of a micro-batch."""
    least_s: Floats
    """[S, B] of a micro-batch: the busiest link."""
    flight: Floats
    """[S, B] micro-batches that a replica starts before the first is back."""
    window: Floats
    """[S, B] that over ``weight``."""
    sends_s: Floats
    """[S, B] from the stage to the end and back."""
    held: Floats
    """[S, B] micro-batches whose activations it keeps."""
    each: Floats
    """[S, B] bytes for each weight."""
    room: Floats
    """[S, B] bytes that there are."""
    before: Ints
    """[S, B] stages of its run before it."""

    @staticmethod
    def of(table: Table, chains: Sequence[Chain], runs: Sequence[list[Run]]) -> _Batch:
        """All of ``chains``."""
        transport, shapes, count = table.problem.transport, _Shapes(table), len(chains)
        depth = np.array([len(chain.kinds) for chain in chains])
        tail = np.array([own[-1].stages for own in runs])
        ends = np.zeros((2, 6, count))
        """[last run and first, what, B]"""
        links = np.zeros((3, 3, count))
        """[inside the last run, between the runs, inside the first; what, B]"""
        for b, (chain, own) in enumerate(zip(chains, runs, strict=True)):
            first, last, size = own[0].kind, own[-1].kind, chain.micro_batch
            for e, run in enumerate((own[-1], own[0])):
                at, segments = shapes.add(run.kind, size)
                each = segments.each_bytes(zero=run.kind.zero, shards=run.shards)
                ends[e, :, b] = at, run.kind.replicas, each, segments.room_bytes, chain.count, chain.limit
            links[:, :, b] = [_constant(table.link(*pair, size)) for pair in ((last, last), (first, last), (first, first))]
        shapes.close()

        j = np.arange(int(depth.max()))[:, None]
        in_tail = j < tail
        shape, replicas, each, room, number, limit = np.where(in_tail[:, None, :], ends[0], ends[1]).transpose(1, 0, 2)
        behind = np.cumsum(replicas, axis=0)
        inside, turn, ahead = links[:, :, None, :]
        before = np.where(j == depth - 1, 0.0, np.where(j < tail - 1, inside, np.where(j == tail - 1, turn, ahead)))
        after = np.where(j == 0, 0.0, np.where(j < tail, inside, np.where(j == tail, turn, ahead)))
        again_s = np.where(j == depth - 1, np.array([transport.again(int(one)) for one in depth]) * after[0], 0.0)
        weight = np.ceil(number / replicas) - 1.0
        flight = np.floor(behind / replicas) if transport.windowed else np.full(behind.shape, UNLIMITED)
        with np.errstate(divide="ignore"):
            turns, window = np.minimum(1.0 / weight, UNLIMITED), np.minimum(flight / weight, UNLIMITED)
        return _Batch(
            shapes=shapes,
            depth=depth,
            tail=tail,
            shape=shape.astype(np.int64),
            weight=weight,
            turns=turns,
            wait_s=before[2] + after[1] + again_s,
            least_s=np.maximum(before[0], after[0]) + again_s,
            flight=flight,
            window=window,
            sends_s=np.cumsum(2.0 * after[0] + again_s, axis=0),
            held=np.minimum(np.ceil(limit / replicas), np.ceil(behind / replicas)),
            each=each,
            room=room,
            before=np.where(in_tail, tail, depth) - 1 - j,
        )

    @property
    def layers(self) -> int:
        """L."""
        return self.shapes.size - 1


def _constant(link: Link) -> tuple[float, float, float]:
    """Of a link that takes the same time for every cut."""
    at = min(1, len(link.send_s) - 1)
    return float(link.send_s[at]), float(link.before_s[at]), float(link.after_s[at])


@dataclass
class _Elements:
    """Chains with the layer between their runs."""

    of: Ints
    """[E] chain."""
    c: Ints
    """[E] first layer of the last run."""

    def pick(self, keep: Bools | Ints) -> _Elements:
        """Some of them."""
        return _Elements(self.of[keep], self.c[keep])


class _Taken(NamedTuple):
    """What the stages take in a given time."""

    able: Bools
    """[E] whether it is long enough."""
    rest_s: Floats
    """[E] the slowest stage, after the first micro-batch."""
    firsts: Ints
    """[S, E] first layers."""


def _take(batch: _Batch, these: _Elements, time_s: Floats, *, tail_alone: bool = False, evenly: bool = False) -> _Taken:
    """Each stage, from the last on, takes as many layers as ``time_s`` allows.

    Args:
        batch: Chains.
        these: Which, and where their runs meet.
        time_s: [E] for the micro-batches after the first.
        tail_alone: The last runs only, and wherever they end; not in order of their length.
        evenly: A stage leaves those of its run that come before it no less than its own share.
    """
    shapes, of, size = batch.shapes, these.of, batch.shapes.size
    tails = batch.tail[of]
    depth = tails if tail_alone else batch.depth[of]
    end = batch.shape[0, of] * size + batch.layers
    whole_s = shapes.passes_s[end]
    through_s = shapes.passes_s[batch.shape[batch.depth[of] - 1, of] * size + these.c]
    through_s = through_s + whole_s - shapes.passes_s[end - batch.layers + these.c]
    last = np.full(len(of), batch.layers)
    firsts = np.zeros((int(depth.max(initial=0)), len(of)), np.int64)
    able, rest_s = np.ones(len(of), bool), np.zeros(len(of))
    for j in range(len(firsts)):
        have = np.flatnonzero(depth > j) if tail_alone else np.arange(int(np.searchsorted(-depth, -j)))
        o, c, t = of[have], these.c[have], time_s[have]
        in_tail, turned = j < tails[have], j == tails[have]
        able[have] &= ~turned | (last[have] == c)
        to = np.where(turned, c, last[have])
        shape = batch.shape[j, o]
        base = shape * size
        ahead_s = shapes.passes_s[base + to]
        way_s = np.where(in_tail, whole_s[have], through_s[have]) + batch.sends_s[j, o]
        # the pace of the stage, and the way from it to the end and back, each say how many layers must be before it
        need_s = np.maximum(ahead_s - (t * batch.turns[j, o] - batch.wait_s[j, o]), way_s - t * batch.window[j, o])
        least = batch.before[j, o] + (0 if tail_alone else np.where(in_tail, c, 0))
        if evenly:
            start = np.where(in_tail, c, 0)
            least = np.maximum(least, to - -(-(to - start) // (batch.before[j, o] + 1)))
        first = np.minimum(np.maximum(shapes.first(shape, need_s), least), to)
        first = _remembering(batch, j, o, base, first, to)
        passed_s = shapes.passes_s[base + first]
        pace_s = batch.weight[j, o] * np.maximum(ahead_s - passed_s + batch.wait_s[j, o], batch.least_s[j, o])
        rest_s[have] = np.maximum(rest_s[have], np.maximum(pace_s, (way_s - passed_s) / batch.window[j, o]))
        firsts[j, have] = last[have] = first
    return _Taken(able if tail_alone else able & (last == 0), rest_s, firsts)


def _remembering(batch: _Batch, j: int, of: Ints, base: Ints, first: Ints, end: Ints) -> Ints:
    """The first layers, from ``first`` on, with which stages fit in memory; ``end`` where none does."""
    held, each, room = batch.held[j, of], batch.each[j, of], batch.room[j, of]
    shapes = batch.shapes

    def fits(part: Ints | slice, first: Ints) -> Bools:
        at, to = base[part] + first, base[part] + end[part]
        states = (shapes.params[to] - shapes.params[at]) * each[part] + shapes.working[at * shapes.size + end[part]]
        return np.asarray(states + (shapes.saved[to] - shapes.saved[at]) * held[part] * (1.0 + HAIR) <= room[part])

    part = np.flatnonzero(~fits(slice(None), first) & (first < end))
    if not len(part):
        return first
    low, high = first[part], end[part]
    while True:  # low does not fit, high does or is empty
        middle = (low + high) // 2
        if (middle == low).all():
            break
        able = fits(part, middle)
        high, low = np.where(able & (middle > low), middle, high), np.where(able, low, middle)
    found = first.copy()
    found[part] = high
    return found


def cut_runs(table: Table, chains: Sequence[Chain], runs: Sequence[list[Run]]) -> tuple[list[Column | None], list[int]]:
    """The fastest column of each of ``chains``; None where it does not fit; and which of them are handed back."""
    order = sorted(range(len(chains)), key=lambda i: -len(chains[i].kinds))
    chains, runs = [chains[i] for i in order], [runs[i] for i in order]
    batch = _Batch.of(table, chains, runs)
    best_s, firsts = _best(batch)
    found: list[Column | None] = [None] * len(chains)
    back = []
    for b in np.flatnonzero(np.isfinite(best_s)).tolist():
        found[order[b]] = column = _column(batch, b, chains[b], firsts[: batch.depth[b], b])
        if column is None:
            back.append(order[b])
    return found, back


def _best(batch: _Batch) -> tuple[Floats, Ints]:
    """[B] least time, infinite where nothing fits, and [S, B] first layers."""
    way_s, sight_s, open_ = _fill(batch), _by_sight(batch), _open(batch)
    total_s = np.where(open_, way_s + sight_s, np.inf)
    these = _fitting(batch, _Elements(np.flatnonzero(open_.any(axis=1)), total_s.argmin(axis=1)[open_.any(axis=1)]), open_)
    best_s, firsts = np.full(len(batch.depth), np.inf), np.zeros(batch.shape.shape, np.int64)
    rest_s, taken = _least(batch, these, sight_s[these.of, these.c])
    best_s[these.of] = way_s[these.of, these.c] + rest_s
    last_run = np.zeros(len(best_s), np.int64)
    last_run[these.of] = these.c
    firsts[: len(taken), these.of] = taken

    total_s[these.of, these.c] = np.inf
    of, c = np.nonzero(total_s < np.where(np.isfinite(best_s), best_s, 0.0)[:, None] * (1.0 - NEAR))
    others = _Elements(of, c)
    others = others.pick(_take(batch, others, best_s[of] * (1.0 - NEAR) - way_s[of, c]).able)
    rest_s, taken = _least(batch, others, sight_s[others.of, others.c])
    found_s = way_s[others.of, others.c] + rest_s
    for e in range(len(others.of)):
        b = others.of[e]
        if found_s[e] < best_s[b] * (1.0 - NEAR):
            best_s[b], last_run[b] = found_s[e], others.c[e]
            firsts[: len(taken), b] = taken[:, e]
    _even_out(batch, best_s - way_s[np.arange(len(best_s)), last_run], last_run, firsts)
    return best_s, firsts


def _even_out(batch: _Batch, rest_s: Floats, last_run: Ints, firsts: Ints) -> None:
    """Share the layers out evenly where no stage then takes longer than ``rest_s``, which is [B] as the first layers of last runs are."""
    able = np.flatnonzero(np.isfinite(rest_s))
    these = _Elements(able, last_run[able])
    even = _take(batch, these, rest_s[able] * (1.0 + NEAR), evenly=True)
    firsts[: len(even.firsts), able[even.able]] = even.firsts[:, even.able]


def _open(batch: _Batch) -> Bools:
    """[B, N] where the last run may begin: it fits in memory, and each stage before it has a layer."""
    every = np.arange(len(batch.depth))
    free = _take(batch, _Elements(every, 0 * every), np.full(len(every), NO_WAY), tail_alone=True)
    reach = free.firsts[batch.tail - 1, every]
    one_run = batch.tail == batch.depth
    low = np.where(one_run, 0, np.maximum(batch.depth - batch.tail, reach))
    high = np.where(one_run, np.where(reach == 0, 0, -1), batch.layers - batch.tail)
    layer = np.arange(batch.shapes.size)
    return np.asarray((layer >= low[:, None]) & (layer <= high[:, None]))


def _fitting(batch: _Batch, these: _Elements, open_: Bools) -> _Elements:
    """``these``, or where the first run does not fit, with the last ``c`` before with which it does; without chains that have none."""
    big = np.full(len(these.of), NO_WAY)
    stuck = np.flatnonzero(~_take(batch, these, big).able)
    of, c = these.of[stuck], these.c.copy()
    least = open_[of].argmax(axis=1)
    low, high = least - 1, c[stuck]  # the one fits or is not to be had, the other does not fit
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, least)
        fine = _take(batch, _Elements(of, middle), big[: len(of)]).able & (middle < high)
        low, high = np.where(fine, middle, low), np.where(fine, high, np.where(middle > low, middle, high))
    c[stuck] = low
    keep = np.ones(len(c), bool)
    keep[stuck[low < least]] = False
    return _Elements(these.of[keep], c[keep])


def _fill(batch: _Batch) -> Floats:
    """[B, N] the first micro-batch, by ``c``."""
    every = np.arange(len(batch.depth))
    passes = batch.shapes.passes_s.reshape(-1, batch.shapes.size)
    tail, head = passes[batch.shape[0]], passes[batch.shape[batch.depth - 1, every]]
    return np.asarray(head + tail[:, -1:] - tail + batch.sends_s[batch.depth - 1, every][:, None])


def _by_sight(batch: _Batch) -> Floats:
    """[B, N] the slowest stage after the first micro-batch at the least, by ``c``: as if layers could be divided at will."""
    every, deepest = np.arange(len(batch.depth)), len(batch.shape)
    j = np.arange(deepest)[:, None]
    there, in_tail = j < batch.depth, j < batch.tail
    passes = batch.shapes.passes_s.reshape(-1, batch.shapes.size)
    tail, head = passes[batch.shape[0]], passes[batch.shape[batch.depth - 1, every]]
    behind = tail[:, -1:] - tail
    found = np.full(head.shape, LEAST_S)
    for run_s, among in ((behind, in_tail), (head, there & ~in_tail)):
        turns, wait_s = (np.where(among, one, 0.0).sum(axis=0) for one in (batch.turns, batch.wait_s))
        each = 1.0 / np.where(turns > 0.0, turns, UNLIMITED)
        found = np.maximum(found, (run_s + wait_s[:, None]) * each[:, None])
    found = np.maximum(found, np.where(there, batch.weight * batch.least_s, 0.0).max(axis=0)[:, None])
    front = batch.depth - 1
    found = np.maximum(found, (head + behind + batch.sends_s[front, every][:, None]) / batch.window[front, every][:, None])
    turn = batch.tail - 1
    return np.asarray(np.maximum(found, (behind + batch.sends_s[turn, every][:, None]) / batch.window[turn, every][:, None]))


def _least(batch: _Batch, these: _Elements, sight_s: Floats) -> tuple[Floats, Ints]:
    """[E] the least time of the slowest stage after the first micro-batch, and [S, E] first layers then. Some time is long enough."""
    count = len(these.of)
    low, high = sight_s * (1.0 - NEAR), np.full(count, np.inf)
    deepest = int(batch.depth[these.of].max(initial=0))
    firsts = np.zeros((deepest, count), np.int64)
    active, turn = np.arange(count), 0
    while len(active):
        known = np.isfinite(high[active])
        between = (low[active] + np.where(known, high[active], 0.0)) / 2.0
        below = np.where(known, high[active], 0.0) * (1.0 - NEAR)
        time_s = np.where(known, below if turn % 2 == 0 else between, low[active] * (1.0 + FIRST_TRY * 3.0**turn))
        found = _take(batch, these.pick(active), time_s)
        better = active[found.able]
        high[better] = np.minimum(found.rest_s[found.able], time_s[found.able])
        firsts[: len(found.firsts), better] = found.firsts[:, found.able]
        worse = active[~found.able]
        low[worse] = time_s[~found.able]
        active = active[low[active] < np.where(np.isfinite(high[active]), high[active] * (1.0 - 2.0 * NEAR), np.inf)]
        turn += 1
    return high, firsts


def _column(batch: _Batch, b: int, chain: Chain, firsts: Ints) -> Column | None:
    """``chain`` with the layers cut at ``firsts``; None where a stage has none."""
    cuts = (*firsts[::-1].tolist(), batch.layers)
    if any(first >= last for first, last in itertools.pairwise(cuts)):
        return None
    passes_s, own = batch.shapes.passes_s, slice(len(firsts))
    base = batch.shape[own, b] * batch.shapes.size
    pass_s = passes_s[base + np.append(batch.layers, firsts[:-1])] - passes_s[base + firsts]
    ways_s = np.cumsum(pass_s) + batch.sends_s[own, b]
    paces_s = np.maximum(np.maximum(pass_s + batch.wait_s[own, b], batch.least_s[own, b]), ways_s / batch.flight[own, b])
    return Column(
        kinds=chain.kinds,
        cuts=cuts,
        micro_batch=chain.micro_batch,
        paces_s=tuple(paces_s[::-1].tolist()),
        fill_s=float(ways_s[-1]),
        limit=chain.limit,
    )
