"""Search: how many chips, cut how, keep an SLO at a rate; or the highest rate of a replica; or the best plan where no limit is set.

Every plan that holds the model is priced and bounded by its steady state; the few with the best bounds are simulated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from sapper import units
from sapper.errors import BadPlan, SapperError
from sapper.evidence import Interval
from sapper.predict.serve import fluid, limits
from sapper.predict.serve.answer import Runner, ServeAnswer
from sapper.predict.serve.candidates import describe, holding, with_batching, with_weights
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.disaggregate import disaggregated
from sapper.predict.serve.estimate import ServeEstimate
from sapper.predict.serve.forward import Forward, forward
from sapper.predict.serve.measure import measure
from sapper.predict.serve.passes import PassEngine, price_passes
from sapper.predict.serve.predict import ends_of, meets, pools_of, predict_serve
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.simulate import simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.step import Engine
from sapper.predict.serve.target import Target

SIMULATED = 4
"""Plans with the best bounds whose highest rate is found by simulation."""
CALM = 0.85
"""Load of a deployment that is sized for a rate without an SLO."""
MOST_MORE = 6
"""Workers that may be added to a disaggregated deployment beyond its steady state's numbers."""
MOST_LOWER = 30
"""Steps of 3% by which a highest rate may be lowered where a longer simulation does not keep it."""


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A deployment that keeps the SLO, and the highest rate at which it does."""

    deployment: Deployment
    rate_per_s: float

    @property
    def per_chip(self) -> float:
        """Requests per second and chip."""
        return self.rate_per_s / self.deployment.chips


def answer_serve(question: ServeQuestion, target: Target) -> ServeAnswer:
    """The answer of one chip.

    Raises:
        MissingFact: The catalogue lacks a value that every plan needs.
        BadPlan: The model does not fit, or no plan keeps the SLO; the message says by how much, and what is nearest.
    """
    start = time.perf_counter()
    engines, looked_at = engines_of(question, target)
    if question.slo is None or question.traffic.concurrency is not None:
        deployment = _without_limit(question, target, engines)
        found = ServeAnswer(estimate=_estimate(question, deployment, target))
    elif question.traffic.rate_per_s is not None:
        found = _for_rate(question, question.slo, target, engines)
    else:
        found = _highest(question, question.slo, target, engines)
    return msgspec.structs.replace(found, plans=looked_at, elapsed_s=time.perf_counter() - start)


def engines_of(question: ServeQuestion, target: Target) -> tuple[list[Engine], int]:
    """The plans that hold the model in each allowed dtype, under each setting of batching; and how many were looked at.

    Raises:
        SapperError: None does; of several dtypes the last one's reason.
    """
    if not question.generates:
        return [_pass_engine(question, target, weights) for weights in question.weights], len(question.weights)
    engines: list[Engine] = []
    refusal: SapperError | None = None
    looked_at = 0
    for weights in question.weights:
        job = with_weights(question.job, weights)
        held = holding(job, target, tokens=question.tokens, plans=None if question.plan is None else [question.plan])
        looked_at += held.looked_at
        refusal = held.refusal or refusal
        if question.plan is not None:
            engines += held.engines
            continue
        varied = with_batching(job, target, held.engines, tokens=question.tokens)
        looked_at += max(0, len(varied) - len(held.engines))
        engines += varied
    if not engines:
        assert refusal is not None
        raise refusal
    return engines, looked_at


def _deployment(question: ServeQuestion, engine: Engine, replicas: int) -> Deployment:
    return Deployment(engine=engine, replicas=replicas, speculation=question.speculation, balancer=question.balancer)


def _estimate(question: ServeQuestion, deployment: Deployment, target: Target) -> ServeEstimate:
    return predict_serve(deployment, question.traffic, target, slo=question.slo, requests=question.requests)


# with an SLO


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """An engine with the bound of its steady state."""

    engine: Engine
    bound: limits.Bound

    def chips_for(self, rate_per_s: float) -> int:
        """Chips for a rate, at least."""
        return math.ceil(rate_per_s / self.bound.rate_per_s) * self.engine.plan.chips


def bounded(question: ServeQuestion, slo: Slo, engines: Iterable[Engine]) -> list[Bounded]:
    """Engines by the rate per chip of their bound, best first.

    Raises:
        BadPlan: A lone request breaks the SLO under every plan; the nearest is named.
    """
    prompt, answer = question.traffic.prompt.tokens, question.traffic.answer.tokens
    found = [
        Bounded(engine=one, bound=limits.bound(Clock(one, speculation=question.speculation), slo, prompt=prompt, answer=answer))
        for one in engines
    ]
    kept = [one for one in found if one.bound.missed is None]
    if not kept:
        nearest = min(found, key=lambda one: one.bound.best_s / slo.limits[one.bound.missed or "ttft"])
        missed = nearest.bound.missed or "ttft"
        raise BadPlan(
            "SP-SERVE-035",
            where="--slo",
            name=missed.upper(),
            limit=units.duration(slo.limits[missed]),
            best=units.duration(nearest.bound.best_s),
            plan=describe(nearest.engine.plan),
            plans=len(found),
        )
    return sorted(kept, key=lambda one: -one.bound.rate_per_s / one.engine.plan.chips)


def _for_rate(question: ServeQuestion, slo: Slo, target: Target, engines: list[Engine]) -> ServeAnswer:
    """The fewest chips that keep the SLO at the rate."""
    rate = question.traffic.rate_per_s
    assert rate is not None
    sized: list[Sized] = []
    if question.disaggregate != "yes":
        ranked = sorted(bounded(question, slo, engines), key=lambda one: (one.chips_for(rate), one.engine.plan.chips))
        for one in ranked[: SIMULATED * 3]:
            if len(sized) >= SIMULATED or any(one.chips_for(rate) > each.deployment.chips for each in sized):
                break
            highest = _replica_rate(question, slo, one)
            if highest > 0:
                sized.append(Sized(deployment=_deployment(question, one.engine, math.ceil(rate / highest)), rate_per_s=highest))
    if question.disaggregate != "no":
        sized += [found for deployment, _ in disaggregated(question, slo, target, engines) if (found := _grown(question, slo, deployment))]
    if not sized:
        raise _refusal(question, slo, target, engines)
    sized.sort(key=lambda one: (one.deployment.chips, one.deployment.disaggregated, -one.rate_per_s))
    best = _settled(question, slo, sized[0])
    if target.count is not None and best.deployment.chips > target.count:
        raise _too_few(question, slo, target, engines, best)
    slow, fast = _at_ends(question, slo, best)
    fewest, most = _chips_for(best, rate, fast), _chips_for(best, rate, slow)
    own = best.deployment.chips
    return ServeAnswer(
        estimate=_estimate(question, best.deployment, target),
        chips_low=None if fewest is None else min(fewest, own),
        chips_high=None if most is None else max(most, own),
        highest_rate=_rate_interval(best, slow, fast),
        runners=_runners(sized[1:]),
        simulated=len(sized),
    )


def _highest(question: ServeQuestion, slo: Slo, target: Target, engines: list[Engine]) -> ServeAnswer:
    """The deployment with the highest rate per chip: of one replica, or of as many as the cluster holds."""
    sized: list[Sized] = []
    if question.disaggregate != "yes":
        for one in bounded(question, slo, engines)[:SIMULATED]:
            highest = _replica_rate(question, slo, one)
            if highest > 0:
                replicas = 1 if target.count is None else target.count // one.engine.plan.chips
                sized.append(Sized(deployment=_deployment(question, one.engine, replicas), rate_per_s=highest * replicas))
    if question.disaggregate != "no":
        sized += _apart(question, slo, target, engines)
    if not sized:
        raise _refusal(question, slo, target, engines)
    sized.sort(key=lambda one: -one.per_chip if target.count is None else -one.rate_per_s)
    best = _lowered(question, slo, sized[0])
    slow, fast = _at_ends(question, slo, best)
    at_most = replace(question, traffic=question.traffic.at_rate(best.rate_per_s))
    return ServeAnswer(
        estimate=_estimate(at_most, best.deployment, target),
        highest_rate=_rate_interval(best, slow, fast),
        runners=_runners(sized[1:]),
        simulated=len(sized),
    )


def _apart(question: ServeQuestion, slo: Slo, target: Target, engines: list[Engine]) -> list[Sized]:
    """Disaggregated deployments that fill the cluster (or balanced units), with the highest rate of each by simulation."""
    found = (
        Sized(deployment=deployment, rate_per_s=limits.highest_rate(deployment, question.traffic, slo, most_per_s=most))
        for deployment, most in disaggregated(question, slo, target, engines, fill=True)
    )
    return [one for one in found if one.rate_per_s > 0]


def _replica_rate(question: ServeQuestion, slo: Slo, one: Bounded) -> float:
    """The highest rate of one replica by simulation."""
    return limits.highest_rate(_deployment(question, one.engine, 1), question.traffic, slo, most_per_s=one.bound.rate_per_s)


def _lowered(question: ServeQuestion, slo: Slo, sized: Sized) -> Sized:
    """With the rate a little lower where the longer simulation of the answer finds the short one's too high."""
    for _ in range(MOST_LOWER):
        if limits.keeps(sized.deployment, question.traffic.at_rate(sized.rate_per_s), slo, requests=question.requests):
            break
        sized = replace(sized, rate_per_s=sized.rate_per_s * 0.97)
    return sized


