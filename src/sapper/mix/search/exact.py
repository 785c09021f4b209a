"""Small problems whole: the best plan of all, or the proof that none is faster by more than a given share.

Every pipeline that could be part of a faster plan (:mod:`~sapper.mix.search.partial`), and every set of such pipelines that could take
the batch in time. What a set takes at the least is known from its pipelines, and the objective prices the sets that may still win.

Legend: C = pipelines, G = groups, N = micro-batches of a step at most, V = numbers of chips of each group, as one index.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sapper.mix.objective import Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Supply
from sapper.mix.search.floors import Floors
from sapper.mix.search.partial import Enumerated, Extension, Reach, TooMany, enumerated
from sapper.mix.search.segments import Table
from sapper.predict.arrays import Floats, Ints

CHIPS = 8
"""Up to which a problem is small."""
CELLS = 8_000_000
"""Partial pipelines times micro-batches, of all that is looked at."""
SETS = 4_000
"""Sets that are priced."""
VISITS = 100_000
"""Sets that are looked at."""
SHARES = (0.25, 0.1, 0.05, 0.02, 0.0)
"""How much faster a plan is to be, in turn: the less is asked, the more there is to look at."""
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
    search, best, floor_s = _Search(table, groups), None, 0.0
    for time_s in [below_s * (1.0 - share) for share in SHARES] if below_s is not None else [least_s * factor for factor in FACTORS]:
        if best is not None and time_s >= best[1].step_s:
            time_s = best[1].step_s
        try:
            known = search.below(time_s)
        except TooMany:
            break
        best, floor_s = known.better or best, max(floor_s, known.floor_s)
        if floor_s >= (best[1].step_s if best is not None else time_s) * (1.0 - HAIR) and best is not None:
            break
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
    alone_s: Floats
    """[C] what follows the last micro-batch, if no other pipeline is in the plan."""
    among_s: Floats
    """[C] the same at the least, if there are others."""

    @staticmethod
    def of(found: Sequence[Enumerated], *, groups: int, most: int) -> _Pool:
        """The whole pipelines of ``found``; ``most`` is N."""
        origins, parts = [], []
        for one in found:
            for depth, whole in one.whole():
                part = one.levels[depth].pick(whole)
                times = np.full((len(whole), most), np.inf)
                times[:, : part.rest_s.shape[1]] = part.way_s[:, None] + part.rest_s
                origins += [(one, depth, int(index)) for index in whole]
                parts.append((part.used, np.full(len(whole), one.extension.micro_batch), times, part.alone_s, part.among_s))
        if not origins:
            none = np.zeros(0)
            return _Pool((), np.zeros((0, groups), np.int64), np.zeros(0, np.int64), np.zeros((0, most)), none, none)
        return _Pool(tuple(origins), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def stages(self, index: int) -> tuple[Stage, ...]:
        """Of one pipeline."""
        found, depth, at = self.origins[index]
        return found.stages(depth, at)

    def takes(self, within_s: Floats) -> Ints:
        """[C] sequences within a time of each."""
        return np.asarray((self.times_s <= within_s[:, None]).sum(axis=1) * self.sizes, np.int64)


class _Search:
    """One small problem."""

    def __init__(self, table: Table, groups: Sequence[Supply]) -> None:
        self.problem, self.supply = table.problem, np.array([supply.chips for supply in groups], np.int64)
        self.host_s = min(supply.host_s for supply in groups)
        self.batch = self.problem.global_batch
        self._left = CELLS
        floors = Floors(table, groups)
        self._extensions = [Extension(table, groups, size, floors) for size in self.problem.micro_batches if size <= self.batch]
        self._codes = np.array(list(itertools.product(*(range(count + 1) for count in self.supply))), np.int64)
        """[V, G]"""
        self._radix = np.array([math.prod(int(one) + 1 for one in self.supply[g + 1 :]) for g in range(len(groups))], np.int64)

    def below(self, below_s: float) -> Proved:
        """The best plan that is done before ``below_s``.

        Raises:
            TooMany: More pipelines than are looked at.
        """
        passes_s = below_s * (1.0 - HAIR) - self.host_s
        reach = self._reach(self._pool(passes_s, reach=None), below_s=passes_s)
        return _Sets(self, self._pool(passes_s, reach=reach), below_s=below_s).best()

    def code(self, chips: Ints) -> Ints:
        """[..., G] chips -> their index of V."""
        return np.asarray(chips @ self._radix, np.int64)

    def together(self, chips: Ints, takes: Ints) -> Ints:
        """[V] sequences that pipelines which take ``takes`` on ``chips`` take together at most, any number of each."""
        best = np.zeros(len(self._codes), np.int64)
        np.maximum.at(best, self.code(chips), takes)
        uses = np.flatnonzero(best)
        found = np.zeros(len(self._codes), np.int64)
        for code, left in enumerate(self._codes):  # a part of the chips has a lower index
            rests = left - self._codes[uses]
            fits = (rests >= 0).all(axis=1)
            found[code] = (best[uses[fits]] + found[self.code(rests[fits])]).max(initial=0)
        return found

    def _pool(self, below_s: float, *, reach: Reach | None) -> _Pool:
        found = []
        for one in self._extensions:
            found.append(enumerated(one, below_s=below_s, reach=reach, most=self._left // one.most))
            self._left -= len(found[-1]) * one.most
        return _Pool.of(found, groups=len(self.supply), most=max(one.most for one in self._extensions))

    def _reach(self, pool: _Pool, *, below_s: float) -> Reach:
        """What pipelines of ``pool`` take together, by chips, if so much follows the last micro-batch."""
        some = pool.among_s if len(pool.sizes) else np.zeros(1)
        levels = np.unique(np.quantile(some, np.linspace(0.0, 1.0, LEVELS), method="lower"))
        takes = [pool.takes(below_s - np.maximum(pool.among_s, level)) for level in levels]
        tables = np.stack([self.together(pool.chips, one) for one in takes])

        def reach(after_s: Floats, left: Ints) -> Floats:
            # the level below errs to the safe side, and so does the first one for what is below it: no pipeline of the pool is
            level = np.maximum(np.searchsorted(levels, after_s, side="right") - 1, 0)
            return np.asarray(tables[level, self.code(left)], float)

        return reach


class _Sets:
    """The sets of pipelines of one pool that may be done before a time, which falls as better ones are found."""

    def __init__(self, search: _Search, pool: _Pool, *, below_s: float) -> None:
        self.search, self.pool, self.limit_s, self.floor_s = search, pool, below_s, below_s
        self._found: Priced | None = None
        self._priced = self._visits = 0

    def best(self) -> Proved:
        """Of all; of as many as are looked at, with nothing proved, where these are too many."""
        try:
            for chosen, least_s in itertools.chain(self._single(), self._several()):
                if least_s < self.limit_s * (1.0 - HAIR):
                    self._price(chosen, least_s=least_s)
        except TooMany:
            return Proved(self._found, 0.0)
        return Proved(self._found, min(self.floor_s, self.limit_s))

    def _price(self, chosen: tuple[int, ...], *, least_s: float) -> None:
        found = self._assigned(chosen)
        if found is None:
            return
        plan, passes_s = found
        self._priced += 1
        if self._priced > SETS:
            raise TooMany
        cost = score(self.search.problem, plan)
        if cost.fits and cost.step_s < self.limit_s:
            self._found, self.limit_s = (plan, cost), cost.step_s
        host_s = max(self.search.problem.group(stage.group).host_s for one in plan for stage in one.stages)
        # where the objective knows more than this, other numbers of micro-batches might be better
        exact = cost.fits and cost.step_s <= (passes_s + cost.reduce_s + cost.update_s + host_s) * (1.0 + HAIR)
        self.floor_s = min(self.floor_s, cost.step_s if exact else least_s)

    def _single(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Plans of one pipeline, the fastest first."""
        pool, batch = self.pool, self.search.batch
        able = np.flatnonzero(batch % pool.sizes == 0)
        least = pool.times_s[able, batch // pool.sizes[able] - 1] + pool.alone_s[able]
        for index in np.argsort(least, kind="stable"):
            yield (int(able[index]),), float(least[index]) + self.search.host_s

    def _several(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Sets of two pipelines or more; the first of a set has most to reduce, so that all have the same time for their passes."""
        pool, search = self.pool, self.search
        order = np.argsort(-pool.among_s, kind="stable")
        for at, root in enumerate(order):
            passes_s = self.limit_s * (1.0 - HAIR) - search.host_s - float(pool.among_s[root])
            takes = pool.takes(np.full(len(pool.sizes), passes_s))
            rest = order[at:][takes[order[at:]] > 0]
            if takes[root]:
                reach = search.together(pool.chips[rest], takes[rest])
                yield from self._grown((int(root),), rest, left=search.supply - pool.chips[root], takes=takes, reach=reach)

    def _grown(
        self, chosen: tuple[int, ...], rest: Ints, *, left: Ints, takes: Ints, reach: Ints
    ) -> Iterator[tuple[tuple[int, ...], float]]:
        """All sets that begin with ``chosen`` and go on with ``rest``, and that may take the batch."""
        taken = int(takes[list(chosen)].sum())
        if taken + reach[self.search.code(left)] < self.search.batch:
            return
        lefts = left - self.pool.chips[rest]
        fits = np.flatnonzero((lefts >= 0).all(axis=1))
        able = fits[taken + takes[rest[fits]] + reach[self.search.code(lefts[fits])] >= self.search.batch]
        self._visits += len(able)
        if self._visits > VISITS:
            raise TooMany
        for index in able:
            longer = (*chosen, int(rest[index]))
            if taken + takes[rest[index]] >= self.search.batch:
                yield longer, self._passes_s(longer) + float(self.pool.among_s[longer[0]]) + self.search.host_s
            yield from self._grown(longer, rest[index:], left=lefts[index], takes=takes, reach=reach)

    def _passes_s(self, chosen: tuple[int, ...]) -> float:
        """Least time in which ``chosen`` take the batch, if their micro-batches need not add up to it."""
        times, sizes = self.pool.times_s[list(chosen)], self.pool.sizes[list(chosen)]
        levels = np.sort(times[np.isfinite(times)])
        enough = ((times[None] <= levels[:, None, None]).sum(axis=2) @ sizes >= self.search.batch).tolist()
        return float(levels[enough.index(True)]) if True in enough else math.inf

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
