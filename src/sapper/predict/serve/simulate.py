"""Simulate: a stream of requests through a deployment."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from sapper import units
from sapper.errors import BadPlan
from sapper.predict.serve import fluid
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Balancer, Deployment
from sapper.predict.serve.log import Log
from sapper.predict.serve.replica import Replica
from sapper.predict.serve.requests import Requests
from sapper.predict.serve.traffic import Traffic, draw

REQUESTS = 2000
"""Requests that are measured, where none is said: the 99th percentile then rests on 20 of them."""
SETTLE = 1.5
"""Residence times that pass before the first request is measured, so that the batch is that of the steady state."""
TAIL = 1.0
"""Residence times for which others still come after the last one that is measured."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of a stream. The first ``warm`` requests and those from ``end`` on are not measured."""

    deployment: Deployment
    requests: Requests
    logs: tuple[Log, ...]
    """One for each simulated replica (or decode worker)."""
    prompt_logs: tuple[Log, ...]
    """One for each simulated prefill worker."""
    warm: int
    end: int
    share: float
    """Replicas of the deployment that one simulated replica stands for, times those simulated, is all: 1 / share of it was simulated."""
    front_s: float
    """Seconds that each other request under way holds up a replica's front end."""
    overload: float
    """Rate asked over the rate that the replicas sustain in the mean, prompts and answers of mean length; above 1 no queue is stable."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What the iteration times are multiplied with: 1 is the most likely."""

    decode: float = 1.0
    prefill: float = 1.0


LIKELY = Factors()


def simulate(deployment: Deployment, traffic: Traffic, *, requests: int = REQUESTS, factors: Factors = LIKELY) -> Run:
    """Run ``requests`` measured requests of ``traffic`` (a trace: all of its) through ``deployment``.

    Raises:
        BadPlan: A request is larger than the whole cache.
    """
    if traffic.concurrency is not None:
        return _closed(deployment, traffic, requests, factors)
    if deployment.disaggregated:
        return _open_disaggregated(deployment, traffic, requests, factors)
    clock = _clock(deployment, factors)
    rate = _rate(traffic) / deployment.loops
    prompt, answer = traffic.prompt.tokens, traffic.answer.tokens
    settle = _settle(clock, rate, prompt, answer)
    alone = traffic.trace is None and deployment.balancer == "round-robin"
    simulated = 1 if alone else deployment.loops
    warm, tail = (0, 0) if traffic.trace else (settle * simulated, math.ceil(TAIL / SETTLE * settle) * simulated)
    stream = draw(traffic, warm + requests + tail, every=deployment.loops if alone else 1)
    replicas = [Replica(clock, stream) for _ in range(simulated)]
    _check_largest(clock, stream)
    _pass_through(replicas, _queued(stream, clock), deployment.balancer)
    return Run(
        deployment=deployment,
        requests=stream,
        logs=tuple(replica.log for replica in replicas),
        prompt_logs=(),
        warm=warm,
        end=len(stream) - tail,
        share=deployment.loops / simulated,
        front_s=_front_s(deployment, factors),
        overload=rate * clock.ranks / fluid.capacity_per_s(clock, prompt=prompt, answer=answer),
    )


def _front_s(deployment: Deployment, factors: Factors) -> float:
    """Of the engine that takes the requests in."""
    return (deployment.prefill or deployment.engine).times.stream_s * factors.prefill


