"""A plan as a sheet: a row for each stage with what it does, how long, in how much memory, and what binds it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sapper.mix.objective import Score
from sapper.mix.plan import MixPlan
from sapper.mix.problem import Problem, Shape
from sapper.predict.plan import Recompute

Binds = Literal["pace", "memory", "pace-memory", "slack"]
"""``pace``: the whole step waits for this stage; ``memory``: no further layer would fit; ``slack``: neither."""
LEVEL = 0.995
"""Two stages, or two pipelines, within this share of each other both set the pace."""


@dataclass(frozen=True)
class Row:
    """One stage of one pipeline."""

    pipeline: int
    stage: int
    group: str
    chips: int
    """Of all copies."""
    copies: int
    first: int
    last: int
    """Last layer, included."""
    tp: int
    replicas: int
    zero: int
    recompute: Recompute
    micro_batch: int
    micro_batches: int
    """That one replica takes in a step, at most."""
    forward_s: float
    backward_s: float
    """Of one micro-batch."""
    send_s: float
    busy: float
    """Share of the step in passes."""
    peak_bytes: float
    capacity_bytes: float
    binds: Binds


def sheet(problem: Problem, plan: MixPlan, score: Score) -> tuple[Row, ...]:
    """The rows of ``plan``, which ``score`` has priced, in the order of its seats."""
    slowest_s = max(one.time_s for one in score.pipelines)
    found = []
    for p, (pipeline, priced) in enumerate(zip(plan.pipelines, score.pipelines, strict=True)):
        loads = [
            -(-pipeline.micro_batches // stage.replicas) * (one.forward_s + one.backward_s)
            for stage, one in zip(pipeline.stages, priced.stages, strict=True)
        ]
        for s, (stage, one) in enumerate(zip(pipeline.stages, priced.stages, strict=True)):
            paces = priced.time_s >= LEVEL * slowest_s and loads[s] >= LEVEL * max(loads)
            full = _full(problem, plan, at=(p, s), free_bytes=problem.group(stage.group).capacity_bytes - one.peak_bytes)
            found.append(
                Row(
                    pipeline=p, stage=s, group=stage.group, chips=pipeline.copies * stage.chips, copies=pipeline.copies,
                    first=stage.first, last=stage.last - 1, tp=stage.tp, replicas=stage.replicas, zero=stage.zero,
                    recompute=stage.recompute, micro_batch=pipeline.micro_batch,
                    micro_batches=-(-pipeline.micro_batches // stage.replicas), forward_s=one.forward_s, backward_s=one.backward_s,
                    send_s=one.send_s, busy=loads[s] / score.step_s, peak_bytes=one.peak_bytes,
                    capacity_bytes=problem.group(stage.group).capacity_bytes, binds=_binds(paces, full),
                )
            )  # fmt: skip
    return tuple(found)


def _binds(paces: bool, full: bool) -> Binds:
    if paces:
        return "pace-memory" if full else "pace"
    return "memory" if full else "slack"


def _full(problem: Problem, plan: MixPlan, *, at: tuple[int, int], free_bytes: float) -> bool:
    """Whether a layer of a neighbour, or one more of its own where it has none, would not fit: its weights alone are asked."""
    stage = plan.pipelines[at[0]].stages[at[1]]
    near = [layer for layer in (stage.first - 1, stage.last) if 0 <= layer < problem.layers]
    if not near:
        return False
    held = problem.held[stage.group, stage.tp].params
    saved = problem.times[Shape(stage.group, stage.tp, plan.pipelines[at[0]].micro_batch, stage.recompute)].saved_bytes
    each = problem.state.weight + problem.state.gradient + (0.0 if stage.zero else problem.state.optimizer)
    return min(float(held[layer]) * each + float(saved[layer]) for layer in near) > free_bytes
