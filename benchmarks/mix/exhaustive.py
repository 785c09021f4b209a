"""The best plan of a small problem by enumeration: every pipeline, every set of pipelines, every number of micro-batches.

Written apart from the search, on the cost function alone. Sets of pipelines are left out only where they cannot take the batch in the
time of the best plan so far; nothing is left out by a rule of thumb. Problems must not shard their states (``zeros=(0,)``), so that
the memory of a pipeline does not depend on the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sapper.mix.objective import score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem


@dataclass(frozen=True)
class Shape:
    """One pipeline with the time of each number of micro-batches that fits."""

    stages: tuple[Stage, ...]
    micro_batch: int
    chips: tuple[int, ...]
    times_s: tuple[float, ...]
    """Of 1, 2, ... micro-batches."""

    def most(self, time_s: float) -> int:
        """Micro-batches in ``time_s``."""
        return int(np.searchsorted(self.times_s, time_s, side="right"))


class TooLarge(Exception):
    """More pipelines than can be enumerated."""


def shapes(problem: Problem, *, within_s: float, most: int) -> list[Shape]:
    """Every pipeline that fits and takes one micro-batch within ``within_s``."""
    found: list[Shape] = []
    supply = tuple(one.chips for one in problem.groups)
    seen = 0
    for micro_batch in problem.micro_batches:
        for stages in _chains(problem, (), 0, supply):
            seen += 1
            if seen > 4 * most:
                raise TooLarge
            times: list[float] = []
            for count in range(1, problem.global_batch // micro_batch + 1):
                one = Pipeline(stages=stages, micro_batch=micro_batch, micro_batches=count)
                priced = score(problem, (one,))
                if not priced.fits or priced.pipelines[0].time_s > within_s:
                    break
                times.append(priced.pipelines[0].time_s)
            if times:
                chips = tuple(sum(stage.chips for stage in stages if stage.group == group.name) for group in problem.groups)
                found.append(Shape(stages, micro_batch, chips, tuple(times)))
    return found


def _chains(problem: Problem, stages: tuple[Stage, ...], first: int, left: tuple[int, ...]) -> Iterator[tuple[Stage, ...]]:
    if first == problem.layers:
        yield stages
        return
    for g, group in enumerate(problem.groups):
        for tp, recompute in itertools.product(group.tps, problem.recomputes):
            for replicas in range(1, left[g] // tp + 1):
                rest = (*left[:g], left[g] - tp * replicas, *left[g + 1 :])
                for last in range(first + 1, problem.layers + 1):
                    stage = Stage(
                        group=group.name, first=first, last=last, tp=tp, replicas=replicas, zero=problem.zeros[0], recompute=recompute
                    )
                    yield from _chains(problem, (*stages, stage), last, rest)


def optimum(problem: Problem, *, within_s: float, most: int = 400, sets: int = 2_000) -> float:
    """The least step time of any plan; ``within_s`` where none is faster.

    Raises:
        TooLarge: More than four times ``most`` pipelines, or more than ``sets`` sets of them that could win.
    """
    known = shapes(problem, within_s=within_s, most=most)
    best = within_s
    supply = tuple(one.chips for one in problem.groups)
    reach = _reach(known, supply, problem.global_batch, within_s)
    tried = 0

    def visit(start: int, chosen: tuple[int, ...], left: tuple[int, ...], taken: int) -> None:
        nonlocal best, tried
        if chosen:
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
            more = one.most(best) * one.micro_batch
            if more and taken + more + reach[rest] >= problem.global_batch:
                visit(index, (*chosen, index), rest, taken + more)

    visit(0, (), supply, 0)
    return best


def _reach(known: list[Shape], supply: tuple[int, ...], batch: int, time_s: float) -> dict[tuple[int, ...], int]:
    """Chips left -> most sequences that they can take in ``time_s``."""
    worth: dict[tuple[int, ...], int] = {}
    for one in known:
        worth[one.chips] = max(worth.get(one.chips, 0), one.most(time_s) * one.micro_batch)
    found: dict[tuple[int, ...], int] = {}
    for left in itertools.product(*(range(count + 1) for count in supply)):
        options = [
            worth[chips] + found[tuple(a - b for a, b in zip(left, chips, strict=True))]
            for chips in worth
            if all(b <= a for a, b in zip(left, chips, strict=True))
        ]
        found[left] = min(batch, max(options, default=0))
    return found


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