def _open_disaggregated(deployment: Deployment, traffic: Traffic, requests: int, factors: Factors) -> Run:
    """Prompts do not wait for decode workers, so the two pools are simulated one after the other."""
    assert deployment.prefill is not None and deployment.transfer is not None
    part = math.gcd(deployment.loops, deployment.prefill_loops) if traffic.trace is None else 1
    clock, before = _clock(deployment, factors), Clock(deployment.prefill, prefill_factor=factors.prefill)
    decoders, prefillers = deployment.loops // part, deployment.prefill_loops // part
    rate, prompt, answer = _rate(traffic), traffic.prompt.tokens, traffic.answer.tokens
    settle = _settle(clock, rate / deployment.loops, prompt, answer, prompts=False) * decoders
    warm, tail = (0, 0) if traffic.trace else (settle, math.ceil(TAIL / SETTLE * settle))
    stream = draw(traffic, warm + requests + tail, every=part)
    for one in (clock, before):
        _check_largest(one, stream)
    first = [Replica(before, stream, prompts_only=True) for _ in range(prefillers)]
    _pass_through(first, _queued(stream, before), deployment.balancer)
    held = deployment.prefill.memory.sequence_bytes
    ready = sorted(
        (first_s + deployment.transfer.seconds(_moved_bytes(before, tokens, held)), index)
        for index, (first_s, tokens, left) in enumerate(zip(stream.first_s, stream.input_tokens, stream.remaining, strict=True))
        if left > 0
    )
    second = [Replica(clock, stream) for _ in range(decoders)]
    _pass_through(second, ((index, at) for at, index in ready), deployment.balancer, computed=True)
    sustained = min(
        fluid.capacity_per_s(clock, prompt=prompt, answer=answer, prompts=False) * deployment.replicas,
        fluid.prefill_only(before, prompt=prompt).rate_per_s * deployment.prefill_loops,
    )
    return Run(
        deployment=deployment,
        requests=stream,
        logs=tuple(replica.log for replica in second),
        prompt_logs=tuple(replica.log for replica in first),
        warm=warm,
        end=len(stream) - tail,
        share=float(part),
        front_s=_front_s(deployment, factors),
        overload=rate / sustained,
    )


def _closed(deployment: Deployment, traffic: Traffic, requests: int, factors: Factors) -> Run:
    """Users who ask again as soon as they are answered. They start out of step, as they would be found at any later time: the
    first answers are of evenly spread lengths."""
    assert traffic.concurrency is not None
    clock = _clock(deployment, factors)
    # users keep to a replica, so that one of it, with its share of them, stands for all
    pools = math.gcd(deployment.loops, deployment.prefill_loops)
    users = max(1, round(traffic.concurrency / pools))
    settle = math.ceil(users * 2 * SETTLE)
    stream = draw(traffic, requests + settle + users, every=1)
    _check_largest(clock, stream)
    for user in range(users):
        share = (user + 1.0) / users
        stream.remaining[user] = stream.output_tokens[user] = max(1.0, round(stream.output_tokens[user] * share))
    if deployment.disaggregated:
        logs, prompt_logs = _loop_disaggregated(deployment, stream, users, clock, factors)
    else:
        replica = Replica(clock, stream)
        _loop(replica, stream, users)
        logs, prompt_logs = (replica.log,), ()
    return Run(
        deployment=deployment,
        requests=stream,
        logs=logs,
        prompt_logs=prompt_logs,
        warm=settle,
        end=settle + requests,
        share=float(min(pools, traffic.concurrency)),
        front_s=_front_s(deployment, factors),
        overload=0.0,
    )


def _loop(replica: Replica, stream: Requests, users: int) -> None:
    asked = deque((replica.clock.request_s, request) for request in range(users))
    """Requests on their way to the queue, with the time at which they enter it."""
    following = users
    while replica.load or asked:
        if asked and (not replica.load or asked[0][0] <= replica.now_s):
            at_s, request = asked.popleft()
            replica.submit(request, at_s)
            continue
        for _ in replica.step(asked[0][0] if asked else math.inf):
            if following < len(stream):
                stream.arrival_s[following] = replica.now_s
                asked.append((replica.now_s + replica.clock.request_s, following))
                following += 1


