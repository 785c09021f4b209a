"""Predictor: answers validation cases, fitted on the cases that it is given and on the catalogue's records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from sapper.errors import SapperError
from sapper.predict.allocator import (
    MemorySubject,
    allocation_of,
    counted,
    fit_memory,
    peak_of,
    peaks_asked,
    shipped_memory,
    unfitted,
)
from sapper.predict.arrays import Floats, PlanArray
from sapper.predict.combine import step_time
from sapper.predict.engine import Evaluated, evaluate, fabric_for, shipped_fit, the_group
from sapper.predict.features import Features
from sapper.predict.fit import Fitted, Observation, Sample, condition, fit
from sapper.predict.legal import legal_plans
from sapper.predict.memory import mean_states_bytes
from sapper.predict.observe import catalogue_observations
from sapper.predict.rows.case import Case
from sapper.predict.search import MARGIN
from sapper.predict.subject import TrainSubject, constants_of, subject_of, train_book

CROWDING = 0.35
"""Weight of rows of one table against each other, from the errors of left-out chips and sources."""
MOST_ZERO = {"megatron": 1, "mindspeed": 1}
"""ZeRO stage that a stack goes to: Megatron-LM's distributed optimizer shards states alone."""
_PRIOR_ALLOCATION = allocation_of(unfitted(), MemorySubject(chip="-", stack="-"))
"""By which an open plan is judged to fit: no measured peak chooses it."""
Answer = tuple[float, float, float]
"""(middle, low, high) in the row's own metric."""


@dataclass(frozen=True)
class Prepared:
    """A case priced: what of it does not depend on the fit."""

    case: Case
    subject: TrainSubject
    features: Features
    counted_bytes: Floats
    """3 x 1: what of the peak is allocated once, what changes every step, and one context."""
    formula_bytes: float
    """What a figure that was computed and not measured counts: see :func:`_formula_bytes`."""
    floor_s: float

    @property
    def memory_subject(self) -> MemorySubject:
        """Whose memory."""
        case = self.case
        return MemorySubject(chip=case.chip_id, stack=self.subject.stack, source=case.family, driver="driver" in case.tags)


@dataclass
class TrainPredictor:
    """Predicts training cases; ``fit`` returns a new one.

    The plan fields that a row leaves out are searched with the unfitted prior, so that no measured answer can choose
    its own plan.
    """

    fitted: Fitted | None = None
    """None: the posterior that ships."""
    memory_fitted: Fitted | None = None
    """The same of memory."""
    records: Literal["all", "seen"] = "all"
    """Whose records in the catalogue a fit sees beside its cases: every chip's, or only those of the chips in its cases, so
    that a left-out chip is predicted from its datasheet alone."""
    level: float = 0.8
    """Probability that the intervals state."""
    prepared: dict[str, Prepared | SapperError] = field(default_factory=dict)
    """By row id; shared between the fits of one validation, since pricing does not depend on the fit."""

    def fit(self, cases: Sequence[Case]) -> TrainPredictor:
        """A predictor whose efficiencies come from ``cases`` alone."""
        sample = self.sample(cases)
        seen = {subject.chip for subject in sample.subjects}
        records = [one for one in catalogue_observations() if self.records == "all" or one.subject.chip in seen]
        return replace(self, fitted=fit(sample, records), memory_fitted=self.fit_memory(cases))

    def fit_memory(self, cases: Sequence[Case]) -> Fitted:
        """From the peaks that somebody measured; figures that follow from a formula teach nothing."""
        peaks = [case for case in peaks_asked(cases) if case.memory_part == "peak"]
        found = [(case, ready) for case in peaks if isinstance(ready := self.prepare(case), Prepared)]
        return fit_memory([(ready.memory_subject, ready.counted_bytes, case) for case, ready in found])

    def sample(self, cases: Sequence[Case]) -> Sample:
        """The time rows of ``cases`` that can be priced, ready to fit."""
        found = [(case, ready) for case in cases if case.quantity == "time" and isinstance(ready := self.prepare(case), Prepared)]
        features = Features.stack([ready.features for _, ready in found])
        return Sample(
            book=train_book(),
            subjects=[ready.subject for _, ready in found],
            time_s=lambda eta: step_time(features, constants_of(eta)),
            measured_s=np.array([case.measured_time_s for case, _ in found], float),
            weight=np.array([case.weight for case, _ in found]),
            groups=[f"{ready.subject.chip}|{case.family}|{ready.subject.stack}" for case, ready in found],
            crowding=CROWDING,
        )

    @property
    def constants(self) -> Fitted:
        """What answers: ``fitted``, or the posterior that ships."""
        return self.fitted or shipped_fit()

    def conditioned(self, cases: Sequence[Case], observations: Sequence[Observation] = ()) -> TrainPredictor:
        """This predictor with ``cases`` and measured constants as further evidence."""
        timed = [case for case in cases if case.quantity == "time" and isinstance(self.prepare(case), Prepared)]
        if not timed:
            return replace(self, fitted=condition(self.constants, observations))
        sample = self.sample(timed)
        own = replace(sample, subjects=[subject.as_own() for subject in sample.subjects])
        return replace(self, fitted=condition(self.constants, observations, own))

    def subjects(self, cases: Sequence[Case]) -> list[TrainSubject]:
        """Who computes, for each case that can be priced."""
        return [ready.subject for case in cases if isinstance(ready := self.prepare(case), Prepared)]

    def predict(self, cases: Sequence[Case]) -> list[Answer | SapperError]:
        """Middle, low and high of each case in its own metric, or why there is none."""
        return [self._answer(case) for case in cases]

    def prepare(self, case: Case) -> Prepared | SapperError:
        """Price ``case`` once."""
        if case.row_id not in self.prepared:
            try:
                self.prepared[case.row_id] = _prepare(case)
            except SapperError as error:
                self.prepared[case.row_id] = error
        return self.prepared[case.row_id]

    def _answer(self, case: Case) -> Answer | SapperError:
        ready = self.prepare(case)
        if isinstance(ready, SapperError):
            return ready
        if case.quantity == "memory":
            middle, half = _memory(case, ready, self.memory_fitted or shipped_memory(), level=self.level)
            floor = 0.0
        else:
            fitted = self.constants
            eta, design, missing = fitted.eta([ready.subject])
            log_s, slope = fitted.log_time(lambda eta: step_time(ready.features, constants_of(eta)), eta)
            middle = math.exp(float(log_s[0]))
            half = float(fitted.deviation(slope, design=design, missing=missing)[0]) * fitted.factor(self.level)
            floor = ready.floor_s
        low, high = min(middle, max(middle * math.exp(-half), floor)), middle * math.exp(half)
        ends = sorted((case.value_of(low), case.value_of(high)))
        return case.value_of(middle), ends[0], ends[1]


