"""Measure: what the users of a run got, and what the chips did for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.serve.log import Log
from sapper.predict.serve.simulate import Run
from sapper.predict.serve.slo import Slo

DRIFT = 0.02
"""Growth of the wait for the first token, seconds a second, from which on the queue is said to grow without end."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a time is spread over the requests, in seconds."""

    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float

    def at(self, percentile: int) -> float:
        """The percentile, one of 50, 90, 95, 99."""
        return float(getattr(self, f"p{percentile}_s"))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run in figures; rates are of the whole deployment."""

    requests: int
    ttft: Spread
    """From arrival to first token, the wait in the queue included."""
    tpot: Spread | None
    """Of each request: from first token to last, over the tokens after the first. None where answers are one token."""
    itl: Spread | None
    """Of each token: the gap before it, pauses for others' prompts included."""
    e2e: Spread
    requests_per_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    goodput_per_s: float | None
    """Requests per second that keep every limit; None without an SLO."""
    batch: float
    """Requests that decode together in a replica, in the mean over the time in which any do."""
    cache_share: float
    """Of a replica's cache, in the mean over time."""
    cache_peak_share: float
    busy_share: float
    """Time in which a replica (or decode worker) computes."""
    prompt_share: float
    """Part of a replica's computing time that prompts take; of all workers' where prefill has its own."""
    prompt_busy_share: float | None
    """The same of prefill workers."""
    preempted_share: float
    """Times that a request was thrown out, over requests."""
    overload: float
    sustained: bool
    """Whether the queue is stable."""


def measure(run: Run, slo: Slo | None = None) -> Measured:
    """The figures of ``run``."""
    stream = run.requests
    kept = slice(run.warm, run.end)
    arrival, first, finish = (stream.column(name)[kept] for name in ("arrival_s", "first_s", "finish_s"))
    answers, prompts = stream.column("output_tokens")[kept], stream.column("input_tokens")[kept]
    held_s = held_up_s(run)[kept]
    ttft, e2e = first - arrival + held_s, finish - arrival + held_s
    long = answers > 1
    each = (finish - first)[long] / (answers[long] - 1.0)
    rate, tokens, start_s, end_s = _rates(run, arrival, finish)
    logs = [_window(log, start_s, end_s) for log in run.logs]
    return Measured(
        requests=len(arrival),
        ttft=_spread(ttft),
        tpot=_spread(each) if len(each) else None,
        itl=_gaps(run, logs),
        e2e=_spread(e2e),
        requests_per_s=rate,
        output_tokens_per_s=tokens,
        input_tokens_per_s=rate * float(prompts.mean()),
        goodput_per_s=None if slo is None else rate * float(_keeping(slo, ttft, each, long, e2e).mean()),
        **_work(run, logs, end_s - start_s),
        prompt_busy_share=_busy(run.prompt_logs, start_s, end_s),
        preempted_share=stream.preempted / len(stream),
        overload=run.overload,
        sustained=run.overload <= 1.0 and not _drifting(arrival, ttft),
    )


def held_up_s(run: Run) -> Floats:
    """Of each request: seconds that its tokens lie at the front end, which serves all requests under way at the time of its arrival.

    Workers of their own have one front end, replicas one each; the engine goes on meanwhile.
    """
    arrival, finish = run.requests.column("arrival_s"), run.requests.column("finish_s")
    here = np.searchsorted(np.sort(arrival), arrival, side="right") - np.searchsorted(np.sort(finish), arrival, side="right")
    fronts = 1 if run.deployment.disaggregated else run.deployment.replicas
    return np.asarray(run.front_s * np.maximum(here * run.share / fronts - 1.0, 0.0), float)


def _rates(run: Run, arrival: Floats, finish: Floats) -> tuple[float, float, float, float]:
    """Requests and output tokens per second of the deployment, and the time over which they were taken."""
    stream = run.requests
    if stream.column("arrival_s")[-1] == 0.0 and len(arrival) == 1:
        return 1.0 / finish[0], float(stream.output_tokens[0]) / finish[0], 0.0, float(finish[0])
    if run.warm == 0:  # a trace: from the first arrival to the last answer
        start_s, end_s = float(arrival.min()), float(finish.max())
    else:
        start_s, end_s = float(arrival.min()), float(arrival.max())
    span_s = max(end_s - start_s, 1e-9)
    done = stream.column("finish_s")
    inside = (done >= start_s) & (done <= end_s)
    made = sum(_tokens(log, run.deployment.speculation is not None, start_s, end_s) for log in run.logs)
    firsts = stream.column("first_s")
    if run.prompt_logs:
        made += float(((firsts >= start_s) & (firsts <= end_s)).sum())
    if run.deployment.speculation is not None:  # the last iteration of a request may keep less than it could
        made = float(stream.column("output_tokens")[inside].sum())
    return float(inside.sum()) / span_s * run.share, made / span_s * run.share, start_s, end_s


