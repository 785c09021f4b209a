"""A plan for the chips that are left, made in milliseconds from the plan that is in force, where there is no time to search.

One chip after the other is taken out of the plan in the way that costs least by an estimate: a replica of a stage less, a stage
merged into its neighbours, or a copy of a pipeline given up. Then the micro-batches are dealt anew, so that the global batch stays.
The speed of a group is what the plan itself says: by the times that it expects, else by the work that it gives to one chip.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from sapper.mix.plan import MixPlan, Pipeline, Stage

Speeds = Mapping[str, float]
"""Group -> seconds of a chip for one layer of one sequence, forward and backward; up to one common factor."""


def shrink(plan: MixPlan, supply: Mapping[str, int], *, fits: Callable[[MixPlan], bool] | None = None) -> MixPlan | None:
    """``plan`` on at most ``supply`` chips of each group; None: nothing is left to train on.

    Args:
        plan: The plan for all chips.
        supply: Chips that are left, by group.
        fits: Whether a plan fits into memory; None: not known, and each is taken to.
    """
    speeds = group_speeds(plan)
    found: MixPlan | None = plan
    while found is not None:
        counts = found.chips
        over = [group for group, used in counts.items() if used > supply.get(group, 0)]
        if not over:
            idle = {group: supply[group] - found.chips.get(group, 0) for group in supply}
            return replace(found, idle={group: count for group, count in idle.items() if count > 0}, expected=None)
        # The group that loses most comes first: what is given up while it is still there would be missed when it is not.
        scarce = min(over, key=lambda group: supply.get(group, 0) / counts[group])
        choices = [dealt for one in _smaller(found, scarce) if (dealt := deal(one, speeds)) is not None]
        allowed = [one for one in choices if fits is None or fits(one)] or choices
        found = min(allowed, key=lambda one: estimate(one, speeds), default=None)
    return _chain(plan, supply, speeds)


def _chain(plan: MixPlan, supply: Mapping[str, int], speeds: Speeds) -> MixPlan | None:
    """One pipeline over the group that is fastest by what is left of it: where taking out chip by chip has left nothing."""
    have = {group: min(count, plan.layers + 2) for group, count in supply.items() if count > 0 and group in speeds}
    if not have:
        return None
    best = max(have, key=lambda group: have[group] / speeds[group])
    cuts = [(plan.layers + 2) * at // have[best] for at in range(have[best] + 1)]
    stages = tuple(Stage(group=best, first=first, last=last) for first, last in itertools.pairwise(cuts))
    one = Pipeline(stages=stages, micro_batch=1, micro_batches=plan.global_batch)
    idle = {group: count - (have[best] if group == best else 0) for group, count in supply.items()}
    return replace(plan, pipelines=(one,), idle={group: count for group, count in idle.items() if count > 0}, expected=None)


def group_speeds(plan: MixPlan) -> dict[str, float]:
    """The speeds that a plan implies."""
    times: dict[str, list[float]] = {}
    expected = plan.expected.stage_s if plan.expected else ()
    for p, pipeline in enumerate(plan.pipelines):
        for s, stage in enumerate(pipeline.stages):
            if expected:
                found = expected[p][s] / (len(stage.layers) * pipeline.micro_batch)
            else:
                # A planner gives each chip about the same time.
                found = stage.replicas / (len(stage.layers) * pipeline.micro_batch * pipeline.micro_batches)
            times.setdefault(stage.group, []).append(found * stage.tp)
    return {group: sum(found) / len(found) for group, found in times.items()}


def estimate(plan: MixPlan, speeds: Speeds) -> float:
    """The time of a step without communication; the formula of :mod:`sapper.mix.objective`."""
    return max(_pipeline_s(one, speeds, one.micro_batches) for one in plan.pipelines)


def _pipeline_s(pipeline: Pipeline, speeds: Speeds, micro_batches: int) -> float:
    passes = [speeds[one.group] / one.tp * len(one.layers) * pipeline.micro_batch for one in pipeline.stages]
    rest = (
        (math.ceil(micro_batches / one.replicas) - 1) * time for one, time in zip(pipeline.stages, passes, strict=True)
    )
    return sum(passes) + max(rest)


def _smaller(plan: MixPlan, group: str) -> Iterator[MixPlan]:
    """Plans with fewer chips of ``group``."""
    for p, pipeline in enumerate(plan.pipelines):
        if not any(stage.group == group for stage in pipeline.stages):
            continue
        others = [*plan.pipelines[:p], *plan.pipelines[p + 1 :]]
        if pipeline.copies > 1:
            others.append(replace(pipeline, copies=pipeline.copies - 1))
        single = replace(pipeline, copies=1)
        if others:
            yield replace(plan, pipelines=tuple(others))
        for s, stage in enumerate(pipeline.stages):
            if stage.group == group:
                for stages in _without(single.stages, s):
                    yield replace(plan, pipelines=(*others, replace(single, stages=stages)))


def _without(stages: Sequence[Stage], at: int) -> Iterator[tuple[Stage, ...]]:
    """The stages with a smaller tensor degree at ``at``, with a replica less, or with its layers given to its neighbours."""
    stage = stages[at]
    before, after = list(stages[:at]), list(stages[at + 1 :])
    if stage.tp > 1:
        yield (*before, replace(stage, tp=max(part for part in range(1, stage.tp) if stage.tp % part == 0)), *after)
    if stage.replicas > 1:
        yield (*before, replace(stage, replicas=stage.replicas - 1), *after)
        return
    cuts = {stage.last} if before and not after else {stage.first} if after and not before else set(range(stage.first, stage.last + 1))
    for cut in sorted(cuts) if before or after else ():
        left = [*before[:-1], replace(before[-1], last=cut)] if before else []
        right = [replace(after[0], first=cut), *after[1:]] if after else []
        yield (*left, *right)


def deal(plan: MixPlan, speeds: Speeds) -> MixPlan | None:
    """``plan`` with the micro-batches dealt so that its pipelines end together; None: fewer sequences than pipelines.

    A micro-batch to whichever pipeline is done with it first; a rest that is no whole micro-batch makes the micro-batches of one
    pipeline smaller.
    """
    singles = [replace(one, copies=1, micro_batches=0) for one in plan.pipelines for _ in range(one.copies)]
    left = plan.global_batch
    if not singles or left < len(singles):
        return None
    counts = [0] * len(singles)
    queue = [(_pipeline_s(one, speeds, 1), at) for at, one in enumerate(singles)]
    heapq.heapify(queue)
    while queue and left:
        _, at = heapq.heappop(queue)
        if singles[at].micro_batch <= left:
            counts[at] += 1
            left -= singles[at].micro_batch
            heapq.heappush(queue, (_pipeline_s(singles[at], speeds, counts[at] + 1), at))
    if left:
        at = min(range(len(singles)), key=lambda one: _pipeline_s(singles[one], speeds, counts[one] + 1))
        size = math.gcd(singles[at].micro_batch, left)
        counts[at] = (counts[at] * singles[at].micro_batch + left) // size
        singles[at] = replace(singles[at], micro_batch=size)
    used = [replace(one, micro_batches=count) for one, count in zip(singles, counts, strict=True) if count]
    return replace(plan, pipelines=tuple(_together(used)))


def _together(pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """Neighbours of one shape as copies."""
    found: list[Pipeline] = []
    for one in pipelines:
        if found and replace(found[-1], copies=1) == one:
            found[-1] = replace(found[-1], copies=found[-1].copies + 1)
        else:
            found.append(one)
    return found
