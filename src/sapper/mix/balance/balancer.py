"""Balancer: looks at the times of each step and says when another split is worth its while."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sapper.mix.balance.counts import Lane, best_counts
from sapper.mix.balance.recut import LayersS, Tried, cuts_of, recut
from sapper.mix.balance.smooth import PRIOR_SD, Rare, Smoothed
from sapper.mix.plan import MixPlan, Pipeline

_CERTAIN = 1.0
"""Standard errors of a chip's time that other counts must save: they cost nothing and can be taken back in the next step."""
_CHANCE = 0.01
"""That noise alone promises the gain for which layers are moved."""
_STEPS = 2
"""Steps that are measured before weights are moved, and before it is judged whether that was worth it."""


@dataclass(frozen=True)
class Measured:
    """What one chip measured in one step, its own work alone and no waiting."""

    parts_s: tuple[float, ...]
    """Forward and backward of one micro-batch: mean of the step, or means of its two parts (see :func:`~.shift.parts_of`)."""
    fixed_s: float = 0.0
    """Once a step: its update."""
    error: float = 0.0
    """Standard error of the logarithm of the mean of ``parts_s``, as the micro-batches of the step say it."""
    hiccups: float = 0.0
    """What rare slow micro-batches, which are not in ``parts_s``, add to them; a share."""
    entered_s: float = 0.0
    """What it took this chip to take up its present layers: to take up others takes as long."""


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
        steps: That the run still has: a move of layers has to pay within them. None: not known, and it pays some time.
    """

    def __init__(
        self, plan: MixPlan, *, share: float = 0.02, tried: Tried | None = None, fits: Callable[[MixPlan], bool] = lambda plan: True,
        steps: int | None = None,
    ) -> None:  # fmt: skip
        self.plan = spread(plan)
        self.share = share
        self._passes: dict[int, Smoothed] = {}
        self._fixed: dict[int, Smoothed] = {}
        self._hiccups: dict[int, Rare] = {}
        self._steps, self._entered_s = steps, 0.0
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
                self._passes.setdefault(rank, Smoothed(sd=self._known_sd(rank))).add(*one.parts_s, error=one.error)
                self._hiccups.setdefault(rank, Rare()).add(one.hiccups)
            if one.fixed_s > 0.0:
                self._fixed.setdefault(rank, Smoothed()).add(one.fixed_s)
            self._entered_s = max(self._entered_s, one.entered_s)
        lanes = self.lanes()
        if lanes is None:
            return None
        self._seen += 1
        if self._steps is not None:
            self._steps -= 1
        if self._tried is not None:
            self._tried.sds = {rank: one.sd for rank, one in self._passes.items()}
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
        if not self._is_worth(before_s, after_s, beyond=_CERTAIN * self._error):
            return None
        self.plan = with_counts(self.plan, counts)
        return Decision(plan=self.plan, gain=1.0 - after_s / before_s, before_s=before_s, after_s=after_s)

    def _moved(self, lanes: Sequence[Lane]) -> Decision | None:
        """Other stages, where they surely save more than other counts on these would, and pay; or back from those that do not."""
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
            if math.log(before_s / back_s) > self._chance:
                return self._go(tried.failed(self.plan), before_s, back_s)
        self._judged = True  # what changes from now on is not the cuts' doing
        barred = tried.barred
        found = recut(self.plan, lanes, self._layers, allowed=lambda one: cuts_of(one) not in barred and self._fits(one))
        if found is None or not self._is_worth(before_s, found[1], beyond=self._chance) or not self._pays(before_s - found[1]):
            return None
        tried.left(self.plan, before_s)
        return self._go(found[0], before_s, found[1])

    def _go(self, plan: MixPlan, before_s: float, after_s: float) -> Decision:
        self.plan = plan
        return Decision(plan=plan, gain=1.0 - after_s / before_s, before_s=before_s, after_s=after_s, moves=True)

    def _is_worth(self, before_s: float, after_s: float, *, beyond: float) -> bool:
        """Whether it saves more than the set share, and more than noise may promise: ``beyond``, in logarithms as the errors are."""
        return after_s < (1.0 - self.share) * before_s and math.log(before_s / after_s) > beyond

    def _pays(self, saved_s: float) -> bool:
        """Whether what a step saves makes up for a move of layers before the run ends."""
        return self._steps is None or saved_s * self._steps > self._entered_s

    @property
    def _error(self) -> float:
        """Standard error of the logarithm of the least known time of a chip."""
        return max(one.error for one in self._passes.values())

    @property
    def _chance(self) -> float:
        """The logarithm of the gain that noise alone may promise where the split is the best one already.

        A split is judged by its slowest chip, so that the promise is the greatest of the errors of all chips: exceeded by chance
        as often as any of so many normal errors exceeds it (Bonferroni's bound).
        """
        return statistics.NormalDist().inv_cdf(1.0 - _CHANCE / len(self._passes)) * self._error

    def _known_sd(self, rank: int) -> float:
        return self._tried.sds.get(rank, PRIOR_SD) if self._tried is not None else PRIOR_SD

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
                passes.append(max(self._passes[one].value * (1.0 + self._hiccups[one].value) for one in ranks))
                fixed_s = max([fixed_s, *(self._fixed[one].value for one in ranks if one in self._fixed)])
            replicas = tuple(stage.replicas for stage in pipeline.stages)
            found.append(Lane(passes_s=tuple(passes), replicas=replicas, fixed_s=fixed_s, sequences=pipeline.micro_batch))
        return found


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
