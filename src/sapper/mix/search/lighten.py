"""ZeRO no higher than memory asks for: what it saves is paid in messages."""

from __future__ import annotations

import msgspec

from sapper.mix.objective import Known, score
from sapper.mix.plan import Pipeline
from sapper.mix.problem import Problem, Shape


def lightened(problem: Problem, pipelines: tuple[Pipeline, ...], *, known: Known | None = None) -> tuple[Pipeline, ...]:
    """``pipelines`` with less ZeRO where more memory is to be had, for each set of stages that share their states.

    The faster of ZeRO 0 and 1 if one fits, else the lowest that does: what 2 and 3 send in each pass goes through the hosts' memory in
    the runtime, which the costs of links do not know.
    """
    best = pipelines
    levels = sorted({0, *problem.zeros})
    for sharing in {stage.sharing: None for one in pipelines for stage in one.stages if stage.zero}:
        places = [(p, s) for p, one in enumerate(best) for s, stage in enumerate(one.stages) if stage.sharing == sharing]
        # of 0 and 1 the faster; each of the others only where none before it fits
        for among in ([level for level in levels if level <= 1], *([level] for level in levels if level > 1)):
            ways = [_with(best, sharing, zero) for zero in among]
            priced = [score(problem, way, known=known) for way in ways]
            able = [at for at, cost in enumerate(priced) if all(cost.pipelines[p].stages[s].fits for p, s in places)]
            if able:
                best = ways[min(able, key=lambda at: priced[at].step_s)]
                break
    return best


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


def _with(pipelines: tuple[Pipeline, ...], sharing: tuple[object, ...], zero: int) -> tuple[Pipeline, ...]:
    def changed(one: Pipeline) -> Pipeline:
        stages = tuple(msgspec.structs.replace(stage, zero=zero) if stage.sharing == sharing else stage for stage in one.stages)
        return msgspec.structs.replace(one, stages=stages)

    return tuple(map(changed, pipelines))