def _rate_interval(sized: Sized, slow_per_s: float, fast_per_s: float) -> Interval:
    mid = sized.rate_per_s
    return Interval(mid=mid, low=min(mid, slow_per_s), high=max(mid, fast_per_s), unit="1/s", grade="derived")


def _settled(question: ServeQuestion, slo: Slo, sized: Sized) -> Sized:
    """With the number of replicas at which the whole stream keeps the SLO: one that a balancer thins out is more even than a
    replica's own, and may need fewer."""
    deployment = sized.deployment
    if deployment.disaggregated:
        return sized

    def kept(replicas: int) -> bool:
        return limits.keeps(replace(deployment, replicas=replicas), question.traffic, slo, requests=question.requests)

    replicas = deployment.replicas
    while replicas > 1 and kept(replicas - 1):
        replicas -= 1
    for _ in range(MOST_MORE):
        if kept(replicas):
            break
        replicas += 1
    return replace(sized, deployment=replace(deployment, replicas=replicas), rate_per_s=sized.rate_per_s * replicas)


def _grown(question: ServeQuestion, slo: Slo, deployment: Deployment) -> Sized | None:
    """The disaggregated ``deployment`` with workers added until it keeps the SLO; None where a few more do not help."""
    assert question.traffic.rate_per_s is not None
    for _ in range(MOST_MORE):
        found = measure(simulate(deployment, question.traffic, requests=question.requests), slo)
        if meets(found, slo):
            return Sized(deployment=deployment, rate_per_s=question.traffic.rate_per_s)
        late = slo.ttft_s is not None and found.ttft.at(slo.percentile) > slo.ttft_s
        busy = (found.prompt_busy_share or 0.0) > found.busy_share
        if late or (slo.tpot_s is None and busy):
            deployment = replace(deployment, prefill_replicas=deployment.prefill_replicas + 1)
        else:
            deployment = replace(deployment, replicas=deployment.replicas + 1)
    return None


