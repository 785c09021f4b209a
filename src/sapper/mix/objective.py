"""The step time and memory of a plan by closed form: what the search minimises and the certificate speaks of.

A pipeline of S stages and m micro-batches takes the pass of one micro-batch through all stages and back, and then the slowest stage
for each further one (1F1B; arXiv:2104.04473, section 2.2, for unequal stages):

    sum_s (f_s + b_s) + 2 sum_s send_s + max_s (ceil(m / replicas_s) - 1) pace_s

pace_s is f_s + b_s with the messages that the stage waits for (:class:`~sapper.mix.problem.Transport`). It is no less than what its
busiest link needs for one micro-batch, nor, unless the problem says otherwise, than the way of a micro-batch from the stage to the last
and back over those that it may hold in flight. A link that pipelines share is no faster than all their messages one after the other.
A step is the slowest pipeline, then the reduction of gradients, as far as the last backward pass does not hide it, and the update on
the chip that has most of them, and what its host does once a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sapper.mix.order import in_flights
from sapper.mix.plan import MixPlan, Pipeline, Schedule, Stage
from sapper.mix.problem import Holders, Problem, Shape
from sapper.mix.states import left_to_reduce, passes_s, states_bytes, update_s


class _Run(NamedTuple):
    """Layers that the same chips hold."""

    first: int
    last: int
    """One past the last."""
    holders: Holders


@dataclass(frozen=True)
class Held:
    """Who holds what in a plan."""

    runs: Sequence[_Run]
    mates: Mapping[tuple[object, ...], int]
    """:attr:`Stage.sharing` -> sets of chips, of the stages that share."""
    marks: bytes
    """``by_layer`` as keys: :data:`MARK` bytes for each layer."""

    @cached_property
    def by_layer(self) -> Sequence[Holders]:
        """Layers of one run have the same mapping."""
        return [run.holders for run in self.runs for _ in range(run.first, run.last)]


MARK = 4
"""Bytes that tell the holders of a layer from others."""


@dataclass(frozen=True)
class StageScore:
    """One stage of one pipeline."""

    forward_s: float
    """Of one micro-batch."""
    backward_s: float
    send_s: float
    """The activation to the next stage; 0 for the last."""
    pace_s: float
    """Of each further micro-batch: both passes, the messages that they wait for, or the link where that is slower."""
    reduce_s: float
    """Its gradients, once a step, as far as its last backward pass does not hide them."""
    update_s: float
    states_bytes: float
    live_bytes: float
    """Activations in flight and what works on them."""
    peak_bytes: float
    fits: bool


@dataclass(frozen=True)
class PipelineScore:
    """One pipeline: ``first_s`` is the pass of one micro-batch, ``rest_s`` what the further ones add."""

    first_s: float
    rest_s: float
    slowest: int
    """The stage that sets the pace."""
    stages: tuple[StageScore, ...]

    @property
    def time_s(self) -> float:
        """All micro-batches."""
        return self.first_s + self.rest_s


@dataclass(frozen=True)
class Score:
    """A plan priced."""

    step_s: float
    pipelines: tuple[PipelineScore, ...]
    reduce_s: float
    update_s: float
    fits: bool


@dataclass(frozen=True)
class _Outline:
    """What a plan asks of the stages of one pipeline, whatever its micro-batches."""

    number: int
    """Tells it from others."""
    runs: tuple[tuple[int, int, tuple[str, int], int], ...]
    """First layer, one past the last, (group, tp) and replicas; stages behind each other that are alike in the latter are one."""
    sharings: tuple[tuple[object, ...] | None, ...]
    """By stage; None for one that shares nothing."""
    sets: Mapping[tuple[object, ...], int]
    """Sharing -> sets of chips of one copy."""

    @staticmethod
    def of(stages: tuple[Stage, ...], *, number: int) -> _Outline:
        """Of ``stages``."""
        runs = []
        for (key, replicas), alike in itertools.groupby(stages, key=lambda stage: ((stage.group, stage.tp), stage.replicas)):
            own = list(alike)
            runs.append((own[0].first, own[-1].last, key, replicas))
        sharings = tuple(stage.sharing if stage.zero else None for stage in stages)
        sets: dict[tuple[object, ...], int] = {}
        for stage, sharing in zip(stages, sharings, strict=True):
            if sharing is not None:
                sets[sharing] = sets.get(sharing, 0) + stage.replicas
        return _Outline(number, tuple(runs), sharings, sets)


@dataclass
class Known:
    """Stages and pipelines of one problem that were priced before: plans one step apart have most of theirs in common."""

    stages: dict[tuple[object, ...], StageScore] = field(default_factory=dict)
    """By all that a stage's score follows from."""
    pipelines: dict[tuple[object, ...], PipelineScore] = field(default_factory=dict)
    """By all that a pipeline's score follows from."""
    outlines: dict[tuple[Stage, ...], _Outline] = field(default_factory=dict)
    marks: dict[frozenset[tuple[tuple[str, int], int]], bytes] = field(default_factory=dict)
    """By holders of a layer: what :attr:`Held.marks` has for it."""

    def outline(self, stages: tuple[Stage, ...]) -> _Outline:
        """Of ``stages``."""
        found = self.outlines.get(stages)
        if found is None:
            found = self.outlines[stages] = _Outline.of(stages, number=len(self.outlines))
        return found

    def mark(self, holders: Holders) -> bytes:
        """Of a layer with ``holders``."""
        return self.marks.setdefault(frozenset(holders.items()), len(self.marks).to_bytes(MARK, "big"))