def _tokens(log: Log, speculative: bool, start_s: float, end_s: float) -> float:
    if speculative or not log.end_s:
        return 0.0
    made = log.column("decoding") * log.column("iterations") + log.column("prompts")
    ends, begins = log.column("end_s"), log.column("end_s") - log.column("spent_s")
    inside = np.clip((np.minimum(ends, end_s) - np.maximum(begins, start_s)) / np.maximum(log.column("spent_s"), 1e-12), 0.0, 1.0)
    return float((made * inside).sum())


def _spread(values: Floats) -> Spread:
    p50, p90, p95, p99 = np.percentile(values, (50, 90, 95, 99))
    return Spread(mean_s=float(values.mean()), p50_s=float(p50), p90_s=float(p90), p95_s=float(p95), p99_s=float(p99))


def _keeping(slo: Slo, ttft: Floats, each: Floats, long: np.ndarray, e2e: Floats) -> np.ndarray:
    kept = np.ones(len(ttft), bool)
    tpot = np.zeros(len(ttft))
    tpot[long] = each
    for name, values in (("ttft", ttft), ("tpot", tpot), ("e2e", e2e)):
        if name in slo.limits:
            kept &= values <= slo.limits[name]
    return kept


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The runs of a log inside the measured time."""

    spent_s: Floats
    iterations: Floats
    decoding: Floats
    prompt_s: Floats
    held_bytes: Floats


def _window(log: Log, start_s: float, end_s: float) -> _Window:
    ends = log.column("end_s")
    inside = (ends > start_s) & (ends - log.column("spent_s") < end_s)
    return _Window(**{name: log.column(name)[inside] for name in ("spent_s", "iterations", "decoding", "prompt_s", "held_bytes")})


def _gaps(run: Run, logs: list[_Window]) -> Spread | None:
    """Gaps between the tokens of requests: a run of iterations counts with its mean gap, once for each token."""
    grow = run.deployment.speculation.tokens_per_iteration if run.deployment.speculation else 1.0
    gap = np.concatenate([log.spent_s / np.maximum(log.iterations, 1.0) / grow for log in logs])
    weight = np.concatenate([log.iterations * log.decoding for log in logs])
    gap, weight = gap[weight > 0], weight[weight > 0]
    if not len(gap):
        return None
    order = np.argsort(gap)
    share = np.cumsum(weight[order]) / weight.sum()
    found = [float(gap[order][min(int(np.searchsorted(share, level)), len(gap) - 1)]) for level in (0.5, 0.9, 0.95, 0.99)]
    return Spread(mean_s=float(np.average(gap, weights=weight)), p50_s=found[0], p90_s=found[1], p95_s=found[2], p99_s=found[3])


def _work(run: Run, logs: list[_Window], span_s: float) -> dict[str, float]:
    capacity = max(run.deployment.engine.memory.cache_bytes, 1.0)
    # of a replica's ranks those that have a request at all, where users are fewer than ranks
    ranks = run.deployment.engine.plan.attention_dp * run.share * len(run.logs) / run.deployment.loops
    spent = np.concatenate([log.spent_s for log in logs])
    decoding, held = np.concatenate([log.decoding for log in logs]), np.concatenate([log.held_bytes for log in logs])
    working = spent[decoding > 0].sum()
    return {
        "batch": float((decoding * spent).sum() / working) * ranks if working > 0 else 0.0,
        "cache_share": float((held * spent).sum() / max(span_s * len(logs), 1e-9) / capacity),
        "cache_peak_share": float(held.max() / capacity) if len(held) else 0.0,
        "busy_share": min(1.0, float(spent.sum() / max(span_s * len(logs), 1e-9))),
        "prompt_share": _prompt_share(run, logs),
    }


def _prompt_share(run: Run, logs: list[_Window]) -> float:
    """Chips' time for prompts over their time for both, at the speed at which they would do nothing else."""
    deployment = run.deployment
    spent = sum(float(log.spent_s.sum()) for log in logs) * deployment.engine.plan.chips
    if deployment.prefill is None:
        return sum(float(log.prompt_s.sum()) for log in logs) * deployment.engine.plan.chips / max(spent, 1e-12)
    prompts = sum(sum(log.spent_s) for log in run.prompt_logs) * deployment.prefill.plan.chips
    return prompts / max(prompts + spent, 1e-12)


def _busy(logs: tuple[Log, ...], start_s: float, end_s: float) -> float | None:
    if not logs:
        return None
    spent = sum(float(_window(log, start_s, end_s).spent_s.sum()) for log in logs)
    return min(1.0, spent / max((end_s - start_s) * len(logs), 1e-9))


def _drifting(arrival: Floats, ttft: Floats) -> bool:
    """Whether the wait grows: its mean over the last third of the time against that over the first."""
    third = len(ttft) // 3
    if third < 50:
        return False
    early, late = float(ttft[:third].mean()), float(ttft[-third:].mean())
    apart_s = float(arrival[-third:].mean() - arrival[:third].mean())
    return apart_s > 0 and late > 1.5 * early and (late - early) / apart_s > DRIFT
