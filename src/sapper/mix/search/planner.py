"""search: the fastest plan, over every set of groups that could hold it, with what the sets alone would give."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from sapper.memory import without_collector
from sapper.mix.objective import Known, Score, score
from sapper.mix.plan import Pipeline
from sapper.mix.problem import Problem, Supply
from sapper.mix.result import Planned
from sapper.mix.search.answer import answer, nowhere
from sapper.mix.search.blends import blends
from sapper.mix.search.bound import bound_s
from sapper.mix.search.candidates import columns
from sapper.mix.search.chains import Column
from sapper.mix.search.exact import CHIPS, HAIR, proved
from sapper.mix.search.fleet import Pool, after_s, quickest, thresholds
from sapper.mix.search.lighten import binds, lightened
from sapper.mix.search.refine import refine
from sapper.mix.search.remembered import Remembered
from sapper.mix.search.segments import Table
from sapper.mix.search.spread import spread

LEVELS = 10
"""Limits on the time after the last micro-batch that are tried on a set of groups."""
BLENDS = 12
REFINED = 3
"""Plans of a set of groups that the local search starts from."""
STAGES = 2_000
"""Stages that a local search may price."""
CUTS = 16
"""Pipelines that it may cut anew."""
LIGHTENED = 12
"""Plans whose ZeRO stages are lowered."""
HOPELESS = 1.25
"""Plans this much slower than the best group of theirs alone are not searched from."""


@dataclass(frozen=True)
class Found:
    """The best plan on a set of groups."""

    groups: tuple[str, ...]
    pipelines: tuple[Pipeline, ...]
    score: Score


@dataclass
class Search:
    """One search as it goes."""

    problem: Problem
    table: Table
    deadline_s: float
    whole: bool
    """Whether no other search with more ZeRO stages follows."""
    columns: dict[tuple[str, ...], list[Column]] = field(default_factory=dict)
    """By the groups that they are on, made when first asked for."""
    plans: int = 0
    found: dict[tuple[str, ...], Found | None] = field(default_factory=dict)
    floors_s: dict[tuple[str, ...], float] = field(default_factory=dict)
    """What no plan on these groups goes below, where it was proved."""
    known: Known = field(default_factory=Known)
    """Stages priced so far."""

    @property
    def best(self) -> Found | None:
        """So far."""
        return min((one for one in self.found.values() if one is not None), key=lambda one: one.score.step_s, default=None)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.process_time() > self.deadline_s

    def floor_s(self, groups: tuple[Supply, ...]) -> float:
        """No plan on ``groups`` takes less: nor does one on all of which they are a part."""
        names = {one.name for one in groups}
        known = [floor for of, floor in self.floors_s.items() if names <= set(of)]
        return max([bound_s(self.table, groups), *known])

    def pool(self, groups: tuple[Supply, ...]) -> list[Column]:
        """Columns on ``groups`` and every part of them; when the time is up, those that are known, and each group's own."""
        found: list[Column] = []
        for size in range(1, len(groups) + 1):
            for part in itertools.combinations(groups, size):
                names = tuple(one.name for one in part)
                if names not in self.columns and (size == 1 or not self.late):
                    self.columns[names] = columns(self.table, part)
                found += self.columns.get(names, [])
        return found


def search(problem: Problem, *, time_s: float = 30.0) -> Planned:
    """The fastest plan of ``problem`` that fits.

    Args:
        problem: Costs and supply.
        time_s: Processor time after which no further set of groups is begun; each group alone is always searched in full, and
            all together at least with the columns that each has alone.
    """
    start, deadline_s = time.perf_counter(), time.process_time() + time_s
    with without_collector():
        return _searched(problem, start=start, deadline_s=deadline_s)


