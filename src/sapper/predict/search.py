"""``--plan auto``: price every legal plan as arrays, take the fastest that fits, say why the others lose."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from sapper import units
from sapper.clusters.cluster import Cluster
from sapper.errors import BadPlan
from sapper.predict.arrays import Floats
from sapper.predict.combine import combine
from sapper.predict.engine import Evaluated, evaluate, fabric_for, the_group
from sapper.predict.estimate import Estimate
from sapper.predict.features import Features
from sapper.predict.fit import Fitted
from sapper.predict.in_force import train_fit
from sapper.predict.job import TrainJob
from sapper.predict.legal import legal_plans
from sapper.predict.observe import informed
from sapper.predict.plan import Plan
from sapper.predict.subject import subject_of
from sapper.predict.train import estimate_of

MARGIN = 0.93
"""Share of the capacity that a plan may fill: the rest covers the error of the memory model (docs/accuracy.md) and the
allocator's slack."""


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that lost, and the term that lost it."""

    plan: Plan
    step_time_s: float
    memory_bytes: float
    slower: float
    """Step time over the best plan's, minus 1."""
    reason_code: str
    reason_values: dict[str, str]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """Why no plan fits."""

    code: str
    values: dict[str, str]


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The best plan whole, the runners-up with reasons, and how much was searched."""

    best: Estimate | None
    runners: tuple[Runner, ...]
    plans: int
    """Legal plans evaluated."""
    fitting: int
    elapsed_s: float
    why_none: Nothing | None = None


@dataclass(frozen=True)
class Ranked:
    """Every legal plan priced, with step times and whether it fits."""

    evaluated: Evaluated
    terms: dict[str, Floats]
    step_s: Floats
    fits: np.ndarray


def rank(
    job: TrainJob, cluster: Cluster, *, fitted: Fitted | None = None, fixed: dict[str, object] | None = None, searched: bool = True
) -> Ranked:
    """Price all legal plans of ``job`` on ``cluster``.

    Raises:
        BadPlan: No plan is legal.
        MissingFact: The catalogue lacks a value that the question needs.
    """
    group = the_group(cluster)
    fabric = fabric_for(group)
    plans = legal_plans(job, group.chips, domain=int(min(fabric.domain_size, group.chips)), fixed=fixed)
    if not len(plans):
        raise BadPlan("SP-PRED-030", where="--global-batch", batch=job.global_batch, chips=group.chips)
    evaluated = evaluate(job, cluster, plans)
    known = informed(fitted or train_fit(), group.chip)
    constants = evaluated.constants(known, subject_of(job, group.chip, searched=searched))
    terms = combine(evaluated.features, constants)
    step = np.asarray(sum(terms.values()), float)
    return Ranked(
        evaluated=evaluated, terms=terms, step_s=step, fits=evaluated.memory.peak_bytes <= MARGIN * evaluated.device.capacity_bytes
    )


def search_train(
    job: TrainJob, cluster: Cluster, *, top: int = 5, fitted: Fitted | None = None, fixed: dict[str, object] | None = None
) -> SearchResult:
    """The fastest plan that fits, and the next ones with the reason why each loses.

    Raises:
        BadPlan: No plan is legal.
        MissingFact: The catalogue lacks a value that the question needs.
    """
    start = time.perf_counter()
    ranked = rank(job, cluster, fitted=fitted, fixed=fixed)
    plans = len(ranked.step_s)
    if not ranked.fits.any():
        return SearchResult(best=None, runners=(), plans=plans, fitting=0, elapsed_s=time.perf_counter() - start, why_none=_nothing(ranked))
    order = np.flatnonzero(ranked.fits)[np.argsort(ranked.step_s[ranked.fits], kind="stable")]
    best = int(order[0])
    runners = _runners(ranked, order, top=top)
    subject = subject_of(job, ranked.evaluated.group.chip, searched=True)
    estimate = estimate_of(_only(ranked.evaluated, best), cluster, fitted=fitted or train_fit(), subject=subject)
    return SearchResult(
        best=estimate,
        runners=runners,
        plans=plans,
        fitting=len(order),
        elapsed_s=time.perf_counter() - start,
    )


def _only(evaluated: Evaluated, index: int) -> Evaluated:
    """The evaluation of one plan."""
    one = np.array([index])
    stage = replace(evaluated.stage, index=evaluated.stage.index[one])
    features: Features = evaluated.features.pick(one)
    return replace(evaluated, plans=evaluated.plans[one], stage=stage, features=features, memory=evaluated.memory.pick(one))


def _runners(ranked: Ranked, order: np.ndarray, *, top: int) -> tuple[Runner, ...]:
    """The best plan of each other set of degrees, in order; two settings of the same degrees tell a reader little."""
    plans, best = ranked.evaluated.plans, int(order[0])
    seen = {_degrees(plans.plan(best))}
    found: list[Runner] = []
    for index in order[1:]:
        if len(found) >= top - 1:
            break
        plan = plans.plan(int(index))
        if _degrees(plan) in seen:
            continue
        seen.add(_degrees(plan))
        found.append(_runner(ranked, int(index), best, plan))
    return tuple(found)


def _degrees(plan: Plan) -> tuple[int, ...]:
    return plan.tp, plan.pp, plan.dp, plan.cp, plan.ep


def _runner(ranked: Ranked, index: int, best: int, plan: Plan) -> Runner:
    gaps = {name: float(term[index] - term[best]) for name, term in ranked.terms.items()}
    worst = max(gaps, key=lambda name: gaps[name])
    slower = float(ranked.step_s[index] / ranked.step_s[best] - 1.0)
    return Runner(
        plan=plan,
        step_time_s=float(ranked.step_s[index]),
        memory_bytes=float(ranked.evaluated.memory.peak_bytes[index]),
        slower=slower,
        reason_code=f"reason.slower.{worst}",
        reason_values={"more": units.duration(max(gaps[worst], 0.0)), "slower": f"{100 * slower:.1f}%"},
    )


def _nothing(ranked: Ranked) -> Nothing:
    peak = ranked.evaluated.memory.peak_bytes
    leanest = int(np.argmin(peak))
    parts = {name: float(values[leanest]) for name, values in ranked.evaluated.memory.parts.items()}
    greatest = max(parts, key=lambda name: parts[name])
    return Nothing(
        code="SP-PRED-031",
        values={
            "plans": str(len(peak)),
            "plan": describe(ranked.evaluated.plans.plan(leanest)),
            "need": units.gib(float(peak[leanest])),
            "have": units.gib(ranked.evaluated.device.capacity_bytes),
            "part": greatest,
            "size": units.gib(parts[greatest]),
        },
    )


def describe(plan: Plan) -> str:
    """A plan in the words of ``--plan``, without what is at its default."""
    default = Plan()
    kept = [
        f"{name}={value}"
        for name in Plan.__struct_fields__
        if (value := getattr(plan, name)) != getattr(default, name) or name in ("tp", "pp", "dp")
    ]
    return ",".join(kept)