def _at_ends(question: ServeQuestion, slo: Slo, sized: Sized) -> tuple[float, float]:
    """The highest rate of the deployment at the slow and at the fast end of its efficiencies; a replica's times their number."""
    deployment, traffic = sized.deployment, question.traffic
    prompt, answer = traffic.prompt.tokens, traffic.answer.tokens
    one = deployment if deployment.disaggregated else replace(deployment, replicas=1)
    found = []
    for sign in (1.0, -1.0):
        factors = ends_of(deployment.engine, sign, deployment.prefill)
        if deployment.disaggregated:
            most = sized.rate_per_s / min(factors.decode, factors.prefill)
        else:
            clock = Clock(deployment.engine, decode_factor=factors.decode, prefill_factor=factors.prefill, speculation=question.speculation)
            most = limits.bound(clock, slo, prompt=prompt, answer=answer).rate_per_s
        found.append(limits.highest_rate(one, traffic, slo, most_per_s=most, factors=factors) if most > 0 else 0.0)
    many = 1 if deployment.disaggregated else deployment.replicas
    return found[0] * many, found[1] * many


def _chips_for(sized: Sized, rate_per_s: float, served_per_s: float) -> int | None:
    """Chips for a rate where so many as ``sized`` has serve another; None where none serve any."""
    if served_per_s <= 0 or sized.deployment.disaggregated:
        return None
    one = served_per_s / sized.deployment.replicas
    return math.ceil(rate_per_s / one) * sized.deployment.engine.plan.chips