def _searched(problem: Problem, *, start: float, deadline_s: float) -> Planned:
    plans, made = 0, 0
    known: dict[tuple[str, ...], Found | None] = {}
    levels, network = _levels(problem), Remembered(problem.network)
    for zeros in levels:
        asked = replace(problem, zeros=zeros, network=network)
        task = Search(asked, Table(asked), deadline_s=deadline_s, found=known, whole=zeros == levels[-1])
        _search(task)
        known, plans, made = task.found, plans + task.plans, made + sum(map(len, task.columns.values()))
        if task.late:
            break
    best = task.best
    if best is None:
        return nowhere(problem, elapsed_s=time.perf_counter() - start)
    return answer(
        problem,
        best=best,
        found=task.found,
        bound_s=task.floor_s(problem.groups),
        plans=plans,
        columns=made,
        started_s=start,
    )


def _levels(problem: Problem) -> list[tuple[int, ...]]:
    """ZeRO stages to search with: gradients and weights are shared only where memory limits plans, and after plans without that."""
    light = tuple(zero for zero in problem.zeros if zero <= 1)
    if not light:
        return [problem.zeros]
    return [light, problem.zeros] if len(light) < len(problem.zeros) and binds(problem) else [light]


def _search(task: Search) -> None:
    """Look at every set of groups; what is known of one already stays where nothing better is found."""
    problem = task.problem
    for groups in fleets(problem):
        best, names = task.best, tuple(one.name for one in groups)
        between = 1 < len(groups) < len(problem.groups)
        if len(groups) > 1 and ((between and task.late) or (best is not None and task.floor_s(groups) >= best.score.step_s * (1.0 - HAIR))):
            continue
        rivals = [one for one in (task.found.get(names), _on(task, groups)) if one is not None]
        task.found[names] = min(rivals, key=lambda one: one.score.step_s, default=None)
    if task.whole:
        _look_at_all(task)


def _look_at_all(task: Search) -> None:
    """All plans on few chips: each group alone where all groups have few, and any set on which a plan might beat the best."""
    every = task.problem.groups
    if len(every) > 1 and _few(every):
        for supply in every:  # what mixing gains is over these
            _keep(task, (supply,), _exactly(task, (supply,), task.found.get((supply.name,))))
    for groups in sorted(fleets(task.problem), key=len, reverse=True):
        best = task.best
        if (task.late and 1 < len(groups) < len(every)) or not _few(groups):
            continue
        if best is None or task.floor_s(groups) < best.score.step_s * (1.0 - HAIR):
            _keep(task, groups, _exactly(task, groups, best))


def _few(groups: tuple[Supply, ...]) -> bool:
    """Whether all plans on ``groups`` can be looked at."""
    return sum(supply.chips for supply in groups) <= CHIPS


def _keep(task: Search, groups: tuple[Supply, ...], found: Found | None) -> None:
    """What is better than what is known of these groups, also as a plan on the ones of them that it takes chips of."""
    if found is None:
        return
    used = {stage.group for one in found.pipelines for stage in one.stages}
    for names in dict.fromkeys((tuple(one.name for one in groups), tuple(one.name for one in groups if one.name in used))):
        known = task.found.get(names)
        if known is None or found.score.step_s < known.score.step_s:
            task.found[names] = replace(found, groups=names)


def fleets(problem: Problem) -> Iterator[tuple[Supply, ...]]:
    """Every set of groups: the single ones, then all together, then the ones between."""
    groups = problem.groups
    for size in [1, len(groups), *range(len(groups) - 1, 1, -1)] if len(groups) > 1 else [1]:
        yield from itertools.combinations(groups, size)


