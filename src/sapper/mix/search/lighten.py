"""ZeRO no higher than memory asks for: what it saves is paid in messages."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sapper.mix.objective import Known, Score, score
from sapper.mix.plan import Pipeline
from sapper.mix.problem import Problem, Shape

Place = tuple[int, int]
"""(pipeline, stage)"""


def lightened(problem: Problem, pipelines: tuple[Pipeline, ...], *, known: Known | None = None) -> tuple[Pipeline, ...]:
    """``pipelines`` with less ZeRO where more memory is to be had, for each set of stages that share their states.

    ZeRO 0 if it fits and the step is no longer for it, else 1, else the lowest that fits: what 2 and 3 send in each pass goes through the
    hosts' memory in the runtime, which the costs of links do not know.
    """
    sets: dict[tuple[object, ...], list[Place]] = {}
    for p, one in enumerate(pipelines):
        for s, stage in enumerate(one.stages):
            if stage.zero:
                sets.setdefault(stage.sharing[1:], []).append((p, s))
    # What a stage takes at a level follows from its own set alone: one price of the plan for each level tells it of all.
    priced: dict[int, Score] = {}

    def cost(level: int) -> Score:
        if level not in priced:
            way = _at(pipelines, {place: level for places in sets.values() for place in places})
            priced[level] = score(problem, way, known=known)
        return priced[level]

    def after_s(level: int, places: list[Place]) -> float:
        stages = (cost(level).pipelines[p].stages[s] for p, s in places)
        return max(stage.reduce_s + stage.update_s for stage in stages)

    levels = sorted({0, *problem.zeros})
    able = {key: [level for level in levels if level <= 1 and _fits(cost(level), places)] for key, places in sets.items()}
    for key, places in sets.items():
        if not able[key]:
            able[key] = [level for level in levels if level > 1 and _fits(cost(level), places)][:1]
    least_s = max((min(after_s(level, sets[key]) for level in among) for key, among in able.items() if among), default=0.0)
    chosen = {
        place: next(level for level in among if after_s(level, sets[key]) <= least_s)
        for key, among in able.items() if among for place in sets[key]
    }
    return _at(pipelines, chosen)


def binds(problem: Problem) -> bool:
    """Whether memory limits any plan: a chip that holds the whole model, with as many micro-batches as it could ever have in flight."""
    state = problem.state
    for supply in problem.groups:
        for tp in supply.tps:
            weights = float(problem.held[supply.name, tp].params.sum()) * (state.weight + state.gradient + state.optimizer)
            for size in problem.micro_batches:
                try:
                    times = problem.times[Shape(supply.name, tp, size)]
                except KeyError:
                    continue
                flight = min(problem.global_batch // size, sum(one.chips for one in problem.groups))
                live = flight * float(times.saved_bytes.sum()) + float(times.working_bytes.max())
                if supply.overhead_bytes + weights + live > supply.capacity_bytes:
                    return True
    return False


def _fits(cost: Score, places: list[Place]) -> bool:
    """Whether all of these stages do."""
    return all(cost.pipelines[p].stages[s].fits for p, s in places)


def _at(pipelines: tuple[Pipeline, ...], levels: Mapping[Place, int]) -> tuple[Pipeline, ...]:
    """``pipelines`` with these ZeRO stages."""

    def changed(p: int, one: Pipeline) -> Pipeline:
        stages = [
            stage if levels.get((p, s), stage.zero) == stage.zero else msgspec.structs.replace(stage, zero=levels[p, s])
            for s, stage in enumerate(one.stages)
        ]
        return msgspec.structs.replace(one, stages=tuple(stages))

    return tuple(changed(p, one) for p, one in enumerate(pipelines))