def _runners(others: list[Sized]) -> tuple[Runner, ...]:
    return tuple(
        Runner(
            pools=pools_of(one.deployment),
            weights_dtype=one.deployment.engine.job.weights_dtype,
            chips=one.deployment.chips,
            highest_rate_per_s=one.rate_per_s,
        )
        for one in others[:3]
    )


def _refusal(question: ServeQuestion, slo: Slo, target: Target, engines: list[Engine]) -> BadPlan:
    """Why nothing was found: too few chips for both kinds of workers, or queues break the SLO.

    Raises:
        BadPlan: A lone request breaks it.
    """
    if refusal := _no_room_apart(question, target, engines):
        return refusal
    if question.disaggregate == "yes":
        bounded(question, slo, engines)
    return _nothing_keeps(question, slo, engines)


def _nothing_keeps(question: ServeQuestion, slo: Slo, engines: list[Engine]) -> BadPlan:
    """The mean of a plan keeps the limits, but no percentile of a simulation does."""
    prompt, answer = question.traffic.prompt.tokens, question.traffic.answer.tokens
    alone = min(
        (fluid.steady(Clock(one, speculation=question.speculation), sequences=1.0, prompt=prompt, answer=answer) for one in engines),
        key=lambda state: state.ttft_s + state.tpot_s * answer,
    )
    return BadPlan(
        "SP-SERVE-037",
        where="--slo",
        slo=slo.text,
        ttft=units.duration(alone.ttft_s),
        tpot=units.duration(alone.tpot_s),
        plans=len(engines),
    )


def _no_room_apart(question: ServeQuestion, target: Target, engines: list[Engine]) -> BadPlan | None:
    """Set where workers of their own are asked for, and the cluster does not hold one of each kind."""
    least = 2 * min(one.plan.chips for one in engines)
    if question.disaggregate != "yes" or target.count is None or least <= target.count:
        return None
    return BadPlan("SP-SERVE-038", where="--disaggregate", need=least, have=target.count)


def _too_few(question: ServeQuestion, slo: Slo, target: Target, engines: list[Engine], best: Sized) -> BadPlan:
    """The rate takes more chips than there are; says what they serve."""
    assert target.count is not None and question.traffic.rate_per_s is not None
    deployment = best.deployment
    plan = describe(deployment.engine.plan)
    if deployment.prefill is not None:
        served = max((_lowered(question, slo, one).rate_per_s for one in _apart(question, slo, target, engines)), default=0.0)
        plan = f"{deployment.prefill_replicas}x prefill {describe(deployment.prefill.plan)} + {deployment.replicas}x decode {plan}"
    else:
        served = best.rate_per_s / deployment.chips * (target.count - target.count % deployment.engine.plan.chips)
    if not served and (refusal := _no_room_apart(question, target, engines)):
        return refusal
    return BadPlan(
        "SP-SERVE-036",
        where="--rate",
        rate=f"{question.traffic.rate_per_s:.4g}",
        have=target.count,
        need=deployment.chips,
        most=f"{served:.3g}",
        plan=plan,
    )


# without an SLO


def _without_limit(question: ServeQuestion, target: Target, engines: list[Engine]) -> Deployment:
    """The deployment with the shortest requests for a rate, or with most tokens for a closed loop."""
    if question.disaggregate == "yes" and question.generates:
        return _apart_without_limit(question, target, engines)
    options = [one for engine in engines if (one := _option(question, target, engine)) is not None]
    if not options:
        raise BadPlan(
            "SP-SERVE-036",
            where="--rate",
            rate=f"{question.traffic.rate_per_s:.4g}",
            have=target.count,
            need=_need(question, engines),
            most=f"{_most(question, target, engines):.3g}",
            plan=describe(engines[0].plan),
        )
    return min(options, key=lambda pair: pair[0])[1]


