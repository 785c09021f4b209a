"""Other cuts of the pipelines by measured times: which layers each stage should have had, and what that saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from sapper.mix.balance.counts import Lane, best_counts
from sapper.mix.balance.cuts import best_cuts
from sapper.mix.plan import MixPlan, Pipeline
from sapper.predict.arrays import Floats

LayersS = Mapping[int, float]
"""Layer -> seconds, where it runs now; only what a stage's layers take of each other is used."""
Cuts = tuple[tuple[int, ...], ...]
"""Ends of the stages, by pipeline."""
_BARRED_STEPS = 100
"""For which cuts that did not hold what they promised are left alone."""


@dataclass
class Tried:
    """What came of the cuts that a run has had so far; equal on all its ranks."""

    before: tuple[MixPlan, float] | None = None
    """The plan that was left for the present cuts, and its measured time of a step."""
    barred: dict[Cuts, int] = field(default_factory=dict)
    """Cuts that turned out slower than those that they replaced -> steps for which they stay out."""
    sds: dict[int, float] = field(default_factory=dict)
    """Rank -> standard deviation of the logarithm of its times: other layers do not make a machine quieter."""

    def left(self, plan: MixPlan, step_s: float) -> None:
        """``plan`` is left for other cuts, which have to be faster than this."""
        self.before = plan, step_s

    def failed(self, plan: MixPlan) -> MixPlan:
        """The cuts of ``plan`` were no gain: returns the plan to go back to."""
        assert self.before is not None
        (back, _), self.before = self.before, None
        self.barred[cuts_of(plan)] = _BARRED_STEPS
        return back

    def step(self) -> None:
        """One step more has passed."""
        self.barred = {cuts: left - 1 for cuts, left in self.barred.items() if left > 1}


def cuts_of(plan: MixPlan) -> Cuts:
    """Where the stages of ``plan`` end."""
    return tuple(tuple(stage.last for stage in one.stages) for one in plan.pipelines)


def layer_times(pipeline: Pipeline, lane: Lane, layers_s: LayersS) -> Floats | None:
    """Forward and backward of each layer on the chips of each stage, shape (stages, layers).

    A layer takes elsewhere what it takes where it is, times how much slower the mean block is there: the ends of the model are
    measured on one stage alone. A stage without a block is taken to be as fast as the others of its group are on average. None: a layer
    has no time yet, or there are no others.
    """
    blocks = range(1, pipeline.stages[-1].last - 1)
    own_s: dict[int, float] = {}
    paces_s: list[float | None] = []
    kinds: dict[tuple[str, int], list[float]] = {}
    for stage, pass_s in zip(pipeline.stages, lane.passes_s, strict=True):
        if any(layers_s.get(layer, 0.0) <= 0.0 for layer in stage.layers):
            return None
        total_s = sum(layers_s[layer] for layer in stage.layers)
        own_s |= {layer: pass_s * layers_s[layer] / total_s for layer in stage.layers}
        inside = [own_s[layer] for layer in stage.layers if layer in blocks]
        paces_s.append(sum(inside) / len(inside) if inside else None)
        kinds.setdefault((stage.group, stage.tp), []).extend([sum(inside) / len(inside)] if inside else [])
    pace_s: list[float] = []
    for stage, one_s in zip(pipeline.stages, paces_s, strict=True):
        like = kinds[stage.group, stage.tp]
        if one_s is None and not like:
            return None
        pace_s.append(one_s if one_s is not None else sum(like) / len(like))
    weights = [own_s[layer] / pace_s[at] for at, stage in enumerate(pipeline.stages) for layer in stage.layers]
    return np.outer(pace_s, weights)


def recut(
    plan: MixPlan, lanes: Sequence[Lane], layers_s: Sequence[LayersS], *, allowed: Callable[[MixPlan], bool]
) -> tuple[MixPlan, float] | None:  # fmt: skip
    """The plan with the best cuts and counts that is ``allowed``, and its time; None: no other cut is known to be allowed.

    Args:
        plan: With one copy of each pipeline.
        lanes: Its pipelines at their measured times.
        layers_s: By pipeline, of each layer where it is now.
        allowed: Asked of plans, the fastest first: a plan may not fit into memory.
    """
    times_s = [
        layer_times(pipeline, lane, one) if len(pipeline.stages) > 1 else None
        for pipeline, lane, one in zip(plan.pipelines, lanes, layers_s, strict=True)
    ]
    counts = [one.micro_batches for one in plan.pipelines]
    best: Cuts = cuts_of(plan)
    for _ in range(2):  # the best cuts depend on the counts, and those on the cuts
        best = tuple(
            ends if one is None else best_cuts(one, count, replicas=[stage.replicas for stage in pipeline.stages]) or ends
            for one, count, pipeline, ends in zip(times_s, counts, plan.pipelines, best, strict=True)
        )
        counts = list(best_counts(_lanes(lanes, times_s, best), plan.global_batch) or counts)
    for ends in _towards(cuts_of(plan), best):
        moved = _lanes(lanes, times_s, ends)
        found = best_counts(moved, plan.global_batch)
        if found is not None and allowed(changed := _changed(plan, ends, found)):
            return changed, max(lane.time_s(count) for lane, count in zip(moved, found, strict=True))
    return None


def _towards(now: Cuts, best: Cuts) -> Iterator[Cuts]:
    """``best``, then the cuts on the way to it that move fewer layers; ``now`` is not among them."""
    most = max((abs(b - a) for one, other in zip(now, best, strict=True) for a, b in zip(one, other, strict=True)), default=0)
    for reach in range(most, 0, -1):
        yield tuple(
            tuple(a + max(-reach, min(reach, b - a)) for a, b in zip(one, other, strict=True)) for one, other in zip(now, best, strict=True)
        )


def _lanes(lanes: Sequence[Lane], times_s: Sequence[Floats | None], cuts: Cuts) -> list[Lane]:
    """``lanes`` as they would be with these cuts."""
    found = []
    for lane, one, ends in zip(lanes, times_s, cuts, strict=True):
        if one is None:
            found.append(lane)
            continue
        spans = zip((0, *ends), ends, strict=False)
        passes_s = tuple(float(one[at, first:last].sum()) for at, (first, last) in enumerate(spans))
        found.append(Lane(passes_s=passes_s, replicas=lane.replicas, fixed_s=lane.fixed_s, sequences=lane.sequences))
    return found


def _changed(plan: MixPlan, cuts: Cuts, counts: Sequence[int]) -> MixPlan:
    pipelines = []
    for one, ends, count in zip(plan.pipelines, cuts, counts, strict=True):
        spans = zip(one.stages, (0, *ends), ends, strict=False)
        stages = tuple(msgspec.structs.replace(stage, first=first, last=last) for stage, first, last in spans)
        pipelines.append(msgspec.structs.replace(one, stages=stages, micro_batches=count))
    return msgspec.structs.replace(plan, pipelines=tuple(pipelines), expected=None)