def _loop_disaggregated(
    deployment: Deployment, stream: Requests, users: int, clock: Clock, factors: Factors
) -> tuple[tuple[Log, ...], tuple[Log, ...]]:
    """All workers side by side in time; nobody runs past a time at which another could hand it work."""
    assert deployment.prefill is not None and deployment.transfer is not None
    part = math.gcd(deployment.loops, deployment.prefill_loops)
    before = Clock(deployment.prefill, prefill_factor=factors.prefill)
    prefillers = [Replica(before, stream, prompts_only=True) for _ in range(deployment.prefill_loops // part)]
    decoders = [Replica(clock, stream) for _ in range(deployment.loops // part)]
    held = deployment.prefill.memory.sequence_bytes
    events: list[tuple[float, int, int]] = [(before.request_s, 0, request) for request in range(users)]
    """(time, 0: a prompt comes or 1: a cache has arrived, request)."""
    heapify(events)
    following = users
    while True:
        busy = [worker for worker in (*prefillers, *decoders) if worker.load]
        worker = min(busy, key=lambda one: one.now_s, default=None)
        if events and (worker is None or events[0][0] <= worker.now_s):
            at, kind, request = heappop(events)
            pool = decoders if kind else prefillers
            min(pool, key=lambda one: one.load).submit(request, at, computed=bool(kind))
            continue
        if worker is None:
            break
        # a decode worker may not run past what a prefill worker, or another decode worker's users, could bring
        others = [one.now_s for one in busy if one is not worker]
        until = min([*others, *(event[0] for event in events[:1])], default=math.inf)
        for request in worker.step(max(until, worker.now_s)):
            if worker.prompts_only and stream.remaining[request] > 0:
                moved = _moved_bytes(before, stream.input_tokens[request], held)
                heappush(events, (worker.now_s + deployment.transfer.seconds(moved), 1, request))
            elif following < len(stream):
                stream.arrival_s[following] = worker.now_s
                heappush(events, (worker.now_s + before.request_s, 0, following))
                following += 1
    return tuple(worker.log for worker in decoders), tuple(worker.log for worker in prefillers)


def _queued(stream: Requests, clock: Clock) -> Iterable[tuple[int, float]]:
    """Each request with the time at which it enters a queue."""
    return ((request, arrival_s + clock.request_s) for request, arrival_s in enumerate(stream.arrival_s))


def _pass_through(replicas: list[Replica], stream: Iterable[tuple[int, float]], balancer: Balancer, *, computed: bool = False) -> None:
    """Hand each request, in order of time, to a replica, and let all of them finish."""
    for turn, (request, at_s) in enumerate(stream):
        if balancer == "round-robin":
            chosen = replicas[turn % len(replicas)]
            chosen.run_until(at_s)
        else:
            for replica in replicas:
                replica.run_until(at_s)
            chosen = min(replicas, key=lambda one: one.load)
        chosen.submit(request, at_s, computed=computed)
    for replica in replicas:
        replica.run_until(math.inf)


def _clock(deployment: Deployment, factors: Factors) -> Clock:
    return Clock(deployment.engine, decode_factor=factors.decode, prefill_factor=factors.prefill, speculation=deployment.speculation)


def _moved_bytes(clock: Clock, tokens: float, state_bytes: float) -> float:
    """What one chip of a prefill worker sends of a prompt's cache."""
    return state_bytes + sum(size * min(tokens, window) for size, window in zip(clock.token_bytes, clock.windows, strict=True))


def _rate(traffic: Traffic) -> float:
    assert traffic.rate_per_s is not None
    return traffic.rate_per_s


def _settle(clock: Clock, rate_per_s: float, prompt: float, answer: float, *, prompts: bool = True) -> int:
    return 50 + math.ceil(SETTLE * fluid.in_flight(clock, rate_per_s=rate_per_s, prompt=prompt, answer=answer, prompts=prompts))


def _check_largest(clock: Clock, stream: Requests) -> None:
    longest = max(range(len(stream)), key=lambda at: stream.input_tokens[at] + stream.output_tokens[at])
    tokens = stream.input_tokens[longest] + stream.output_tokens[longest]
    need, have = clock.held_bytes(tokens), clock.capacity_bytes
    if need > have * 0.98:
        raise BadPlan("SP-SERVE-030", where="plan", tokens=f"{tokens:,.0f}", need=units.gib(need), have=units.gib(max(have, 0.0)))
