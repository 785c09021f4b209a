"""Pipelines whose stages have unequal numbers of replicas: one copy over all chips, each stage as wide as its work asks for.

For a given time after the first micro-batch every run of layers needs so many replicas, and for a given time after the last one it
must not have more to reduce. Stages beside each other on one group are a segment; a pipeline is a segment on each of up to three groups,
or three over two groups. The fewest chips of every segment follow by dynamic programming, for a whole grid of both times at once, and
with them the least sum of the two for which the chips of all groups suffice.

Legend: X = pairs of times, by their sum; N = layers + 1; arrays [N, N] are indexed [first, last].
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sapper.mix.objective import Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Supply
from sapper.mix.search.candidates import kinds_of
from sapper.mix.search.segments import Kind, Segments, Table
from sapper.predict.arrays import Floats, Ints

BLENDS = 3
"""Sizes of micro-batch with a tensor degree for each group that are looked at, the fastest by sight."""
USUAL = 2
"""Stages on a group, by sight."""
STAGES = 3
"""Of a segment at most; two where there are three segments."""
GRID = np.geomspace(0.75, 1.6, 14)
"""Times after the first micro-batch that are tried first, over the time by sight."""
SPLITS = (1, 2, 3, 4, 6)
"""Times after the last one: what so many equal parts of the model take to reduce."""
FINE = 9
"""Times near those of the grid that the best are tried at then."""
SLACK = 0.03
"""How much longer than the time of the grid they may be, where less is to be reduced for it."""
BEST = 5

Chips = npt.NDArray[np.float32]
"""Numbers of chips are whole: single precision has them exactly, up to 16 million."""
NEVER = np.float32(np.inf)
"""Chips that are not to be had."""

Chain = tuple[tuple[int, int], ...]
"""(group, stages) of each segment."""


class _Blend:
    """One size of micro-batch, and one tensor degree on each group."""

    def __init__(self, table: Table, groups: Sequence[Supply], tps: tuple[int, ...], size: int) -> None:
        self.table, self.groups, self.tps, self.size = table, tuple(groups), tps, size
        self.count = table.problem.global_batch // size
        self.kinds = [
            [kind for kind in kinds_of(table.problem, supply) if kind.tp == tp and table.segments(kind, size) is not None]
            for supply, tp in zip(groups, tps, strict=True)
        ]

    @cached_property
    def passes(self) -> list[list[Floats]]:
        """[N, N] by group and kind."""
        found = [[self.table.segments(kind, self.size) for kind in kinds] for kinds in self.kinds]
        return [[one.pass_s for one in of_group if one is not None] for of_group in found]

    @cached_property
    def rooms(self) -> list[list[Ints]]:
        """[N, N] micro-batches in flight that fit, by group and kind."""
        return [
            [self.table.room(kind, self.size, shards=max(1, supply.chips // (kind.tp * USUAL))) for kind in kinds]
            for supply, kinds in zip(self.groups, self.kinds, strict=True)
        ]

    def waits(self, group: int, before: int, after: int, *, again: float = 0.0) -> Floats:
        """[N, N] what a stage waits for between stages of two groups; ``again``: activations that it sends once more."""
        own, *ends = (Kind(self.groups[g].name, self.tps[g]) for g in (group, before, after))
        first = self.table.link(ends[0], own, self.size).after_s
        link = self.table.link(own, ends[1], self.size)
        last = link.before_s + (again * link.send_s if again else 0.0)
        return np.asarray(first[:, None] + last[None, :], float)

    @cached_property
    def after_s(self) -> list[Floats]:
        """[N, N] by group: reduction of a stage's gradients, over the replicas that it has by sight."""
        return [self._reduced(g, self.table.segments(kinds[0], self.size)) for g, kinds in enumerate(self.kinds)]

    def _reduced(self, group: int, segments: Segments | None) -> Floats:
        assert segments is not None, "a blend has times"
        sizes, at = np.unique(segments.params, return_inverse=True)
        times = np.array([self._reduce_s(group, float(params)) for params in sizes])
        return np.asarray(times[at.reshape(segments.params.shape)], float)

    def _reduce_s(self, group: int, params: float) -> float:
        """Gradients of ``params`` weights on a chip, over the replicas that a stage has by sight."""
        supply, tp, problem = self.groups[group], self.tps[group], self.table.problem
        members = {(supply.name, tp): max(1, supply.chips // (tp * USUAL))}
        return problem.network.all_reduce_s(params * tp * problem.state.wire, members) if params > 0.0 else 0.0

    @cached_property
    def whole_after_s(self) -> list[float]:
        """By group: :attr:`after_s` of all layers."""
        found = [self.table.segments(kinds[0], self.size) for kinds in self.kinds]
        return [self._reduce_s(g, float(one.params[0, -1])) for g, one in enumerate(found) if one is not None]

    def grid(self) -> tuple[Floats, Floats]:
        """[X] times after the first micro-batch, and after the last."""
        rest = GRID * self.count / float(self.rates().sum())
        whole = max(self.whole_after_s)
        return _by_sum(rest, np.array([whole / parts for parts in SPLITS]) * 1.05)

    def rates(self) -> Floats:
        """[groups] micro-batches a second, as if layers and chips could be divided at will over a few stages."""
        found = []
        for g, supply in enumerate(self.groups):
            layers = np.diag(self.passes[g][0], 1)
            middle = len(layers) // 2
            waits = USUAL * float(self.waits(g, g, g)[middle, middle + 1])
            found.append(supply.chips / (self.tps[g] * (float(layers.sum()) + waits)))
        return np.array(found)

    def by_sight_s(self) -> float:
        """All micro-batches, the way of the first and the reduction of gradients, seen so."""
        rates = self.rates()
        shares = rates / rates.sum()
        after_s = max(one * share / USUAL for one, share in zip(self.whole_after_s, shares, strict=True))
        first_s = sum(float(one[0][0, -1]) * share for one, share in zip(self.passes, shares, strict=True))
        return float(self.count / rates.sum() + after_s + first_s)


class _Needs:
    """Chips that the stages of one blend need, at each of some pairs of times."""

    def __init__(self, blend: _Blend, rest_s: Floats, after_s: Floats) -> None:
        self.blend = blend
        self._rest_s, self._after_s = (np.unique(times, return_inverse=True) for times in (rest_s, after_s))
        self._known: dict[tuple[float, ...], tuple[Chips, list[Chips]]] = {}
        self._chips_known: dict[tuple[float, ...], list[Chips]] = {}
        self._pairs: dict[tuple[int, int], Chips] = {}
        """By what two stages need, which is kept above: both of a segment together."""

    def stage(self, group: int, before: int, after: int, *, flight: int, again: float) -> tuple[Chips, list[Chips]]:
        """[X, N, N] fewest chips of a stage that holds ``flight`` micro-batches, between stages of two groups, and those of each kind."""
        key = group, before, after, flight, again
        if key not in self._known:
            options = [
                np.where(self.blend.rooms[group][index] >= flight, chips, NEVER)
                for index, chips in enumerate(self._chips(group, before, after, again))
            ]
            self._known[key] = functools.reduce(np.minimum, options), options
        return self._known[key]

    def _chips(self, group: int, before: int, after: int, again: float) -> list[Chips]:
        """[X, N, N] by kind, whatever is in flight."""
        key = group, before, after, again
        if key not in self._chips_known:
            blend, found = self.blend, []
            waits = blend.waits(group, before, after, again=again)
            # pairs of times are made of a few of each
            light = (blend.after_s[group] <= self._after_s[0][:, None, None])[self._after_s[1]]
            for kind, pass_s in zip(blend.kinds[group], blend.passes[group], strict=True):
                turns = 1.0 + np.floor(self._rest_s[0][:, None, None] / (pass_s + waits))
                chips = (np.ceil(blend.count / turns) * kind.tp).astype(np.float32)
                found.append(np.where(light, chips[self._rest_s[1]], NEVER))
            self._chips_known[key] = found
        return self._chips_known[key]

    def stages(self, chain: Chain) -> list[tuple[Chips, list[Chips]]]:
        """:meth:`stage` for each of ``chain``."""
        groups = [group for group, stages in chain for _ in range(stages)]
        around, depth = [groups[0], *groups, groups[-1]], len(groups)
        again = [self.blend.table.problem.transport.again(depth), *[0.0] * (depth - 1)]
        return [self.stage(group, around[s], around[s + 2], flight=depth - s, again=again[s]) for s, group in enumerate(groups)]

    def cuts(self, chain: Chain) -> tuple[int, tuple[int, ...]] | None:
        """The first times for which the chips suffice, and the cuts of the layers then; None where none are long enough."""
        needs = [need for need, _ in self.stages(chain)]
        have = [supply.chips for supply in self.blend.groups]
        head, tail = needs[: chain[0][1]], needs[len(needs) - chain[-1][1] :] if len(chain) > 1 else []
        ahead = [head[0][:, 0, :]]
        for need in head[1:]:
            ahead.append((ahead[-1][:, :, None] + need).min(axis=1))
        behind = [tail[-1][:, :, -1]] if tail else []
        for need in reversed(tail[:-1]):
            behind.insert(0, (need + behind[0][:, None, :]).min(axis=2))
        if len(chain) == 1:
            able = ahead[-1] <= have[chain[0][0]]
            able[:, :-1] = False
        elif len(chain) == 2:
            able = (ahead[-1] <= have[chain[0][0]]) & (behind[0] <= have[chain[1][0]])
        else:
            able = self._around(chain, ahead[-1], behind[0], self._between(needs, chain), have)
        times = np.flatnonzero(able.any(axis=tuple(range(1, able.ndim))))
        if not len(times):
            return None
        x = int(times[0])
        at = [int(one) for one in np.argwhere(able[x])[0]]
        found = [at[0]]
        for s in range(len(head) - 1, 0, -1):
            found.insert(0, int((ahead[s - 1][x] + head[s][x, :, found[0]]).argmin()))
        if len(chain) == 3 and chain[1][1] == 2:
            first, second = needs[chain[0][1]][x], needs[chain[0][1] + 1][x]
            found.append(int((first[at[0]] + second[:, at[1]]).argmin()))
        found += at[1:]
        for s in range(len(tail) - 1):
            found.append(int((tail[s][x, found[-1]] + behind[s + 1][x]).argmin()))
        last = needs[0].shape[1] - 1
        return x, (0, *found, *([last] if tail else []))

    def _between(self, needs: list[Chips], chain: Chain) -> Chips:
        """[X, N, N] the middle segment of three."""
        at, stages = chain[0][1], chain[1][1]
        if stages == 1:
            return needs[at]
        first, second = needs[at], needs[at + 1]
        if (id(first), id(second)) not in self._pairs:
            both: Chips = np.full(first.shape, NEVER)
            for middle in range(1, first.shape[1] - 1):  # a stage holds no layers behind its end: all that is looked at is before and after
                part = both[:, :middle, middle + 1 :]
                np.minimum(part, first[:, :middle, middle, None] + second[:, middle, None, middle + 1 :], out=part)
            self._pairs[id(first), id(second)] = both
        return self._pairs[id(first), id(second)]

    def _around(self, chain: Chain, ahead: Chips, behind: Chips, between: Chips, have: list[int]) -> np.ndarray:
        """[X, N, N] by both ends of the middle segment, whether the chips suffice."""
        able = between <= have[chain[1][0]]
        if chain[0][0] == chain[2][0]:
            return np.asarray(able & (ahead[:, :, None] + behind[:, None, :] <= have[chain[0][0]]))
        return np.asarray(able & (ahead <= have[chain[0][0]])[:, :, None] & (behind <= have[chain[2][0]])[:, None, :])

    def pipeline(self, chain: Chain, x: int, cuts: tuple[int, ...]) -> Pipeline:
        """The plan of ``chain``."""
        stages = []
        groups = [group for group, count in chain for _ in range(count)]
        for group, (need, options), first, last in zip(groups, self.stages(chain), cuts[:-1], cuts[1:], strict=True):
            kind = self.blend.kinds[group][int(np.argmin([chips[x, first, last] for chips in options]))]
            replicas = int(need[x, first, last]) // kind.tp
            stages.append(
                Stage(
                    group=kind.group, first=first, last=last, tp=kind.tp, replicas=replicas, zero=kind.zero, recompute=kind.recompute
                )
            )  # fmt: skip
        return Pipeline(stages=tuple(stages), micro_batch=self.blend.size, micro_batches=self.blend.count)


def chains_of(groups: int) -> Iterator[Chain]:
    """Orders of groups with the stages of each."""
    if groups == 1:
        yield from (((0, stages),) for stages in range(2, STAGES + 1))
    elif groups == 2:
        for order in ((0, 1), (1, 0)):
            for counts in itertools.product(range(1, STAGES + 1), repeat=2):
                yield tuple(zip(order, counts, strict=True))
            for counts in itertools.product((1, 2), repeat=3):
                yield tuple(zip((*order, order[0]), counts, strict=True))
    elif groups == 3:
        for groups_in_order in itertools.permutations(range(3)):
            yield from (tuple((group, stages) for group in groups_in_order) for stages in (1, 2))


@dataclass(frozen=True)
class _Tried:
    score: Score
    pipeline: Pipeline
    blend: _Blend
    chain: Chain
    rest_s: float
    after_s: float


def spread(table: Table, groups: Sequence[Supply], *, below_s: float) -> list[tuple[Pipeline, ...]]:
    """The best plans of one pipeline over all of ``groups``, one for each chain of segments; those above ``below_s`` by sight are not."""
    problem, chains = table.problem, list(chains_of(len(groups)))
    blends = [
        _Blend(table, groups, tps, size)
        for size in problem.micro_batches
        if problem.global_batch % size == 0
        for tps in itertools.product(*(supply.tps for supply in groups))
    ]
    blends = [blend for blend in blends if all(blend.kinds)]
    ranked = sorted(((blend.by_sight_s(), index) for index, blend in enumerate(blends)))
    tried: list[_Tried] = []
    for _, index in ranked[:BLENDS]:
        tried += _coarse(blends[index], chains, below_s=below_s)
        below_s = min([below_s, *(one.score.step_s for one in tried if one.score.fits)])
    tried.sort(key=lambda one: (not one.score.fits, one.score.step_s))
    return list(dict.fromkeys(each for one in tried[:BEST] for each in ((one.pipeline,), (_fine(one),))))


def _coarse(blend: _Blend, chains: list[Chain], *, below_s: float) -> Iterator[_Tried]:
    rest, after = blend.grid()
    promising = rest + after < below_s
    if not promising.any():
        return
    rest, after = rest[promising], after[promising]
    needs = _Needs(blend, rest, after)
    for chain in chains:
        found = needs.cuts(chain)
        if found is not None:
            pipeline = needs.pipeline(chain, *found)
            priced = score(blend.table.problem, (pipeline,))
            yield _Tried(priced, pipeline, blend, chain, rest_s=float(rest[found[0]]), after_s=float(after[found[0]]))


def _fine(one: _Tried) -> Pipeline:
    """The same with the least times near those."""
    rest = one.rest_s * np.geomspace(GRID[0] / GRID[1], 1.0 + SLACK, FINE)
    needs = _Needs(one.blend, *_by_sum(np.append(rest, one.rest_s), one.after_s * np.linspace(0.7, 1.0, FINE // 2)))
    found = needs.cuts(one.chain)
    assert found is not None, "the last of these times is long enough"
    return needs.pipeline(one.chain, *found)


def _by_sum(rest: Floats, after: Floats) -> tuple[Floats, Floats]:
    pairs = np.array(sorted(itertools.product(rest, after), key=sum))
    return pairs[:, 0], pairs[:, 1]