def _apart_without_limit(question: ServeQuestion, target: Target, engines: list[Engine]) -> Deployment:
    """The disaggregated deployment with the shortest requests for a rate, or with most tokens per chip for a closed loop, by
    simulation; it fills the cluster, and where the number of chips is open it is sized for the rate, or is a balanced unit."""
    fill = target.count is not None or question.traffic.rate_per_s is None

    def rank(deployment: Deployment) -> float:
        found = measure(simulate(deployment, question.traffic, requests=limits.PROBES), None)
        return -found.output_tokens_per_s / deployment.chips if question.traffic.rate_per_s is None else found.e2e.p50_s

    smallest = min(one.plan.chips for one in engines)
    # a worker that leaves no chips for one of the other kind is in no pair
    paired = [one for one in engines if target.count is None or one.plan.chips + smallest <= target.count]
    options = [deployment for deployment, _ in disaggregated(question, Slo(), target, paired, fill=fill)]
    if not options:
        least = 2 * smallest
        raise BadPlan("SP-SERVE-038", where="--disaggregate", need=least, have=target.count)
    return min(options, key=rank)


def _option(question: ServeQuestion, target: Target, engine: Engine) -> tuple[tuple[float, ...], Deployment] | None:
    """(rank, deployment) of one engine: fewest chips first where they are free, then the mean time of a request; in a closed loop
    the time of a request per chip."""
    traffic, clock = question.traffic, Clock(engine, speculation=question.speculation)
    prompt, answer = traffic.prompt.tokens, traffic.answer.tokens
    chips = engine.plan.chips
    if traffic.concurrency is not None:
        replicas = 1 if target.count is None else target.count // chips
        users = min(max(1.0, traffic.concurrency / replicas / clock.ranks), fluid.most_sequences(clock, prompt=prompt, answer=answer))
        state = fluid.steady(clock, sequences=users, prompt=prompt, answer=answer)
        used = replicas * chips if target.count is None else 1
        served = state.rate_per_s * clock.ranks * replicas / used
        return (-float(f"{served:.3g}"),), _deployment(question, engine, min(replicas, traffic.concurrency))
    rate = traffic.rate_per_s
    assert rate is not None
    capacity = fluid.capacity_per_s(clock, prompt=prompt, answer=answer)
    replicas = math.ceil(rate / (CALM * capacity)) if target.count is None else target.count // chips
    if question.plan is None and target.count is not None and rate > replicas * capacity:
        return None
    batch = fluid.in_flight(clock, rate_per_s=rate / replicas / clock.ranks, prompt=prompt, answer=answer)
    state = fluid.steady(clock, sequences=max(batch, 1e-3), prompt=prompt, answer=answer)
    whole_s = state.ttft_s + state.tpot_s * (answer - 1.0)
    free = float(replicas * chips) if target.count is None else 0.0
    # to three digits, so that settings which make no difference leave the first one, which is the engine's default
    return (free, float(f"{whole_s:.3g}")), _deployment(question, engine, replicas)


def _need(question: ServeQuestion, engines: list[Engine]) -> int:
    """Chips that sustain the rate."""
    rate = question.traffic.rate_per_s or 0.0
    return min(math.ceil(rate / (CALM * _capacity(question, one))) * one.plan.chips for one in engines)


def _most(question: ServeQuestion, target: Target, engines: list[Engine]) -> float:
    """Rate that the cluster sustains."""
    count = target.count or 1
    return max(count // one.plan.chips * _capacity(question, one) for one in engines)


def _capacity(question: ServeQuestion, engine: Engine) -> float:
    traffic = question.traffic
    return fluid.capacity_per_s(Clock(engine, speculation=question.speculation), prompt=traffic.prompt.tokens, answer=traffic.answer.tokens)


# models that answer in one pass


def forward_serve(question: ServeQuestion, target: Target) -> Forward:
    """Latency and throughput of batches on one chip.

    Raises:
        BadPlan: The chip does not hold the model.
        MissingFact: The catalogue lacks a value.
    """
    return forward(_pass_engine(question, target, question.weights[0]), cluster=target.name)


def _pass_engine(question: ServeQuestion, target: Target, weights: str) -> PassEngine:
    engine = price_passes(with_weights(question.job, weights), target.group_for(1), tokens=round(question.traffic.prompt.tokens))
    if not engine.holds(1):
        memory = engine.memory
        need = memory.weights_bytes + memory.workspace_bytes
        raise BadPlan(
            "SP-SERVE-033",
            where="plan",
            plans=1,
            plan=describe(engine.plan),
            need=units.gib(need),
            have=units.gib(memory.capacity_bytes),
            missing=units.gib(need - memory.capacity_bytes),
            weights=units.gib(memory.weights_bytes),
        )
    return engine
