"""Disaggregate: how many prefill and decode workers go together, and how their caches travel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sapper.clusters.cluster import Link
from sapper.errors import SapperError
from sapper.predict.engine import unknown_links
from sapper.predict.serve import fluid, limits
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment, Transfer
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.step import Engine
from sapper.predict.serve.target import Target

TOP = 2
"""Plans of each kind of worker that are combined."""
PROMPT_SHARE = 0.6
"""Part of the TTFT limit that a prompt alone may take; the rest is for the queue."""
PROMPT_LOAD = 0.7
"""Of prefill workers: queues of even service times are short below it."""
DECODE_LOAD = 0.85
"""Of decode workers that are sized for a rate without an SLO."""
MOST_DECODERS = 4
"""In the smallest unit of a deployment."""


def transfer_of(target: Target, *, prefill: Engine, decode: Engine) -> Transfer:
    """The link between two workers: that of the scale-up domain where it holds both, else the network.

    Raises:
        MissingFact: Its bandwidth is unknown.
    """
    chips = prefill.plan.chips + decode.plan.chips
    group = target.group_for(chips if target.count is None or chips <= target.count else max(prefill.plan.chips, decode.plan.chips))
    up, out = group.scale_up, group.scale_out
    inside = up is not None and up.domain_size is not None and chips <= up.domain_size
    link: Link | None = up if inside else out
    if link is None or link.bandwidth_bytes_per_s.number is None:
        raise unknown_links([(target.chip.id, "scale_up.bandwidth" if inside else "scale_out")])
    return Transfer(bandwidth_bytes_per_s=link.bandwidth_bytes_per_s.number, latency_s=link.latency_s.number or 0.0)


def disaggregated(
    question: ServeQuestion, slo: Slo, target: Target, engines: Sequence[Engine], *, fill: bool = False
) -> Iterator[tuple[Deployment, float]]:
    """Deployments of the best workers of both kinds; with the rate that their steady states sustain within ``slo``.

    Args:
        question: The load, and whether disaggregation is wanted.
        slo: Limits that a lone request must keep; one without limits allows all workers.
        target: The chips.
        engines: Plans of either kind of worker.
        fill: Fill the cluster (a balanced unit where the number of chips is open) instead of sizing for the question's rate, which
            may take more chips than there are.
    """
    prompt, answer = question.traffic.prompt.tokens, question.traffic.answer.tokens
    firsts = _prefillers(engines, slo, prompt=prompt)[:TOP]
    seconds = _decoders(question, engines, slo, prompt=prompt, answer=answer)[:TOP]
    rate = None if fill else question.traffic.rate_per_s
    calm = 1.0 if slo.limits else DECODE_LOAD
    for first, first_rate in firsts:
        for second, second_rate in seconds:
            if first.job.weights_dtype != second.job.weights_dtype:
                continue
            try:
                transfer = transfer_of(target, prefill=first, decode=second)
            except SapperError:
                if question.disaggregate == "yes":
                    raise
                continue
            pair = (first_rate, second_rate, first.plan.chips, second.plan.chips)
            if rate is not None:
                counts = max(1, math.ceil(rate / (first_rate * PROMPT_LOAD))), max(1, math.ceil(rate / (second_rate * calm)))
            elif target.count is None:
                counts = _unit(*pair)
            elif first.plan.chips + second.plan.chips <= target.count:
                counts = _filled(*pair, target.count)
            else:
                continue
            deployment = Deployment(
                engine=second,
                replicas=counts[1],
                prefill=first,
                prefill_replicas=counts[0],
                transfer=transfer,
                speculation=question.speculation,
                balancer=question.balancer,
            )
            yield deployment, min(first_rate * counts[0], second_rate * counts[1])


def _prefillers(engines: Sequence[Engine], slo: Slo, *, prompt: float) -> list[tuple[Engine, float]]:
    """Engines that compute a prompt within its part of the TTFT limit, by prompts per second and chip."""
    found = []
    for engine in engines:
        clock = Clock(engine)
        state = fluid.prefill_only(clock, prompt=prompt)
        if slo.ttft_s is None or state.ttft_s <= PROMPT_SHARE * slo.ttft_s:
            found.append((engine, state.rate_per_s * clock.ranks))
    return _distinct(found)


def _decoders(question: ServeQuestion, engines: Sequence[Engine], slo: Slo, *, prompt: float, answer: float) -> list[tuple[Engine, float]]:
    found = []
    for engine in engines:
        clock = Clock(engine, speculation=question.speculation)
        bound = limits.bound(clock, slo, prompt=prompt, answer=answer, prompts=False)
        if bound.missed is None:
            found.append((engine, bound.rate_per_s))
    return _distinct(found)


def _distinct(found: list[tuple[Engine, float]]) -> list[tuple[Engine, float]]:
    """By rate per chip, one of each set of degrees."""
    ordered = sorted(found, key=lambda pair: -pair[1] / pair[0].plan.chips)
    seen: set[tuple[object, ...]] = set()
    kept = []
    for engine, rate in ordered:
        plan = engine.plan
        key = (engine.job.weights_dtype, plan.tp, plan.pp, plan.attention_dp, plan.ep)
        if key not in seen:
            seen.add(key)
            kept.append((engine, rate))
    return kept


def _unit(first_rate: float, second_rate: float, first_chips: int, second_chips: int) -> tuple[int, int]:
    """(prefill workers, decode workers) of the small unit that wastes least."""
    units = []
    for decoders in range(1, MOST_DECODERS + 1):
        prefillers = max(1, round(decoders * second_rate / first_rate))
        served = min(decoders * second_rate, prefillers * first_rate)
        units.append((served / (prefillers * first_chips + decoders * second_chips), prefillers, decoders))
    _, prefillers, decoders = max(units, key=lambda unit: unit[0])
    return prefillers, decoders


def _filled(first_rate: float, second_rate: float, first_chips: int, second_chips: int, count: int) -> tuple[int, int]:
    """(prefill workers, decode workers) that serve most on ``count`` chips, which hold one of each at least; of equals, on fewest."""
    mixes = []
    for decoders in range(1, (count - first_chips) // second_chips + 1):
        prefillers = min((count - decoders * second_chips) // first_chips, max(1, math.ceil(decoders * second_rate / first_rate)))
        served = min(decoders * second_rate, prefillers * first_rate)
        mixes.append((served, -(prefillers * first_chips + decoders * second_chips), prefillers, decoders))
    *_, prefillers, decoders = max(mixes)
    return prefillers, decoders
