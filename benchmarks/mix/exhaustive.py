"""The best plan of a small problem by enumeration: every pipeline, every set of pipelines, every number of micro-batches.

Written apart from the search, on the cost function alone. What is left out cannot be part of a plan that is faster than the best one so
far, which is proved for problems that do not shard their states (``zeros=(0,)``, so that the memory of a pipeline does not depend on
the others), whose messages travel beside the passes, and whose gradients take no less time when more chips hold them (true of a ring:
more parts to pass on, no faster a slowest link, no more shards):

* a pipeline takes at least its passes and sends so far, the fastest pass of the layers that are left, and for each further micro-batch
  the slowest stage so far; then what its last backward pass leaves of the reduction of a stage over its own replicas and, if other
  pipelines are in the plan, one holder more;
* the others take no more sequences on the chips that are left than pipelines without sends, waits and limits of memory would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from sapper.mix.objective import score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem
from sapper.mix.problem import Shape as TimesOf

SEEN = 40_000
"""Stages that are tried behind those of a pipeline."""
Chips = tuple[int, ...]
"""By group."""


@dataclass(frozen=True)
class Shape:
    """One pipeline with the time of each number of micro-batches that fits."""

    stages: tuple[Stage, ...]
    micro_batch: int
    chips: Chips
    times_s: tuple[float, ...]
    """Of 1, 2, ... micro-batches."""
    after_s: float
    """Reduction and update at the least, if other pipelines are in the plan."""

    def most(self, time_s: float) -> int:
        """Micro-batches in ``time_s``."""
        return int(np.searchsorted(self.times_s, time_s, side="right"))


class TooLarge(Exception):
    """More pipelines than can be enumerated."""


@dataclass(frozen=True)
class Way:
    """A stage as it may be chosen, whatever its layers."""

    group: int
    tp: int
    replicas: int
    recompute: str
    passed_s: tuple[float, ...]
    """Passes of all layers before each layer."""
    back_s: tuple[float, ...]
    """Backward passes alone."""

    @property
    def chips(self) -> int:
        return self.tp * self.replicas


@dataclass
class Enumeration:
    """Pipelines that a plan done before ``below_s`` may have."""

    problem: Problem
    below_s: float
    most: int
    seen: int = 0
    _reduced: dict[tuple[object, ...], float] = field(default_factory=dict)
    _ways: dict[int, list[Way]] = field(default_factory=dict)

    @property
    def supply(self) -> Chips:
        return tuple(one.chips for one in self.problem.groups)

    def sizes(self) -> Iterator[int]:
        return (size for size in self.problem.micro_batches if size <= self.problem.global_batch)

    def ways(self, size: int) -> list[Way]:
        if size not in self._ways:
            self._ways[size] = list(self._all_ways(size))
        return self._ways[size]

    def _all_ways(self, size: int) -> Iterator[Way]:
        for g, group in enumerate(self.problem.groups):
            for tp, recompute in itertools.product(group.tps, self.problem.recomputes):
                times = self.problem.times[TimesOf(group.name, tp, size, recompute)]
                passed, back = ((0.0, *np.cumsum(one).tolist()) for one in (times.forward_s + times.backward_s, times.backward_s))
                yield from (Way(g, tp, replicas, recompute, passed, back) for replicas in range(1, group.chips // tp + 1))

    def reduced_s(self, way: Way, first: int, last: int, *, others: bool) -> float:
        """Reduction after the last backward pass and update of a stage at the least."""
        problem, key = self.problem, (self.problem.groups[way.group].name, way.tp)
        held, part = problem.held[key], slice(first, last)
        left_s = problem.transport.exposed_s(
            self.whole_s(way, first, last, others=others), backward_s=way.back_s[last] - way.back_s[first],
            size_bytes=float(held.params[part].sum()) * problem.state.gradient,
        )  # fmt: skip
        return float(left_s) + float(held.update_s[part].sum())

    def whole_s(self, way: Way, first: int, last: int, *, others: bool) -> float:
        """Reduction of a stage at the least, hidden or not."""
        problem, key = self.problem, (self.problem.groups[way.group].name, way.tp)
        known = (key, way.replicas, first, last, others)
        if known not in self._reduced:
            held = problem.held[key]
            size = float(held.params[first:last].sum()) * way.tp * problem.state.wire
            more = [(group.name, tp) for group in problem.groups for tp in group.tps if tp <= group.chips]
            holders = [{key: way.replicas}] if not others else []
            for other in more if others else ():
                holders.append({key: way.replicas + 1} if other == key else {key: way.replicas, other: 1})
            self._reduced[known] = min(problem.network.all_reduce_s(size, one) for one in holders)
        return self._reduced[known]

    def least_after_s(self) -> float:
        """Reduction and update of the stage that has the heaviest layer, in any plan of two pipelines or more."""
        least = [math.inf] * self.problem.layers
        for way in (way for size in self.sizes() for way in self.ways(size) if way.replicas == 1):
            for first, last in itertools.combinations(range(self.problem.layers + 1), 2):
                found = self.reduced_s(way, first, last, others=True)
                for layer in range(first, last):
                    least[layer] = min(least[layer], found)
        return max(least)

    def reach(self) -> dict[Chips, int]:
        """Chips -> most sequences that pipelines without sends, waits and limits of memory take on them in time."""
        time_s = self.below_s - self.least_after_s()
        one: dict[Chips, int] = {}
        for size in self.sizes():
            ways = self.ways(size)
            for count in range(1, self.problem.global_batch // size + 1):
                able = [chips for chips in self._left() if any(w + r <= time_s for w, r in self._quick(ways, count, time_s, {}, 0, chips))]
                for chips in able:
                    one[chips] = max(one.get(chips, 0), size * count)
                if not able:
                    break
        return _sums(one, self._left(), self.problem.global_batch)

    def _left(self) -> list[Chips]:
        return list(itertools.product(*(range(count + 1) for count in self.supply)))

    def _quick(
        self, ways: list[Way], count: int, time_s: float, known: dict[tuple[int, Chips], list[tuple[float, float]]], first: int, left: Chips
    ) -> list[tuple[float, float]]:
        """(passes, further micro-batches) of the layers from ``first`` on ``left``, none worse in both than another."""
        if first == self.problem.layers:
            return [(0.0, 0.0)]
        if (first, left) in known:
            return known[first, left]
        before = min(way.passed_s[first] for way in ways)
        found: list[tuple[float, float]] = []
        for way in ways:
            if way.chips > left[way.group]:
                continue
            rest = _less(left, way.group, way.chips)
            turns = -(-count // way.replicas) - 1
            for last in range(first + 1, self.problem.layers + 1):
                passes = way.passed_s[last] - way.passed_s[first]
                if before + passes * (1 + turns) > time_s:
                    break
                for behind, slowest in self._quick(ways, count, time_s, known, last, rest):
                    total = passes + behind, max(slowest, turns * passes)
                    if before + sum(total) <= time_s:
                        found.append(total)
        kept: list[tuple[float, float]] = []
        for one in sorted(found):
            if not kept or one[1] < kept[-1][1]:
                kept.append(one)
        known[first, left] = kept
        return kept

    def shapes(self) -> list[Shape]:
        """Every pipeline that fits and that may be part of a faster plan."""
        reach, found = self.reach(), []
        for size in self.sizes():
            ways = self.ways(size)
            least = [sum(min(w.passed_s[i + 1] - w.passed_s[i] for w in ways) for i in range(at, self.problem.layers)) for at in
                     range(self.problem.layers + 1)]  # fmt: skip
            for stages in self._chains(ways, size, least, reach, (), 0, self.supply, 0.0, (), (0.0, 0.0)):
                shape = self._priced(stages, size)
                if shape is not None:
                    found.append(shape)
                    if len(found) > self.most:
                        raise TooLarge
        return found

    def _chains(
        self, ways: list[Way], size: int, least: list[float], reach: dict[Chips, int], stages: tuple[Stage, ...], first: int, left: Chips,
        way_s: float, paces: tuple[tuple[int, float], ...], after: tuple[float, float],
    ) -> Iterator[tuple[Stage, ...]]:  # fmt: skip
        if first == self.problem.layers:
            yield stages
            return
        for way in ways:
            if way.chips > left[way.group]:
                continue
            group, rest = self.problem.groups[way.group].name, _less(left, way.group, way.chips)
            entry_s = 2.0 * self._send_s(stages[-1], group, way.tp, size) if stages else 0.0
            for last in range(first + 1, self.problem.layers + 1):
                self.seen += 1
                if self.seen > SEEN:
                    raise TooLarge
                passes = way.passed_s[last] - way.passed_s[first]
                total = way_s + entry_s + passes
                reduced = tuple(max(after[k], self.reduced_s(way, first, last, others=bool(k))) for k in (0, 1))
                if total + least[last] >= self.below_s:
                    break
                if total + least[last] + min(reduced) >= self.below_s:
                    continue
                longer = (*paces, (way.replicas, passes))
                alone, among = (self._count(longer, size, self.below_s - total - least[last] - one) * size for one in reduced)
                batch = self.problem.global_batch
                if alone >= batch or (among and among + reach[rest] >= batch):
                    stage = Stage(group=group, first=first, last=last, tp=way.tp, replicas=way.replicas, recompute=way.recompute)  # type: ignore[arg-type]
                    yield from self._chains(ways, size, least, reach, (*stages, stage), last, rest, total, longer, reduced)  # type: ignore[arg-type]

    def _send_s(self, stage: Stage, target: str, tp: int, size: int) -> float:
        message = float(self.problem.boundary_bytes[stage.last - 1]) * size
        return self.problem.network.send_s(message, source=stage.group, target=target, tp=min(stage.tp, tp))

    def _count(self, paces: tuple[tuple[int, float], ...], size: int, left_s: float) -> int:
        if left_s < 0.0:
            return 0
        return min(self.problem.global_batch // size, *(replicas * (1 + int(left_s / pace + 1e-9)) for replicas, pace in paces))

    def _priced(self, stages: tuple[Stage, ...], size: int) -> Shape | None:
        problem, count = self.problem, self.problem.global_batch // size
        while count:
            one = Pipeline(stages=stages, micro_batch=size, micro_batches=count)
            priced = score(problem, (one,))
            if priced.fits:
                break
            count -= 1
        else:
            return None
        scored = priced.pipelines[0]
        times = []
        for number in range(1, count + 1):
            rest = max((-(-number // s.replicas) - 1) * c.pace_s for s, c in zip(stages, scored.stages, strict=True))
            if scored.first_s + rest >= self.below_s:
                break
            times.append(scored.first_s + rest)
        names = [group.name for group in problem.groups]
        ways = {(way.group, way.tp, way.replicas, way.recompute): way for way in self.ways(size)}
        after = max(self.reduced_s(ways[names.index(s.group), s.tp, s.replicas, s.recompute], s.first, s.last, others=True) for s in stages)
        chips = tuple(sum(stage.chips for stage in stages if stage.group == name) for name in names)
        return Shape(stages, size, chips, tuple(times), after) if times else None


def _less(left: Chips, group: int, chips: int) -> Chips:
    return (*left[:group], left[group] - chips, *left[group + 1 :])


def _sums(one: dict[Chips, int], left: list[Chips], batch: int) -> dict[Chips, int]:
    """Chips left -> most sequences that several take together, at most ``batch``."""
    found: dict[Chips, int] = {}
    for chips in left:
        options = [
            worth + found[tuple(a - b for a, b in zip(chips, used, strict=True))]
            for used, worth in one.items()
            if any(used) and all(b <= a for a, b in zip(chips, used, strict=True))
        ]
        found[chips] = min(batch, max(options, default=0))
    return found


def optimum(problem: Problem, *, within_s: float, most: int = 4_000, sets: int = 10_000) -> float:
    """The least step time of any plan; ``within_s`` where none is faster.

    Raises:
        TooLarge: More than ``most`` pipelines or ``sets`` sets of them that could win, or ``SEEN`` stages.
    """
    enumeration = Enumeration(problem, within_s, most)
    known = enumeration.shapes()
    best, supply, batch = within_s, enumeration.supply, problem.global_batch
    worth: dict[Chips, int] = {}
    for one in known:
        worth[one.chips] = max(worth.get(one.chips, 0), one.most(within_s - one.after_s) * one.micro_batch)
    reach = _sums(worth, enumeration._left(), batch)
    tried = 0

    def visit(start: int, chosen: tuple[int, ...], left: Chips, taken: int) -> None:
        nonlocal best, tried
        if chosen and (taken >= batch or len(chosen) == 1):
            tried += 1
            if tried > sets:
                raise TooLarge
            found = _assigned(problem, [known[i] for i in chosen], below=best)
            if found is not None:
                best = found
        for index in range(start, len(known)):
            one = known[index]
            rest = tuple(a - b for a, b in zip(left, one.chips, strict=True))
            if min(rest) < 0:
                continue
            # alone it has less to reduce
            more = one.most(best - (one.after_s if chosen else 0.0)) * one.micro_batch
            if more and taken + more + reach[rest] >= batch:
                visit(index, (*chosen, index), rest, taken + one.most(best - one.after_s) * one.micro_batch)

    visit(0, (), supply, 0)
    return best


def _assigned(problem: Problem, chosen: list[Shape], *, below: float) -> float | None:
    """The least step time of exactly these pipelines if it is under ``below``: every one takes a micro-batch or more."""
    levels = sorted({time for one in chosen for time in one.times_s if time < below})
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        if _counts(chosen, problem.global_batch, levels[middle]) is not None:
            high = middle
        else:
            low = middle + 1
    if low == len(levels):
        return None
    counts = _counts(chosen, problem.global_batch, levels[low])
    assert counts is not None
    pipelines: dict[Pipeline, int] = {}
    for one, count in zip(chosen, counts, strict=True):
        key = Pipeline(stages=one.stages, micro_batch=one.micro_batch, micro_batches=count)
        pipelines[key] = pipelines.get(key, 0) + 1
    plan = tuple(
        Pipeline(stages=k.stages, micro_batch=k.micro_batch, micro_batches=k.micro_batches, copies=n) for k, n in pipelines.items()
    )
    priced = score(problem, plan)
    return priced.step_s if priced.fits and priced.step_s < below else None


def _counts(chosen: list[Shape], batch: int, time_s: float) -> list[int] | None:
    """Micro-batches of each that add up to ``batch`` within ``time_s``: sums that the first k can make, as bits."""
    sums = [1]
    for one in chosen:
        bits = 0
        for count in range(1, one.most(time_s) + 1):
            bits |= sums[-1] << (count * one.micro_batch)
        sums.append(bits)
    if not sums[-1] >> batch & 1:
        return None
    counts, left = [], batch
    for one, before in zip(reversed(chosen), reversed(sums[:-1]), strict=True):
        count = next(
            c for c in range(1, one.most(time_s) + 1) if left - c * one.micro_batch >= 0 and before >> (left - c * one.micro_batch) & 1
        )
        counts.append(count)
        left -= count * one.micro_batch
    return counts[::-1]
