"""Small problems whole: the best plan of all, or the proof that none is faster by more than a given share.

Every pipeline that could be part of a faster plan (:mod:`~sapper.mix.search.partial`), and every set of such pipelines that could take
the batch in time. What a set takes is known from its pipelines and who holds which layer (:mod:`~sapper.mix.search.sharing`); the
objective prices those that win.

Legend: C = pipelines, G = groups, N = micro-batches of a step at most, P = pipelines of a plan at most, V = numbers of chips of each
group, as one index.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sapper.mix.objective import Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Supply
from sapper.mix.search.floors import Floors
from sapper.mix.search.lighten import lightened
from sapper.mix.search.partial import Ask, Enumerated, Extension, Reach, TooMany, enumerated
from sapper.mix.search.segments import Table
from sapper.mix.search.sharing import Sharing
from sapper.predict.arrays import Bools, Floats, Ints

CHIPS = 8
"""Up to which a problem is small."""
PARTIALS = 500_000
"""Partial pipelines, of all that is looked at."""
CELLS = 16_000_000
"""Partial pipelines of one size of micro-batch, times micro-batches of a step: those that are whole have a time for each number."""
VISITS = 200_000
"""Sets of pipelines that are looked at, for one time."""
PRICED = 300
"""Sets that are priced, for one time: few where what is known of them before is exact."""
SHARES = (0.1, 0.02, 0.0)
"""How much faster a plan is to be, in turn: the less is asked, the more there is to look at."""
NEARER = 3
"""Times between what is proved and what is too much to look at that are tried then."""
FACTORS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)
"""Of the bound, where no plan is known yet: where it fits nowhere, no time is long enough."""
LEVELS = 8
"""Of what follows the last micro-batch, for which the reach of other pipelines is known."""
HAIR = 1e-9
"""Relative difference of times that is none."""

Priced = tuple[tuple[Pipeline, ...], Score]


@dataclass(frozen=True)
class Proved:
    """What is known in the end."""

    better: Priced | None
    """The best plan that was found; None: none is faster than what was asked to be beaten, or none was found."""
    floor_s: float
    """No plan takes less; 0 where nothing was proved."""


def proved(table: Table, groups: Sequence[Supply], *, below_s: float | None, least_s: float) -> Proved:
    """A plan on ``groups`` that is faster than ``below_s``, and how fast any plan could be.

    Args:
        table: Costs.
        groups: Of few chips.
        below_s: The best plan that is known; None: none is.
        least_s: A bound that no plan goes below.

    Where there is too much to look at, less is proved. Where pipelines share links the objective knows more than is foreseen here, and
    the floor is what a plan takes without that.
    """
    search, best, floor_s, nearer = _Search(table, groups), None, least_s, NEARER
    times = [below_s * (1.0 - share) for share in SHARES] if below_s is not None else [least_s * factor for factor in FACTORS]
    while times:
        time_s = min(times.pop(0), best[1].step_s if best is not None else math.inf)
        if time_s <= floor_s:
            continue
        known = search.below(time_s)
        best, floor_s = known.better or best, max(floor_s, known.floor_s)
        if best is not None and floor_s >= best[1].step_s * (1.0 - HAIR):
            break
        if not known.floor_s:
            times = [math.sqrt(floor_s * time_s)] if nearer else []
            nearer -= 1
    return Proved(best, floor_s)


@dataclass(frozen=True)
class _Pool:
    """Whole pipelines of all sizes of micro-batch."""

    origins: tuple[tuple[Enumerated, int, int], ...]
    """(where they come from, number of stages, index) of each."""
    chips: Ints
    """[C, G]"""
    sizes: Ints
    """[C]"""
    times_s: Floats
    """[C, N] of 1, 2, ... micro-batches."""
    after_s: Floats
    """[C, P] what follows the last micro-batch at the least, in a plan of 1, 2, ... pipelines."""

    @staticmethod
    def of(found: Sequence[Enumerated], *, groups: int, most: int, pipelines: int) -> _Pool:
        """The whole pipelines of ``found``; ``most`` is N, ``pipelines`` is P."""
        origins: list[tuple[Enumerated, int, int]] = []
        parts = [(np.zeros((0, groups), np.int64), np.zeros(0, np.int64), np.zeros((0, most)), np.zeros((0, pipelines)))]
        for one in found:
            for depth, whole in one.whole():
                part = one.levels[depth].pick(whole)
                times = np.full((len(whole), most), np.inf)
                times[:, : one.extension.most] = part.way_s[:, None] + one.extension.rest_s(part)
                origins += [(one, depth, int(index)) for index in whole]
                parts.append((part.used, np.full(len(whole), one.extension.micro_batch), times, part.after_s))
        return _Pool(tuple(origins), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.sizes)

    def stages(self, index: int) -> tuple[Stage, ...]:
        """Of one pipeline."""
        found, depth, at = self.origins[index]
        return found.stages(depth, at)

    def takes(self, within_s: Floats, of: Ints | None = None) -> Ints:
        """[C] sequences within a time of each, or of some."""
        times, sizes = (self.times_s, self.sizes) if of is None else (self.times_s[of], self.sizes[of])
        return np.asarray((times <= within_s[:, None]).sum(axis=1) * sizes, np.int64)


def _joined(pools: Sequence[_Pool]) -> _Pool:
    arrays = (np.concatenate([getattr(pool, one.name) for pool in pools]) for one in fields(_Pool)[1:])
    return _Pool(tuple(itertools.chain.from_iterable(pool.origins for pool in pools)), *arrays)


class _Chips:
    """Numbers of chips of each group, as one index."""

    def __init__(self, supply: Ints) -> None:
        self.supply = supply
        self.all = np.array(list(itertools.product(*(range(int(count) + 1) for count in supply))), np.int64)
        """[V, G]"""
        self._radix = np.array([math.prod(int(one) + 1 for one in supply[g + 1 :]) for g in range(len(supply))], np.int64)
        self.total = self.all.sum(axis=1)
        """[V]"""
        rests = self.all[:, None] - self.all[None]
        self.part: Bools = np.asarray((rests >= 0).all(axis=2), bool)
        """[V, V] whether the first has all of the second."""
        self.rest = np.where(self.part, rests @ self._radix, 0)
        """[V, V] what is left of the first without the second."""

    def code(self, chips: Ints) -> Ints:
        """[..., G] -> index of V."""
        return np.asarray(chips @ self._radix, np.int64)

    def together(self, codes: Ints, takes: Ints, *, pipelines: int) -> list[Ints]:
        """[V] sequences that 0, 1, ... ``pipelines`` which take ``takes`` on chips ``codes`` take at most, one used as often as liked."""
        best = np.zeros(len(self.all), np.int64)
        np.maximum.at(best, codes, takes)
        uses = np.flatnonzero(best)
        found = [np.zeros(len(self.all), np.int64)]
        part, rest, worth = self.part[:, uses], self.rest[:, uses], best[uses]
        for _ in range(pipelines):
            longer = np.where(part, worth + found[-1][rest], 0).max(axis=1, initial=0)
            found.append(np.maximum(found[-1], longer))
        return found

    def capped(self, found: Ints, *, most: int) -> Ints:
        """[V] the greatest of ``found`` over parts of the chips that have ``most`` chips or fewer."""
        return np.asarray(np.where(self.part & (self.total <= most), found, 0).max(axis=1), np.int64)


class _Search:
    """One small problem."""

    def __init__(self, table: Table, groups: Sequence[Supply]) -> None:
        self.problem, self.groups = table.problem, tuple(groups)
        self.chips = _Chips(np.array([supply.chips for supply in groups], np.int64))
        self.host_s = min(supply.host_s for supply in groups)
        self.batch = self.problem.global_batch
        self._left = PARTIALS
        floors = Floors(table, groups)
        self.pipelines = floors.pipelines
        self._extensions = [Extension(table, groups, size, floors) for size in self.problem.micro_batches if size <= self.batch]

    def below(self, below_s: float) -> Proved:
        """The best plan that is done before ``below_s``.

        Two pipelines of a plan do not both have more than half of the chips. What small ones take together is known from the best of
        them, which are few, and cuts off most large ones; what all take together then cuts off most small ones. Nothing is proved where
        there are more of them than are looked at.
        """
        passes_s, total = below_s * (1.0 - HAIR) - self.host_s, int(self.chips.supply.sum())
        half = total // 2
        try:
            few = self._pool(passes_s, range(1, half + 1), reach=None)
            large = self._pool(passes_s, range(half + 1, total + 1), reach=self._reach(few, below_s=passes_s, most=total - half - 1))
            small = self._pool(passes_s, range(1, half + 1), reach=self._reach(_joined([few, large]), below_s=passes_s, most=total))
        except TooMany:
            return Proved(None, 0.0)
        return _Sets(self, _joined([large, small]), below_s=below_s).best()

    def _pool(self, below_s: float, chips: range, *, reach: Reach | None) -> _Pool:
        found = []
        for one in self._extensions if chips else ():
            try:
                found.append(enumerated(one, Ask(below_s, chips, reach), most=min(self._left, CELLS // one.most)))
            except TooMany:
                self._left //= 2
                raise
            self._left -= len(found[-1])
        most = max(one.most for one in self._extensions)
        return _Pool.of(found, groups=len(self.groups), most=most, pipelines=self.pipelines)

    def _reach(self, pool: _Pool, *, below_s: float, most: int) -> Reach:
        """What pipelines of ``pool`` on ``most`` chips or fewer take together, if so much follows the last micro-batch."""
        codes = self.chips.code(pool.chips)
        levels, tables = [np.zeros(1)], [np.zeros((1, len(self.chips.all)), np.int64)]
        for others in range(1, self.pipelines):
            after_s = pool.after_s[:, others] if len(pool) else np.zeros(1)
            known = np.unique(np.quantile(after_s, np.linspace(0.0, 1.0, LEVELS), method="lower"))
            takes = [pool.takes(below_s - np.maximum(pool.after_s[:, others], level)) for level in known]
            found = [self.chips.together(codes, one, pipelines=others)[-1] for one in takes]
            levels.append(known)
            tables.append(np.stack([self.chips.capped(one, most=most) for one in found]))

        def reach(others: int, after_s: Floats, left: Ints) -> Floats:
            # the level below errs to the safe side, and so does the first one for what is below it: no pipeline of the pool is
            level = np.maximum(np.searchsorted(levels[others], after_s, side="right") - 1, 0)
            return np.asarray(tables[others][level, self.chips.code(left)], float)

        return reach


class _Sets:
    """The sets of pipelines of one pool that may be done before a time, which falls as better ones are found."""

    def __init__(self, search: _Search, pool: _Pool, *, below_s: float) -> None:
        self.search, self.pool, self.limit_s, self.floor_s = search, pool, below_s, below_s
        self._sharing = Sharing(search.problem, [pool.stages(index) for index in range(len(pool))], pool.sizes)
        self._codes = search.chips.code(pool.chips)
        """[C]"""
        self._found: Priced | None = None
        self._visits = self._priced = 0

    def best(self) -> Proved:
        """Of all; of as many as are looked at, with nothing proved, where these are too many."""
        try:
            for chosen in itertools.chain(self._single(), *(self._several(count) for count in range(2, self.search.pipelines + 1))):
                self._price(chosen)
        except TooMany:
            return Proved(self._found, 0.0)
        return Proved(self._found, min(self.floor_s, self.limit_s))

    def _price(self, chosen: tuple[int, ...]) -> None:
        after_s = self._sharing.after_s(chosen) + self.search.host_s
        if self._passes_s(chosen) + after_s >= self.limit_s * (1.0 - HAIR):
            return
        found = self._assigned(chosen)
        if found is None or found[1] + after_s >= self.limit_s * (1.0 - HAIR):
            return
        self._priced += 1
        if self._priced > PRICED:
            raise TooMany
        plan, passes_s = lightened(self.search.problem, found[0]), found[1]
        cost = score(self.search.problem, plan)
        if cost.fits and cost.step_s < self.limit_s:
            self._found, self.limit_s = (plan, cost), cost.step_s
        # where the objective knows more than this, other numbers of micro-batches might be better
        if not cost.fits or cost.step_s > (passes_s + after_s) * (1.0 + HAIR):
            self.floor_s = min(self.floor_s, passes_s + after_s)

    def _single(self) -> Iterator[tuple[int, ...]]:
        """Plans of one pipeline, the fastest first."""
        pool, batch = self.pool, self.search.batch
        able = np.flatnonzero(batch % pool.sizes == 0)
        least = pool.times_s[able, batch // pool.sizes[able] - 1] + pool.after_s[able, 0]
        for index in np.argsort(least, kind="stable"):
            if least[index] + self.search.host_s >= self.limit_s * (1.0 - HAIR):
                break
            yield (int(able[index]),)

    def _several(self, count: int) -> Iterator[tuple[int, ...]]:
        """Sets of ``count`` pipelines; the first of a set has most to reduce, so that all have the same time for their passes."""
        pool, chips, batch = self.pool, self.search.chips, self.search.batch
        after_s = pool.after_s[:, count - 1]
        order = np.argsort(-after_s, kind="stable")
        most = chips.together(self._codes, pool.takes(self._left_s(after_s)), pipelines=count - 1)[-1]
        everything = len(chips.all) - 1
        for at, root in enumerate(order):
            passes_s, left = self._left_s(after_s[[root]]), chips.rest[everything, self._codes[root]]
            own = int(pool.takes(passes_s, order[at : at + 1])[0])
            if not own or own + most[left] < batch:
                continue
            rest = order[at:][chips.part[left, self._codes[order[at:]]]]
            takes = pool.takes(np.full(len(rest), passes_s[0]), rest)
            rest, takes = rest[takes > 0], takes[takes > 0]
            reach = chips.together(self._codes[rest], takes, pipelines=count - 2)
            yield from self._grown((int(root),), rest, left=left, taken=own, takes=takes, reach=reach)

    def _left_s(self, after_s: Floats) -> Floats:
        """Time for passes."""
        return np.asarray(self.limit_s * (1.0 - HAIR) - self.search.host_s - after_s, float)

    def _grown(
        self, chosen: tuple[int, ...], rest: Ints, *, left: int, taken: int, takes: Ints, reach: list[Ints]
    ) -> Iterator[tuple[int, ...]]:
        """Sets that begin with ``chosen`` and go on with some of ``rest``, as many as ``reach`` is known for, and that may take the batch.

        ``left`` is the chips, ``taken`` the sequences of ``chosen``, ``takes`` those of each of ``rest``.
        """
        chips, more = self.search.chips, len(reach) - 1
        codes = self._codes[rest]
        lefts = chips.rest[left, codes]
        able = chips.part[left, codes] & (chips.total[lefts] >= more) & (taken + takes + reach[more][lefts] >= self.search.batch)
        found = np.flatnonzero(able).tolist()
        self._visits += len(found)
        if self._visits > VISITS:
            raise TooMany
        for index in found:
            longer = (*chosen, int(rest[index]))
            if more:
                yield from self._grown(
                    longer, rest[index:], left=int(lefts[index]), taken=taken + int(takes[index]), takes=takes[index:], reach=reach[:more]
                )
            else:
                yield longer

    def _passes_s(self, chosen: tuple[int, ...]) -> float:
        """Least time in which ``chosen`` take the batch, if their micro-batches need not add up to it."""
        picked = list(chosen)
        times = self.pool.times_s[picked].ravel()
        taken = np.repeat(self.pool.sizes[picked], self.pool.times_s.shape[1])
        order = np.argsort(times)
        at = int(np.searchsorted(np.cumsum(taken[order]), self.search.batch))
        return float(times[order[at]]) if at < len(order) else math.inf

    def _assigned(self, chosen: tuple[int, ...]) -> tuple[tuple[Pipeline, ...], float] | None:
        """The plan of exactly these pipelines whose slowest is done first, and when; None where their sizes cannot make up the batch."""
        times, sizes = self.pool.times_s[list(chosen)], self.pool.sizes[list(chosen)].tolist()
        for level in np.unique(times[np.isfinite(times)]):
            counts = adding_up(sizes, (times <= level).sum(axis=1).tolist(), batch=self.search.batch)
            if counts is not None:
                break
        else:
            return None
        copies: dict[tuple[int, int], int] = {}
        for one in zip(chosen, counts, strict=True):
            copies[one] = copies.get(one, 0) + 1
        plan = tuple(
            Pipeline(stages=self.pool.stages(one), micro_batch=int(self.pool.sizes[one]), micro_batches=count, copies=number)
            for (one, count), number in copies.items()
        )
        return plan, float(level)


def adding_up(sizes: list[int], most: list[int], *, batch: int) -> list[int] | None:
    """Micro-batches of each, one or more, that add up to ``batch``: sums that the first so many can make, as bits."""
    if sum(size * count for size, count in zip(sizes, most, strict=True)) < batch:
        return None
    sums = [1]
    for size, count in zip(sizes, most, strict=True):
        bits = 0
        for taken in range(1, count + 1):
            bits |= sums[-1] << (taken * size)
        sums.append(bits)
    if not sums[-1] >> batch & 1:
        return None
    counts, left = [], batch
    for size, count, before in reversed(list(zip(sizes, most, sums, strict=False))):
        taken = next(t for t in range(1, count + 1) if left >= t * size and before >> (left - t * size) & 1)
        counts.append(taken)
        left -= taken * size
    return counts[::-1]
