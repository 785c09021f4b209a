"""A plan as a sheet, for the terminal and the page: a row for each stage, the parts of the step, other plans beside it."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.clusters.cluster import Cluster
from sapper.mix.objective import Score, score_plan
from sapper.mix.plan import MixPlan
from sapper.mix.problem import Problem
from sapper.mix.result import Planned
from sapper.predict.plan import Recompute


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
    """Sequences."""
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
    fits: bool

    @property
    def pass_s(self) -> float:
        """One micro-batch forward and backward."""
        return self.forward_s + self.backward_s


def sheet(problem: Problem, plan: MixPlan, score: Score) -> tuple[Row, ...]:
    """The rows of ``plan``, which ``score`` has priced, in the order of its seats."""
    found = []
    for p, (pipeline, priced) in enumerate(zip(plan.pipelines, score.pipelines, strict=True)):
        for s, (stage, one) in enumerate(zip(pipeline.stages, priced.stages, strict=True)):
            turns = -(-pipeline.micro_batches // stage.replicas)
            found.append(
                Row(
                    pipeline=p, stage=s, group=stage.group, chips=pipeline.copies * stage.chips, copies=pipeline.copies,
                    first=stage.first, last=stage.last - 1, tp=stage.tp, replicas=stage.replicas, zero=stage.zero,
                    recompute=stage.recompute, micro_batch=pipeline.micro_batch, micro_batches=turns, forward_s=one.forward_s,
                    backward_s=one.backward_s, send_s=one.send_s, busy=turns * (one.forward_s + one.backward_s) / score.step_s,
                    peak_bytes=one.peak_bytes, capacity_bytes=problem.group(stage.group).capacity_bytes, fits=one.fits,
                )
            )  # fmt: skip
    return tuple(found)


@dataclass(frozen=True)
class Parts:
    """The step of the slowest pipeline, in the order in which it passes; they add up to the step."""

    fill_s: float
    """The first micro-batch through all stages and back."""
    rest_s: float
    """The further ones, at the pace of the slowest stage."""
    reduce_s: float
    update_s: float
    other_s: float
    """What the host does once a step, and waiting for links that pipelines share."""


def parts(score: Score) -> Parts:
    """Where the step goes."""
    slowest = max(score.pipelines, key=lambda one: one.time_s)
    named_s = slowest.time_s + score.reduce_s + score.update_s
    return Parts(
        fill_s=slowest.first_s, rest_s=slowest.rest_s, reduce_s=score.reduce_s, update_s=score.update_s,
        other_s=max(score.step_s - named_s, 0.0),
    )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One question with its answer."""

    cluster: Cluster
    problem: Problem
    planned: Planned
    tokens_per_step: float


@dataclass(frozen=True)
class Compared:
    """Another plan, priced by the same costs."""

    path: str
    step_s: float
    slower: float
    """Over the best plan's step, minus 1."""
    stage: str | None = None
    """Where most memory is missing, as pipeline and stage; None where it fits."""
    lacking_bytes: float | None = None


def compare(answer: Answer, plan: MixPlan, *, path: str) -> Compared:
    """``plan``, which is for the same question, beside the best one.

    Raises:
        KeyError: A shape that the problem has no times for.
    """
    score = score_plan(answer.problem, plan)
    best_s = answer.planned.score.step_s if answer.planned.score else score.step_s
    over = [row for row in sheet(answer.problem, plan, score) if not row.fits]
    worst = max(over, key=lambda row: row.peak_bytes - row.capacity_bytes, default=None)
    return Compared(
        path=path, step_s=score.step_s, slower=score.step_s / best_s - 1.0,
        stage=None if worst is None else f"{worst.pipeline}.{worst.stage}",
        lacking_bytes=None if worst is None else worst.peak_bytes - worst.capacity_bytes,
    )  # fmt: skip


def brief(plan: MixPlan) -> str:
    """A plan in a line: ``2x [old 0-8 tp=2 | new 9-29] 48x1 + ...``."""
    found = []
    for one in plan.pipelines:
        stages = []
        for stage in one.stages:
            degrees = [f"{name}={value}" for name, value in (("tp", stage.tp), ("dp", stage.replicas)) if value > 1]
            stages.append(" ".join([stage.group, f"{stage.first}-{stage.last - 1}", *degrees]))
        found.append(f"{one.copies}x [{' | '.join(stages)}] {one.micro_batches}x{one.micro_batch}")
    return " + ".join(found)