def score(problem: Problem, pipelines: tuple[Pipeline, ...], *, schedule: Schedule = "1f1b", known: Known | None = None) -> Score:
    """Price ``pipelines``.

    Args:
        problem: Costs.
        pipelines: The plan.
        schedule: Order of work.
        known: Parts of plans of ``problem`` that need not be priced again; those that are new are added.

    Raises:
        KeyError: A shape that the problem has no times for.
    """
    known = Known() if known is None else known
    outlines = [known.outline(one.stages) for one in pipelines]
    holders = _held(problem, pipelines, outlines, known)
    abreast = _abreast(problem, pipelines)
    priced = tuple(
        _pipeline(problem, one, outline=outline, holders=holders, schedule=schedule, abreast=abreast, known=known)
        for one, outline in zip(pipelines, outlines, strict=True)
    )
    stages = [stage for one in priced for stage in one.stages]
    last = max(stages, key=lambda stage: stage.reduce_s + stage.update_s)
    used = {stage.group for one in pipelines for stage in one.stages}
    reduce_s = max(last.reduce_s, _shared_reduce_s(problem, holders.runs, priced))
    return Score(
        step_s=max([*(one.time_s for one in priced), *_shared_sends_s(problem, pipelines, priced).values()])
        + reduce_s + last.update_s + max(problem.group(name).host_s for name in used),
        pipelines=priced,
        reduce_s=reduce_s,
        update_s=last.update_s,
        fits=all(stage.fits for stage in stages),
    )


def score_plan(problem: Problem, plan: MixPlan) -> Score:
    """Price ``plan``."""
    return score(problem, plan.pipelines, schedule=plan.schedule)


def _held(problem: Problem, pipelines: tuple[Pipeline, ...], outlines: Sequence[_Outline], known: Known) -> Held:
    """Runs of layers, and sets of chips that share states, over all copies."""
    ends = sorted({0, problem.layers, *(layer for one in outlines for run in one.runs for layer in run[:2])})
    at = {layer: run for run, layer in enumerate(ends)}
    found: list[dict[tuple[str, int], int]] = [{} for _ in ends[1:]]
    mates: dict[tuple[object, ...], int] = {}
    for pipeline, outline in zip(pipelines, outlines, strict=True):
        for first, last, key, replicas in outline.runs:
            for held in found[at[first] : at[last]]:
                held[key] = held.get(key, 0) + pipeline.copies * replicas
        for sharing, sets in outline.sets.items():
            mates[sharing] = mates.get(sharing, 0) + pipeline.copies * sets
    runs = [_Run(first, last, held) for held, (first, last) in zip(found, itertools.pairwise(ends), strict=True)]
    return Held(runs, mates, b"".join([known.mark(run.holders) * (run.last - run.first) for run in runs]))


def _abreast(problem: Problem, pipelines: tuple[Pipeline, ...]) -> dict[frozenset[str], int]:
    """Two groups that share one link -> boundaries of stages between them, over all copies of all pipelines."""
    found: dict[frozenset[str], int] = {}
    for pipeline in pipelines if problem.transport.shared else ():
        for stage, after in itertools.pairwise(pipeline.stages):
            if stage.group != after.group:
                pair = frozenset((stage.group, after.group))
                found[pair] = found.get(pair, 0) + pipeline.copies
    return found


