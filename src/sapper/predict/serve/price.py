"""Price a served model on a chip: one replica's iteration times and memory, with the evidence behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadValue
from sapper.evidence import Fact
from sapper.predict.arrays import Floats
from sapper.predict.collectives import no_fabric
from sapper.predict.engine import fabric_for, the_group
from sapper.predict.estimate import Coverage, Used
from sapper.predict.explain import effects_of
from sapper.predict.fit import Fitted
from sapper.predict.in_force import serve_fit
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.memory import serve_memory
from sapper.predict.serve.parts import parts_of
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.rates import rates_of
from sapper.predict.serve.stacks import usual_stack
from sapper.predict.serve.step import CacheLayer, ServeMemory, StepTimes
from sapper.predict.serve.subject import ServeSubject, factors_of, subject_of
from sapper.predict.serve.terms import PLACE, Iteration, iteration, slopes

TYPICAL = (32.0, 2048.0)
"""Sequences and context of the decode iteration, and length of the prompt, at which the deviations are taken."""


@dataclass(frozen=True, kw_only=True)
class Priced:
    """One replica priced: an :class:`~sapper.predict.serve.step.Engine`, with what it was made from."""

    job: ServeJob
    plan: ServePlan
    memory: ServeMemory
    times: StepTimes
    decode_sd: float
    prefill_sd: float
    used: tuple[Used, ...]
    coverage: Coverage
    iteration: Iteration
    subject: ServeSubject
    factors: Floats
    """Of the terms, at the most likely constants."""
    fallback: bool
    """The chip cannot multiply in the job's compute dtype: quantised weights are widened to 16 bit first."""


def price(job: ServeJob, where: Cluster | Group, plan: ServePlan, *, fitted: Fitted | None = None) -> Priced:
    """One replica of ``job`` on chips of ``where`` cut as ``plan`` says.

    Args:
        job: What is served.
        where: A homogeneous cluster, or a group of one.
        plan: How one replica is cut.
        fitted: Posterior over the constants; None: the one that ships.

    Raises:
        BadValue: The cluster is mixed, the plan needs more chips than there are, or its degrees do not divide.
        MissingFact: The catalogue lacks a peak, bandwidth, capacity or link that the question needs.
    """
    return price_many(job, where, [plan], fitted=fitted)[0]


def price_many(job: ServeJob, where: Cluster | Group, plans: Sequence[ServePlan], *, fitted: Fitted | None = None) -> list[Priced]:
    """:func:`price` for many plans of one job on one group; what they share is computed once."""
    group = the_group(where) if isinstance(where, Cluster) else where
    fitted = fitted or serve_fit()
    parts, rates = parts_of(job.model), rates_of(group.chip, job)
    subject = subject_of(job, parts, rates, stack=job.stack or usual_stack(group.chip))
    eta, design, missing = fitted.eta([subject])
    factor = factors_of(eta)[:, 0]
    used = (*rates.used, *constants_used(fitted, subject, eta))
    coverage = _coverage(parts.ops, parts.unpriced)
    found = []
    for plan in plans:
        check(plan, group, experts=int(parts.linears.groups[parts.linears.expert].max(initial=0.0)))
        fabric = fabric_for(group) if plan.chips > 1 else no_fabric()
        terms = iteration(job, parts, rates, plan=plan, fabric=fabric)
        deviations = [
            deviation(bundle, factor, fitted=fitted, design=design, missing=missing)
            for bundle in (terms.decode(np.array(TYPICAL[0]), np.array(TYPICAL[1])), terms.prompt(np.array(TYPICAL[1])))
        ]
        found.append(
            Priced(
                job=job, plan=plan, memory=serve_memory(job, parts, rates, plan=plan), times=step_times(terms, factor),
                decode_sd=deviations[0], prefill_sd=deviations[1], used=(*used, *fabric.used), coverage=coverage, iteration=terms,
                subject=subject, factors=factor, fallback=rates.fallback,
            )
        )
    return found


def step_times(terms: Iteration, factor: Floats) -> StepTimes:
    """The simulator's table from terms and factors."""
    layers = tuple(
        CacheLayer(window=cache.window, context_s=float(factor @ each), token_bytes=size, pair_s=float(factor @ pair))
        for cache, each, pair, size in zip(terms.caches, terms.context, terms.pair, terms.token_bytes, strict=True)
    )
    return StepTimes(
        rows=terms.rows, rows_s=np.asarray(factor @ terms.base, float), sequence_s=float(factor @ terms.sequence), layers=layers,
        request_s=float(factor[PLACE["prompt_s"]]), stream_s=float(factor[PLACE["stream_s"]]),
    )


def check(plan: ServePlan, group: Group, *, experts: int) -> None:
    """Refuse a plan that cannot be.

    Raises:
        BadValue: With the degrees and what they must divide.
    """
    if plan.chips > group.chips:
        raise BadValue("SP-SERVE-020", where="plan", need=plan.chips, have=group.chips)
    if (plan.tp * plan.attention_dp) % plan.ep or plan.ep > max(experts, 1):
        raise BadValue("SP-SERVE-021", where="ep", ep=plan.ep, ranks=plan.tp * plan.attention_dp, experts=experts)


def deviation(bundle: Floats, factor: Floats, *, fitted: Fitted, design: Floats, missing: Floats) -> float:
    """Standard deviation of the log of a bundle's time: its slope over each constant is that term's share of the time."""
    slope = slopes(factor * bundle, fitted.book.constants)
    return float(fitted.deviation(slope, design=design, missing=missing)[0])


def constants_used(fitted: Fitted, subject: ServeSubject, eta: Floats) -> tuple[Used, ...]:
    """The constants of the serving book as they were used, with what they rest on."""
    grade, source = fitted.grounds(subject.chip, purpose="serving", stack=subject.stack)
    if not fitted.rows:
        grade, source = "assumed", "prior of the serving book (data/serve.toml)"
    found = []
    for name, value in fitted.book.natural(eta).items():
        fact = Fact(value=float(value[0]), unit="s" if name.endswith("_s") else "1", source=source, date=fitted.newest, grade=grade)
        found.append(Used(key=f"serving {name.removesuffix('_s')}", fact=fact))
    return tuple(found)


def effects_used(subject: ServeSubject) -> tuple[Used, ...]:
    """The effects that moved the constants of ``subject``, with what informs each; a question has no source of a row."""
    fitted = serve_fit()
    if not fitted.rows:
        return ()
    known = subject.as_own() if fitted.is_own(subject.chip) else subject
    return tuple(used for used in effects_of(fitted, known) if not used.key.startswith("effect source"))


def _coverage(ops: int, unpriced: tuple[str, ...]) -> Coverage:
    share = ops / (ops + len(unpriced))
    return Coverage(
        ops=ops + len(unpriced), ops_priced=ops, flops_share=1.0, bytes_share=1.0 if not unpriced else share, unpriced=unpriced
    )