def _prepare(case: Case) -> Prepared:
    plans = _plans(case)
    group = the_group(case.cluster)
    evaluated = evaluate(case.job, case.cluster, plans, allocation=_PRIOR_ALLOCATION)
    subject = subject_of(
        case.job,
        group.chip,
        source=case.family,
        compiled="compile" in case.tags,
        searched="tp" in case.unknown,
    )
    # a stack that nobody else can have (DeepSeek's HAI-LLM) is a level of its own, and lends its skill to no other
    silicon = replace(subject.silicon, chip=case.chip_id)
    subject = replace(subject, silicon=silicon, stack=case.job.stack or f"own ({case.family})")
    best = 0
    if len(plans) > 1:
        cost = step_time(evaluated.features, constants_of(train_book().eta_of_prior(subject)))
        fits = evaluated.memory.peak_bytes <= MARGIN * evaluated.device.capacity_bytes
        cost = np.where(fits, cost, np.inf) if fits.any() else evaluated.memory.peak_bytes
        best = int(np.argmin(cost))
    one = np.array([best])
    features = evaluated.features.pick(one)
    if "no-optimizer" in case.tags:
        features = replace(features, optimizer_s=features.optimizer_s * 0.0)
    if "no-pauses" in case.tags:
        features = replace(features, pauses=features.pauses * 0.0)
    memory = evaluated.memory.pick(one)
    executed = 2.0 * case.job.workload.flops() * case.job.global_batch
    floor = executed / (group.chips * evaluated.device.peak_flops_per_s)
    return Prepared(
        case=case, subject=subject, features=features, counted_bytes=counted(memory, evaluated.allocation), floor_s=floor,
        formula_bytes=_formula_bytes(case, evaluated, one),
    )


def _plans(case: Case) -> PlanArray:
    """The row's plan, or every legal plan that agrees with what the row states."""
    stated = PlanArray.of([case.plan])
    open_fields = case.unknown - {"sequence_parallel"}
    if not open_fields:
        return stated
    group = the_group(case.cluster)
    fixed: dict[str, object] = {name: getattr(case.plan, name) for name in case.plan.__struct_fields__ if name not in open_fields}
    plans = legal_plans(case.job, group.chips, domain=int(min(fabric_for(group).domain_size, group.chips)), fixed=fixed)
    plans = plans[plans.zero <= MOST_ZERO.get(case.job.stack or "", 3)]
    if case.micro_batches is not None and len(plans):
        plans = plans[plans.micro_batches(case.job.global_batch) == case.micro_batches]
    return plans if len(plans) else stated


def _formula_bytes(case: Case, evaluated: Evaluated, one: np.ndarray) -> float:
    """Bytes as papers count them, without allocator and context: states of the mean stage (weights over tp * pp chips times bytes
    of a weight; arXiv:2205.05198, figure 1), activations and logits of the fullest."""
    if case.memory_part == "static":
        return float(mean_states_bytes(evaluated.job, evaluated.stage, evaluated.plans)[one][0])
    return sum(float(evaluated.memory.parts[name][one][0]) for name in ("activations", "logits")) / evaluated.allocation.live


def _memory(case: Case, ready: Prepared, fitted: Fitted, *, level: float) -> tuple[float, float]:
    """(bytes, half width of their interval on the log scale)."""
    middle, half = peak_of(fitted, ready.memory_subject, ready.counted_bytes, level=level)
    return (middle if case.memory_part == "peak" else ready.formula_bytes), half