def _pipeline(
    problem: Problem,
    pipeline: Pipeline,
    *,
    outline: _Outline,
    holders: Held,
    schedule: Schedule,
    abreast: Mapping[frozenset[str], int],
    known: Known,
) -> PipelineScore:
    mates = holders.mates
    shards = tuple([1 if sharing is None else mates[sharing] for sharing in outline.sharings])
    crowd = tuple(abreast.items()) if problem.transport.blocking else ()
    key = outline.number, pipeline.micro_batch, pipeline.micro_batches, shards, crowd, holders.marks, schedule
    found = known.pipelines.get(key)
    if found is None:
        found = known.pipelines[key] = _priced(
            problem, pipeline, shards=shards, holders=holders, schedule=schedule, abreast=abreast, known=known
        )  # fmt: skip
    return found


def _priced(
    problem: Problem,
    pipeline: Pipeline,
    *,
    shards: tuple[int, ...],
    holders: Held,
    schedule: Schedule,
    abreast: Mapping[frozenset[str], int],
    known: Known,
) -> PipelineScore:
    links = [_link(problem, pipeline, index, abreast=abreast) for index in range(len(pipeline.stages))]
    stages, flights = [], in_flights([stage.replicas for stage in pipeline.stages], pipeline.micro_batches, schedule=schedule)
    for index, (stage, after) in enumerate(zip(pipeline.stages, links, strict=True)):
        before, marks = links[index - 1] if index else NO_LINK, holders.marks[MARK * stage.first : MARK * stage.last]
        key = stage, pipeline.micro_batch, flights[index], shards[index], before, after, marks
        found = known.stages.get(key)
        if found is None:
            found = known.stages[key] = _stage(
                problem, stage, micro_batch=pipeline.micro_batch, flight=flights[index], shards=shards[index],
                holders=holders.by_layer, before=before, after=after,
            )  # fmt: skip
        stages.append(found)
    again_s = problem.transport.again(len(stages)) * stages[0].send_s
    if again_s:
        stages[0] = replace(stages[0], pace_s=stages[0].pace_s + again_s)
    if schedule == "1f1b" and problem.transport.windowed:
        stages = _paced(pipeline, stages)
    rests = [
        (-(-pipeline.micro_batches // stage.replicas) - 1) * one.pace_s for stage, one in zip(pipeline.stages, stages, strict=True)
    ]
    first_s = sum(one.forward_s + one.backward_s + 2.0 * one.send_s for one in stages) + again_s
    return PipelineScore(first_s=first_s, rest_s=max(rests), slowest=int(np.argmax(rests)), stages=tuple(stages))


def _paced(pipeline: Pipeline, stages: list[StageScore]) -> list[StageScore]:
    """The stages with the pace that their way to the end and back allows: 1F1B starts no more before the first is through.

    Micro-batches are dealt round, so that of unlike numbers of replicas some hold one less, and the stage keeps their pace.
    """
    found, way_s, behind = [], 0.0, 0
    for stage, one in zip(reversed(pipeline.stages), reversed(stages), strict=True):
        way_s += one.forward_s + one.backward_s + 2.0 * one.send_s
        behind += stage.replicas
        pace_s = way_s / (behind // stage.replicas)
        found.append(replace(one, pace_s=pace_s) if pace_s > one.pace_s else one)
    return found[::-1]


class _Link(NamedTuple):
    """Between a stage and the next: time of a message, and for how many of them each end waits."""

    send_s: float
    waits: tuple[float, float]


NO_LINK = _Link(0.0, (0.0, 0.0))


def _link(problem: Problem, pipeline: Pipeline, index: int, *, abreast: Mapping[frozenset[str], int]) -> _Link:
    if index + 1 == len(pipeline.stages):
        return NO_LINK
    stage, after = pipeline.stages[index : index + 2]
    size = float(problem.boundary_bytes[stage.last - 1]) * pipeline.micro_batch
    send_s = problem.network.send_s(size, source=stage.group, target=after.group, tp=min(stage.tp, after.tp))
    if problem.transport.blocking:
        # copies run in step and send at once
        send_s *= abreast.get(frozenset((stage.group, after.group)), 1)
    return _Link(send_s, problem.transport.waits(size / min(stage.tp, after.tp)))


def _stage(
    problem: Problem,
    stage: Stage,
    *,
    micro_batch: int,
    flight: int,
    shards: int,
    holders: Sequence[Holders],
    before: _Link,
    after: _Link,
) -> StageScore:
    times = problem.times[Shape(stage.group, stage.tp, micro_batch, stage.recompute)]
    part = slice(stage.first, stage.last)
    supply = problem.group(stage.group)
    states = states_bytes(problem, stage, shards=shards)
    live = flight * float(times.saved_bytes[part].sum()) + float(times.working_bytes[part].max())
    peak = states + live + supply.overhead_bytes
    forward_s, backward_s = passes_s(
        problem, stage, forward_s=float(times.forward_s[part].sum()), backward_s=float(times.backward_s[part].sum()), shards=shards
    )
    waiting_s = before.waits[1] * before.send_s + after.waits[0] * after.send_s
    return StageScore(
        forward_s=forward_s,
        backward_s=backward_s,
        send_s=after.send_s,
        pace_s=max(forward_s + backward_s + waiting_s, before.send_s, after.send_s),
        reduce_s=exposed_s(problem, stage, micro_batch=micro_batch, holders=holders, shards=shards),
        update_s=update_s(problem, stage, shards=shards),
        states_bytes=states,
        live_bytes=live,
        peak_bytes=peak,
        fits=peak <= supply.capacity_bytes,
    )


def _shared_sends_s(problem: Problem, pipelines: tuple[Pipeline, ...], priced: tuple[PipelineScore, ...]) -> dict[frozenset[str], float]:
    """Two groups -> all activations of a step that cross between them, where they share one link; gradients go the other way."""
    found: dict[frozenset[str], float] = {}
    alone = problem.transport.shared and not problem.transport.blocking  # a transport that blocks has it in its pace
    for pipeline, scored in zip(pipelines, priced, strict=True) if alone else ():
        for (stage, after), one in zip(itertools.pairwise(pipeline.stages), scored.stages, strict=False):
            if stage.group != after.group:
                pair = frozenset((stage.group, after.group))
                found[pair] = found.get(pair, 0.0) + pipeline.copies * pipeline.micro_batches * one.send_s
    return found


def _shared_reduce_s(problem: Problem, runs: Sequence[_Run], priced: tuple[PipelineScore, ...]) -> float:
    """Gradients of the whole model between groups, where all layers share one link: one set of each group stands for it.

    They leave from the first backward pass of the last micro-batch on, which goes through all stages.
    """
    sizes: dict[tuple[tuple[str, int], ...], float] = {}
    for first, last, by_shape in runs if problem.transport.shared else ():
        sets = tuple(sorted({group: (group, tp) for group, tp in by_shape}.values()))
        if len(sets) > 1:
            params = float(problem.held[sets[0]].params[first:last].sum()) * sets[0][1]
            sizes[sets] = sizes.get(sets, 0.0) + params * problem.state.wire
    if not sizes:
        return 0.0
    found = sum(problem.network.all_reduce_s(size, dict.fromkeys(sets, 1)) for sets, size in sizes.items())
    backward_s = min(sum(stage.backward_s for stage in one.stages) for one in priced)
    size = sum(sizes.values()) / problem.state.wire * problem.state.gradient
    return float(problem.transport.exposed_s(found, backward_s=backward_s, size_bytes=size))


def exposed_s(problem: Problem, stage: Stage, *, micro_batch: int, holders: Sequence[Holders], shards: int) -> float:
    """What is left of the reduction of a stage's gradients after its last backward pass.

    Args:
        problem: Costs.
        stage: The stage.
        micro_batch: Sequences.
        holders: By layer.
        shards: Sets of chips that share its states; with ZeRO 2 and 3 the runtime begins after the pass.
    """
    left, parts = left_to_reduce(stage, holders, shards=shards)
    whole_s = _reduce_s(problem, stage, left, parts=parts)
    if not whole_s or parts > 1:
        return whole_s
    part = slice(stage.first, stage.last)
    times = problem.times[Shape(stage.group, stage.tp, micro_batch, stage.recompute)]
    size = float(problem.held[stage.group, stage.tp].params[part].sum()) * problem.state.gradient
    return float(problem.transport.exposed_s(whole_s, backward_s=float(times.backward_s[part].sum()), size_bytes=size))


def _reduce_s(problem: Problem, stage: Stage, holders: Sequence[Holders], *, parts: int) -> float:
    """Runs of layers with the same holders are reduced together; each chip has one of ``parts``."""
    total, start = 0.0, stage.first
    for layer in range(stage.first + 1, stage.last + 1):
        if layer == stage.last or (holders[layer] is not holders[start] and holders[layer] != holders[start]):
            params = float(problem.held[stage.group, stage.tp].params[start:layer].sum()) * stage.tp
            total += problem.network.all_reduce_s(params * problem.state.wire / parts, holders[start])
            start = layer
    return total

