"""Balancer: looks at the times of each step and says when another split is worth its while."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sapper.mix.balance.counts import Lane, best_counts
from sapper.mix.balance.recut import LayersS, Tried, cuts_of, recut
from sapper.mix.balance.smooth import Smoothed
from sapper.mix.plan import MixPlan, Pipeline

_CERTAIN = 1.0
"""Standard deviations of the estimates that a gain must exceed beside the set share."""
_STEPS = 2
"""Steps that are measured before weights are moved, and before it is judged whether that was worth it."""


@dataclass(frozen=True)
class Measured:
    """What one chip measured in one step, its own work alone and no waiting."""

    parts_s: tuple[float, ...]
    """Forward and backward of one micro-batch: mean of the step, or means of its two parts (see :func:`~.shift.parts_of`)."""
    fixed_s: float = 0.0
    """Once a step: its update."""


@dataclass(frozen=True)
class Decision:
    """Another split."""

    plan: MixPlan
    gain: float
    """Share of the step's compute time that it saves, by the smoothed times."""
    before_s: float
    after_s: float
    moves: bool = False
    """Whether layers go to other stages, with their weights; else only counts of micro-batches change."""


class Balancer:
    """Keeps the smoothed times of each chip; equal on all ranks that are told the same.

    Args:
        plan: That runs now.
        share: A split is changed when the best one saves more than this share of the step.
        tried: What came of earlier cuts; None: layers stay where they are.
        fits: Whether a plan fits into memory.
    """

    def __init__(
        self, plan: MixPlan, *, share: float = 0.02, tried: Tried | None = None, fits: Callable[[MixPlan], bool] = lambda plan: True
    ) -> None:  # fmt: skip
        self.plan = spread(plan)
        self.share = share
        self._passes: dict[int, Smoothed] = {}
        self._fixed: dict[int, Smoothed] = {}
        self._tried, self._fits = tried, fits
        self._layers: tuple[LayersS, ...] | None = None
        self._seen = 0
        self._judged = False
        """Whether it is known what came of the present cuts."""

    def observe(self, measured: Mapping[int, Measured]) -> Decision | None:
        """Take a step's times by rank; a rank that is missing keeps what is known of it.

        Returns:
            The split to run from the next step on; None: the one that runs is good enough, or a chip has no times yet.
        """
        for rank, one in measured.items():
            if one.parts_s:
                self._passes.setdefault(rank, Smoothed()).add(*one.parts_s)
            if one.fixed_s > 0.0:
                self._fixed.setdefault(rank, Smoothed()).add(one.fixed_s)
        lanes = self.lanes()
        if lanes is None:
            return None
        self._seen += 1
        return self._moved(lanes) or self._dealt(lanes)

    def learn(self, layers_s: Sequence[LayersS]) -> None:
        """Take what the layers of each pipeline take of their stages' passes."""
        self._layers = tuple(layers_s)

    def _dealt(self, lanes: Sequence[Lane]) -> Decision | None:
        """Other counts on the same stages."""
        now = [one.micro_batches for one in self.plan.pipelines]
        counts = best_counts(lanes, self.plan.global_batch)
        if counts is None or list(counts) == now:
            return None
        before_s, after_s = _end_s(lanes, now), _end_s(lanes, counts)
        if not self._is_worth(1.0 - after_s / before_s):
            return None
        self.plan = with_counts(self.plan, counts)
        return Decision(plan=self.plan, gain=1.0 - after_s / before_s, before_s=before_s, after_s=after_s)

    def _moved(self, lanes: Sequence[Lane]) -> Decision | None:
        """Other stages, where they save more than other counts on these would; or back from those that do not."""
        tried = self._tried
        if tried is None or self._layers is None:
            return None
        tried.step()
        if self._seen < _STEPS:
            return None
        counts = best_counts(lanes, self.plan.global_batch)
        before_s = _end_s(lanes, counts or [one.micro_batches for one in self.plan.pipelines])
        if tried.before is not None and not self._judged:
            back_s = tried.before[1]
            if before_s > back_s:
                return self._go(tried.failed(self.plan), before_s, back_s)
        self._judged = True  # what changes from now on is not the cuts' doing
        barred = tried.barred
        found = recut(self.plan, lanes, self._layers, allowed=lambda one: cuts_of(one) not in barred and self._fits(one))
        if found is None or not self._is_worth(1.0 - found[1] / before_s):
            return None
        tried.left(self.plan, before_s)
        return self._go(found[0], before_s, found[1])

    def _go(self, plan: MixPlan, before_s: float, after_s: float) -> Decision:
        self.plan = plan
        return Decision(plan=plan, gain=1.0 - after_s / before_s, before_s=before_s, after_s=after_s, moves=True)

    def _is_worth(self, gain: float) -> bool:
        return gain > max(self.share, _CERTAIN * self._error(gain))

    def lanes(self) -> list[Lane] | None:
        """The pipelines at their smoothed times; None while a chip has none."""
        found, rank = [], 0
        for pipeline in self.plan.pipelines:
            passes, fixed_s = [], 0.0
            for stage in pipeline.stages:
                ranks = range(rank, rank + stage.chips)
                rank += stage.chips
                if any(one not in self._passes for one in ranks):
                    return None
                passes.append(max(self._passes[one].value for one in ranks))
                fixed_s = max([fixed_s, *(self._fixed[one].value for one in ranks if one in self._fixed)])
            replicas = tuple(stage.replicas for stage in pipeline.stages)
            found.append(Lane(passes_s=tuple(passes), replicas=replicas, fixed_s=fixed_s, sequences=pipeline.micro_batch))
        return found

    def _error(self, gain: float) -> float:
        """Of a gain: that of the two estimates whose ratio it is; what is far beyond the noise is believed at once."""
        worst = max(one.error for one in self._passes.values())
        return math.sqrt(2.0) * worst if gain < 0.5 else 0.0


def _end_s(lanes: Sequence[Lane], counts: Sequence[int]) -> float:
    return max(lane.time_s(count) for lane, count in zip(lanes, counts, strict=True))


def spread(plan: MixPlan) -> MixPlan:
    """The same plan with each copy as a pipeline of its own: ranks do not move, and each copy can have its own count."""
    alone = [msgspec.structs.replace(one, copies=1) for one in plan.pipelines for _ in range(one.copies)]
    return msgspec.structs.replace(plan, pipelines=tuple(alone), expected=None if len(alone) != len(plan.pipelines) else plan.expected)


def gathered(plan: MixPlan) -> MixPlan:
    """The same plan with like neighbours as copies of one pipeline."""
    found: list[Pipeline] = []
    for one in plan.pipelines:
        if found and msgspec.structs.replace(found[-1], copies=one.copies) == one:
            found[-1] = msgspec.structs.replace(one, copies=found[-1].copies + one.copies)
        else:
            found.append(one)
    return msgspec.structs.replace(plan, pipelines=tuple(found))


def with_counts(plan: MixPlan, counts: Sequence[int]) -> MixPlan:
    """``plan`` with these micro-batch counts; what was expected of the old ones does not hold any more."""
    changed = tuple(msgspec.structs.replace(one, micro_batches=count) for one, count in zip(plan.pipelines, counts, strict=True))
    return msgspec.structs.replace(plan, pipelines=changed, expected=None)
