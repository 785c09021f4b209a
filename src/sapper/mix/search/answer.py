"""The answer in full: the plan as a file, and the reasons for what it does and leaves out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from sapper import units
from sapper.evidence import Interval
from sapper.mix.objective import Score
from sapper.mix.plan import Expected, MixPlan, Pipeline
from sapper.mix.problem import Problem
from sapper.mix.result import Binding, Planned, Reason, Runner, Subfleet
from sapper.mix.search.segments import Kind, Table

if TYPE_CHECKING:
    from sapper.mix.search.planner import Found

TIGHT = 0.9
"""Share of the capacity from which on a stage is said to be bound by memory."""
NORMAL_80 = 1.2816
"""Half width of the central 80% of a normal distribution, in standard deviations."""


def answer(
    problem: Problem,
    *,
    best: Found,
    found: Mapping[tuple[str, ...], Found | None],
    bound_s: float,
    plans: int,
    columns: int,
    started_s: float,
) -> Planned:
    """The best plan with everything around it."""
    subfleets = tuple(
        Subfleet(groups=names, step_s=None if one is None else one.score.step_s)
        for names, one in sorted(found.items(), key=lambda item: len(item[0]))
    )
    alone = {one.groups[0]: one.step_s for one in subfleets if len(one.groups) == 1}
    step_s = best.score.step_s
    bound_s = min(bound_s, step_s)
    single = min((one for one in alone.values() if one is not None), default=None)
    plan = plan_of(problem, best.pipelines, score=best.score, bound_s=bound_s, alone_s=alone)
    return Planned(
        best=plan,
        score=best.score,
        bound_s=bound_s,
        gap=step_s / bound_s - 1.0,
        subfleets=subfleets,
        gain=None if single is None else max(single / step_s - 1.0, 0.0),
        verdict=_verdict(plan, alone, step_s=step_s),
        runners=_runners(problem, best, found),
        binds=_binds(problem, plan, best.score),
        idle=tuple(Reason(code="mix.idle", values={"group": name, "chips": str(count)}) for name, count in plan.idle.items()),
        plans=plans,
        columns=columns,
        elapsed_s=time.perf_counter() - started_s,
    )


def plan_of(
    problem: Problem,
    pipelines: tuple[Pipeline, ...],
    *,
    score: Score,
    bound_s: float | None = None,
    alone_s: dict[str, float | None] | None = None,
) -> MixPlan:
    """``pipelines`` as the file that is run."""
    identity = problem.identity
    plan = MixPlan(
        model=problem.model,
        model_digest=identity.model_digest,
        cluster=identity.cluster,
        cluster_digest=identity.cluster_digest,
        layers=problem.layers - 2,
        seq_len=problem.seq_len,
        global_batch=problem.global_batch,
        precision=identity.precision,
        optimizer=identity.optimizer,
        wire=identity.wire,
        pipelines=pipelines,
    )
    used = plan.chips
    idle = {one.name: one.chips - used.get(one.name, 0) for one in problem.groups if one.chips > used.get(one.name, 0)}
    expected = Expected(
        step_time=_interval(problem, plan, score.step_s),
        bound_s=bound_s,
        stage_s=tuple(tuple(stage.forward_s + stage.backward_s for stage in one.stages) for one in score.pipelines),
        memory_bytes=tuple(tuple(stage.peak_bytes for stage in one.stages) for one in score.pipelines),
        alone_s=alone_s or {},
    )
    return msgspec.structs.replace(plan, idle=idle, expected=expected)


def _interval(problem: Problem, plan: MixPlan, step_s: float) -> Interval:
    """80%: the step is as uncertain as the least certain group that it waits for."""
    spread = NORMAL_80 * max(problem.group(name).relative_sd for name in plan.chips)
    return Interval(mid=step_s, low=step_s * math.exp(-spread), high=step_s * math.exp(spread), unit="s", grade="derived")


def _verdict(plan: MixPlan, alone: Mapping[str, float | None], *, step_s: float) -> Reason:
    able = {name: one for name, one in alone.items() if one is not None}
    groups = ", ".join(plan.chips)
    if not able:
        return Reason(code="mix.verdict.only", values={"groups": groups})
    name, single = min(able.items(), key=lambda item: item[1])
    if len(plan.chips) == 1:
        return Reason(code="mix.verdict.alone", values={"group": groups, "step": units.duration(step_s)})
    values = {
        "groups": groups,
        "step": units.duration(step_s),
        "group": name,
        "alone": units.duration(single),
        "gain": f"{100 * (single / step_s - 1):.1f}%",
    }
    return Reason(code="mix.verdict.mix", values=values)


def _runners(problem: Problem, best: Found, found: Mapping[tuple[str, ...], Found | None]) -> tuple[Runner, ...]:
    others = sorted(
        (one for one in found.values() if one is not None and one is not best and one.pipelines != best.pipelines),
        key=lambda one: one.score.step_s,
    )
    return tuple(
        Runner(
            plan=plan_of(problem, one.pipelines, score=one.score),
            step_s=one.score.step_s,
            slower=one.score.step_s / best.score.step_s - 1.0,
            reason=_why_slower(one, best),
        )
        for one in others[:5]
    )


def _why_slower(one: Found, best: Found) -> Reason:
    """The part of the step that costs it most."""
    values = {"more": units.duration(max(one.score.step_s - best.score.step_s, 0.0))}
    after, least = one.score.reduce_s + one.score.update_s, best.score.reduce_s + best.score.update_s
    if after - least > (one.score.step_s - best.score.step_s) / 2.0:
        return Reason(code="mix.slower.reduce", values=values)
    return Reason(code="mix.slower.compute", values=values)


def _binds(problem: Problem, plan: MixPlan, score: Score) -> tuple[Binding, ...]:
    found = []
    longest = max(one.time_s for one in score.pipelines)
    for p, (pipeline, priced) in enumerate(zip(plan.pipelines, score.pipelines, strict=True)):
        for s, (stage, cost) in enumerate(zip(pipeline.stages, priced.stages, strict=True)):
            turns = -(-pipeline.micro_batches // stage.replicas)
            busy = turns * (cost.forward_s + cost.backward_s) / score.step_s
            filled = cost.peak_bytes / problem.group(stage.group).capacity_bytes
            if s == priced.slowest and priced.time_s >= 0.98 * longest:
                code = "mix.binds.pace"
            elif filled >= TIGHT:
                code = "mix.binds.memory"
            elif priced.time_s < 0.98 * longest and s == priced.slowest:
                code = "mix.binds.whole"
            else:
                code = "mix.binds.none"
            found.append(Binding(pipeline=p, stage=s, busy=busy, filled=filled, reason=Reason(code=code, values={})))
    return tuple(found)


def nowhere(problem: Problem, *, elapsed_s: float) -> Planned:
    """No plan fits: what the leanest stage of one layer lacks on each group."""
    table, reasons = Table(problem), []
    for supply in problem.groups:
        lean = [
            segments
            for tp in supply.tps
            for recompute in problem.recomputes
            if (segments := table.segments(Kind(supply.name, tp, recompute), min(problem.micro_batches))) is not None
        ]
        state = problem.state
        each = state.weight + state.gradient + state.optimizer
        need = min((float(one.params[0, -1]) * each * one.shape.tp for one in lean), default=math.inf)
        have = (supply.capacity_bytes - supply.overhead_bytes) * supply.chips
        reasons.append(
            Reason(
                code="mix.nowhere.group",
                values={"group": supply.name, "chips": str(supply.chips), "need": units.gib(need), "have": units.gib(have)},
            )
        )
    return Planned(best=None, score=None, bound_s=None, gap=None, why_none=tuple(reasons), elapsed_s=elapsed_s)
