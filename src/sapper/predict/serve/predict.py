"""Predict a deployment under a load: three simulations, at slow, likely and fast efficiencies, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sapper.evidence import Grade, Interval
from sapper.predict.arrays import Floats
from sapper.predict.estimate import Warning_
from sapper.predict.serve import costs, fluid, reasons
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.estimate import Latency, Load, Pool, ReplicaMemory, ServeEstimate
from sapper.predict.serve.measure import Measured, Spread, measure
from sapper.predict.serve.passes import PassEngine
from sapper.predict.serve.posterior import measured_stacks
from sapper.predict.serve.price import Priced, effects_used
from sapper.predict.serve.simulate import LIKELY, REQUESTS, Factors, simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.step import Engine
from sapper.predict.serve.target import Target
from sapper.predict.serve.traffic import Traffic

Z80 = 1.2816
"""Half width of an 80% interval in standard deviations."""
NEAR_FULL = 0.9
"""Load from which on small errors of speed make queues."""


@dataclass(frozen=True, kw_only=True)
class Three:
    """The same load at the most likely efficiencies and at both ends of their interval."""

    likely: Measured
    slow: Measured
    fast: Measured

    def interval(self, value: Callable[[Measured], float], *, unit: str, grade: Grade) -> Interval:
        """A figure of the three runs."""
        mid, ends = value(self.likely), (value(self.slow), value(self.fast))
        return Interval(mid=mid, low=min(mid, *ends), high=max(mid, *ends), unit=unit, grade=grade)


def ends_of(engine: Engine, sign: float, prefill: Engine | None = None) -> Factors:
    """Factors on iteration times at one end of the 80% interval. Prompts and answers are slow together: their efficiencies share
    a chip and a stack, and a range of their sum must not be too narrow."""
    return Factors(decode=math.exp(sign * Z80 * engine.decode_sd), prefill=math.exp(sign * Z80 * (prefill or engine).prefill_sd))


def three(deployment: Deployment, traffic: Traffic, *, slo: Slo | None, requests: int) -> Three:
    """The runs at likely, slow and fast efficiencies."""
    engine, prefill = deployment.engine, deployment.prefill

    def run(factors: Factors) -> Measured:
        return measure(simulate(deployment, traffic, requests=requests, factors=factors), slo)

    return Three(likely=run(LIKELY), slow=run(ends_of(engine, 1.0, prefill)), fast=run(ends_of(engine, -1.0, prefill)))


def predict_serve(
    deployment: Deployment, traffic: Traffic, target: Target, *, slo: Slo | None = None, requests: int = REQUESTS
) -> ServeEstimate:
    """``deployment`` under ``traffic``.

    Raises:
        BadPlan: A request is larger than the cache.
    """
    engine = deployment.engine
    runs = three(deployment, traffic, slo=slo, requests=requests)
    likely = runs.likely
    bundle = _bundle(deployment, traffic, likely)
    terms = reasons.terms_of(engine, bundle)
    grade = reasons.grade_of(engine, terms)
    rates = _rates(runs, deployment.chips, grade)
    paid = costs.bill(
        target.group_for(engine.plan.chips),
        deployment.chips,
        tokens_per_s=rates["output_tokens_per_s"],
        input_tokens_per_s=likely.input_tokens_per_s,
        busy_share=_busy(deployment, likely),
        prompt_share=likely.prompt_share,
        power_price=target.power_price,
        pue=target.pue,
    )
    lone = fluid.steady(Clock(deployment.prefill or engine), sequences=1.0, prompt=traffic.prompt.tokens, answer=2.0)
    effects = effects_used(engine.subject) if isinstance(engine, (Priced, PassEngine)) else ()
    return ServeEstimate(
        cluster=target.name,
        chip=target.chip.id,
        chips=deployment.chips,
        **_served(deployment),
        load=load_of(traffic, likely.requests),
        slo=slo,
        meets=None if slo is None else meets(likely, slo),
        sustained=likely.sustained,
        load_ratio=likely.overload if traffic.concurrency is None else None,
        **_times(runs, grade),
        **rates,
        goodput_per_s=None if slo is None else runs.interval(lambda run: run.goodput_per_s or 0.0, unit="1/s", grade=grade),
        busy_share=likely.busy_share,
        prompt_share=likely.prompt_share,
        preempted_share=likely.preempted_share,
        memory=_memory(engine, likely),
        power=paid.power,
        energy_per_token=paid.energy_per_token,
        cost=paid.cost,
        cost_input=paid.cost_input,
        cost_output=paid.cost_output,
        terms=terms,
        binds=reasons.binds(terms, likely, empty_s=lone.ttft_s),
        coverage=engine.coverage,
        narrowing=reasons.narrowest(engine, bundle),
        warnings=_warnings(deployment, traffic, runs, slo),
        used=(*engine.used, *effects, *paid.used),
        grade=grade,
    )


def _served(deployment: Deployment) -> dict[str, Any]:
    """What is served, in which precisions, by which workers."""
    engine = deployment.engine
    return {
        "model": engine.job.model.name,
        "weights_dtype": engine.job.weights_dtype,
        "compute_dtype": engine.job.compute_dtype,
        "cache_dtype": engine.job.cache_dtype,
        "stack": engine.subject.stack if isinstance(engine, (Priced, PassEngine)) else engine.job.stack or "unknown",
        "pools": pools_of(deployment),
        "balancer": deployment.balancer,
        "speculation": deployment.speculation,
    }


def _times(runs: Three, grade: Grade) -> dict[str, Any]:
    """What users wait for."""
    found = {name: _latency(runs, name, grade) for name in ("ttft", "tpot", "itl", "e2e")}
    tpot = found["tpot"]
    return {**found, "user_tokens_per_s": None if tpot is None else _inverse(tpot.p50, "tokens/s")}


def _rates(runs: Three, chips: int, grade: Grade) -> dict[str, Any]:
    """What the deployment gives in a second, and how many decode at a time."""
    tokens = runs.interval(lambda run: run.output_tokens_per_s, unit="tokens/s", grade=grade)
    return {
        "requests_per_s": runs.interval(lambda run: run.requests_per_s, unit="1/s", grade=grade),
        "output_tokens_per_s": tokens,
        "chip_tokens_per_s": costs.scaled(tokens, 1.0 / chips, unit="tokens/s/chip"),
        "total_chip_tokens_per_s": runs.interval(
            lambda run: (run.output_tokens_per_s + run.input_tokens_per_s) / chips, unit="tokens/s/chip", grade=grade
        ),
        "batch": runs.interval(lambda run: run.batch, unit="1", grade=grade),
    }


def meets(measured: Measured, slo: Slo) -> bool:
    """Whether the percentile of each limited time is within its limit, and the queue stable."""
    spreads = {"ttft": measured.ttft, "tpot": measured.tpot, "e2e": measured.e2e}
    return measured.sustained and all(
        spread is None or spread.at(slo.percentile) <= limit for name, limit in slo.limits.items() for spread in (spreads[name],)
    )


def _bundle(deployment: Deployment, traffic: Traffic, measured: Measured) -> Floats | None:
    engine = deployment.engine
    if isinstance(engine, PassEngine):
        return np.asarray(engine.bundles[:, 0], float)
    if not isinstance(engine, Priced):
        return None
    prompt, answer = traffic.prompt.tokens, traffic.answer.tokens
    return reasons.mean_bundle(
        engine, batch=measured.batch / engine.plan.attention_dp, context=prompt + answer / 2, prompt=prompt, answer=answer
    )


def _latency(runs: Three, name: str, grade: Grade) -> Latency | None:
    if getattr(runs.likely, name) is None:
        return None

    def at(figure: str) -> Interval:
        def value(run: Measured) -> float:
            spread: Spread = getattr(run, name)
            return float(getattr(spread, f"{figure}_s"))

        return runs.interval(value, unit="s", grade=grade)

    figures = {figure: at(figure) for figure in ("mean", "p50", "p90", "p95", "p99")}
    return Latency(name=name, **figures)  # type: ignore[arg-type]  # the caller's names are the literal's


def _inverse(value: Interval, unit: str) -> Interval:
    return Interval(mid=1 / value.mid, low=1 / value.high, high=1 / value.low, unit=unit, grade=value.grade)


def _busy(deployment: Deployment, measured: Measured) -> float:
    """Share of the time in which a chip computes, over both pools."""
    if deployment.prefill is None or measured.prompt_busy_share is None:
        return measured.busy_share
    first = deployment.prefill.plan.chips * deployment.prefill_replicas
    return (measured.prompt_busy_share * first + measured.busy_share * (deployment.chips - first)) / deployment.chips


def pools_of(deployment: Deployment) -> tuple[Pool, ...]:
    """The workers of ``deployment``, in the order in which a request meets them."""
    engine, prefill = deployment.engine, deployment.prefill
    own = Pool(
        role="all" if prefill is None else "decode",
        plan=engine.plan,
        replicas=deployment.replicas,
        chips=engine.plan.chips * deployment.replicas,
    )
    if prefill is None:
        return (own,)
    count = deployment.prefill_replicas
    return (Pool(role="prefill", plan=prefill.plan, replicas=count, chips=prefill.plan.chips * count), own)


def load_of(traffic: Traffic, requests: int) -> Load:
    """The load in numbers; ``requests`` are measured."""
    return Load(
        arrivals=traffic.arrivals,
        rate_per_s=traffic.rate_per_s,
        concurrency=traffic.concurrency,
        prompt=traffic.prompt,
        answer=traffic.answer,
        trace=traffic.trace.path if traffic.trace else None,
        seed=traffic.seed,
        requests=requests,
    )


def _memory(engine: Engine, measured: Measured) -> ReplicaMemory:
    memory = engine.memory
    return ReplicaMemory(
        weights_bytes=memory.weights_bytes,
        workspace_bytes=memory.workspace_bytes,
        cache_bytes=memory.cache_bytes,
        cache_share=measured.cache_share,
        cache_peak_share=measured.cache_peak_share,
        capacity_bytes=memory.capacity_bytes,
    )


def _warnings(deployment: Deployment, traffic: Traffic, runs: Three, slo: Slo | None) -> tuple[Warning_, ...]:
    engine, found = deployment.engine, []
    asked = f"{traffic.rate_per_s:.4g}" if traffic.rate_per_s else ""
    if not runs.likely.sustained:
        most = f"{(traffic.rate_per_s or 0.0) / max(runs.likely.overload, 1e-9):.3g}"
        found.append(Warning_(code="warn.serve-overload", values={"rate": asked, "most": most}))
    elif not runs.slow.sustained:
        found.append(Warning_(code="warn.serve-slow-overload", values={"rate": asked}))
    if runs.likely.preempted_share > 0.01:
        found.append(Warning_(code="warn.serve-preempted", values={"share": f"{100 * runs.likely.preempted_share:.1f}%"}))
    if slo is not None and meets(runs.likely, slo) and not meets(runs.slow, slo):
        found.append(Warning_(code="warn.serve-slo-slow"))
    positions = engine.job.model.max_positions
    # a model that takes whole inputs at once answers with no token of its own
    longest = traffic.longest_tokens - (traffic.answer.tokens if isinstance(engine, PassEngine) else 0)
    if positions and longest > positions:
        values = {"model": engine.job.model.name, "positions": f"{positions:,}", "tokens": f"{longest:,.0f}"}
        found.append(Warning_(code="warn.serve-positions", values=values))
    if isinstance(engine, (Priced, PassEngine)):
        if engine.fallback:
            found.append(Warning_(code="warn.serve-fallback", values={"dtype": engine.job.compute_dtype, "chip": _chip(engine)}))
        if engine.job.model.origin == "capture":
            found.append(Warning_(code="warn.serve-captured", values={"model": engine.job.model.name}))
        if engine.subject.stack == "unknown":
            found.append(Warning_(code="warn.serve-no-stack", values={"chip": _chip(engine)}))
        elif engine.job.stack and engine.job.stack not in (known := measured_stacks()):
            values = {"stack": engine.job.stack, "known": ", ".join(known)}
            found.append(Warning_(code="warn.serve-new-stack", values=values))
    if deployment.speculation is not None:
        found.append(Warning_(code="warn.serve-draft", values={"accept": f"{deployment.speculation.accept_share:.2f}"}))
    return tuple(found)


def _chip(engine: Priced | PassEngine) -> str:
    return engine.subject.chip