def _on(task: Search, groups: tuple[Supply, ...]) -> Found | None:
    """The best plan on ``groups`` that the search finds."""
    names, pool = tuple(one.name for one in groups), task.pool(groups)
    priced: dict[frozenset[Pipeline], Found] = {}

    def price(fleets: Iterable[tuple[Pipeline, ...]]) -> float:
        """Price more of them; the best so far."""
        for pipelines in fleets:
            priced.setdefault(frozenset(pipelines), Found(names, pipelines, score(task.problem, pipelines, known=task.known)))
        return min((one.score.step_s for one in priced.values() if one.score.fits), default=math.inf)

    if pool:
        known_s = price(_fleets(task, groups, pool))
        best_s = task.best.score.step_s if task.best is not None else math.inf
        price(spread(task.table, groups, below_s=min(known_s, best_s)))
    task.plans += len(priced)
    starts = _lightened(task, sorted(priced.values(), key=lambda one: (not one.score.fits, one.score.step_s))[:LIGHTENED])
    alone = min((found.score.step_s for name in groups if (found := task.found.get((name.name,))) is not None), default=math.inf)
    return _refined(task, starts[:REFINED], hopeless_s=HOPELESS * alone if len(groups) > 1 else math.inf)


def _exactly(task: Search, groups: tuple[Supply, ...], found: Found | None) -> Found | None:
    """A plan on a few chips that beats what was found on any, or that, and how much better one could be."""
    least_s = bound_s(task.table, groups)
    if not math.isfinite(least_s):
        return found
    known = proved(task.table, groups, below_s=None if found is None else found.score.step_s, least_s=least_s)
    task.floors_s[tuple(one.name for one in groups)] = known.floor_s
    return found if known.better is None else Found(tuple(one.name for one in groups), *known.better)


def _lightened(task: Search, starts: list[Found]) -> list[Found]:
    """``starts`` with no more ZeRO than memory asks for, the fastest first."""
    found = []
    for one in starts:
        pipelines = lightened(task.problem, one.pipelines, known=task.known)
        if pipelines != one.pipelines:
            one = replace(one, pipelines=pipelines, score=score(task.problem, pipelines, known=task.known))
        found.append(one)
    return sorted(found, key=lambda one: (not one.score.fits, one.score.step_s))


def _refined(task: Search, starts: list[Found], *, hopeless_s: float) -> Found | None:
    """The best plan that the local search finds from ``starts``; those slower than ``hopeless_s`` count as they are."""
    best: Found | None = None
    for one in starts:
        if one.score.fits and one.score.step_s > hopeless_s:
            pipelines, better = one.pipelines, one.score
        else:
            pipelines, better = refine(task.table, one.pipelines, stages=STAGES, cuts=CUTS, known=task.known)
            again = lightened(task.problem, pipelines, known=task.known)
            if again != pipelines:
                pipelines, better = again, score(task.problem, again, known=task.known)
        if better.fits and (best is None or better.step_s < best.score.step_s):
            best = replace(one, pipelines=pipelines, score=better)
    return best


def _fleets(task: Search, groups: tuple[Supply, ...], pool: list[Column]) -> Iterator[tuple[Pipeline, ...]]:
    """One fleet for each limit on what follows the last micro-batch, and for each blend of shapes."""
    batch = task.problem.global_batch
    for shaped, _ in blends(task.table, groups, pool, most=BLENDS):
        fleet = quickest(Pool.of(groups, [column for one in shaped for column in one.columns]), batch)
        if fleet is not None:
            yield fleet
    alone = [one for one in pool if batch % one.micro_batch == 0 and one.limit >= batch // one.micro_batch]
    for one in sorted(alone, key=lambda one: one.time_s(batch // one.micro_batch))[:1]:
        yield (one.pipeline(micro_batches=batch // one.micro_batch, copies=1),)
    after = after_s(task.table, groups, pool)
    reachable = np.isfinite(after)
    whole = Pool.of(groups, pool)
    for level in thresholds(after[reachable], at_most=LEVELS):
        chosen = whole.pick(reachable & (after <= level))
        dividing = chosen.pick(batch % chosen.sizes == 0)
        for part in (chosen, dividing):
            fleet = quickest(part, batch) if part.columns else None
            if fleet is not None:
                yield fleet
                break
