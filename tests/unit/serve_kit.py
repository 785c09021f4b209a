"""What the tests of serving share: a small engine made by hand, and a simulator that takes every iteration on its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from predict_kit import model

from sapper.evidence import Fact
from sapper.predict.estimate import Coverage, Used
from sapper.predict.serve import CacheLayer, ServeJob, ServeMemory, ServePlan, StepTimes

ROWS = np.array([1.0, 64.0, 256.0, 8192.0, 65536.0])
"""A knee at 256 tokens: below it the weights' bytes bind, above it the arithmetic."""


def times(*, windows: tuple[int | None, ...] = (None,)) -> StepTimes:
    """An engine of 10 ms an iteration, 20 us a prompt token beyond the knee, 0.2 us a cached token."""
    rows_s = np.array([10e-3, 10.5e-3, 12e-3, 12e-3 + 7936 * 20e-6, 12e-3 + 65280 * 20e-6])
    share = 1.0 / len(windows)
    layers = tuple(
        CacheLayer(window=window, context_s=0.2e-6 * share, token_bytes=131072.0 * share, pair_s=1e-9 * share) for window in windows
    )
    return StepTimes(rows=ROWS, rows_s=rows_s, sequence_s=5e-6, layers=layers)


def memory(*, cache_gib: float = 40.0) -> ServeMemory:
    """80 GiB, half of it weights."""
    return ServeMemory(weights_bytes=30 * 2.0**30, workspace_bytes=2**31, sequence_bytes=0.0, capacity_bytes=(32 + cache_gib) * 2.0**30)


@dataclass(frozen=True, kw_only=True)
class HandEngine:
    """An :class:`Engine` with nothing behind it."""

    plan: ServePlan = field(default_factory=ServePlan)
    times: StepTimes = field(default_factory=times)
    memory: ServeMemory = field(default_factory=memory)
    job: ServeJob = field(default_factory=lambda: ServeJob(model=model()))
    decode_sd: float = 0.1
    prefill_sd: float = 0.2
    used: tuple[Used, ...] = (Used(key="hand-made", fact=Fact(value=1.0, unit="1", source="test", grade="assumed")),)
    coverage: Coverage = field(default_factory=lambda: Coverage(ops=1, ops_priced=1, flops_share=1.0, bytes_share=1.0))


@dataclass
class One:
    """A request of the slow simulator."""

    number: int
    arrival_s: float
    prompt: float
    answer: float
    done: float = 0.0
    """Prompt tokens computed since it was last admitted."""
    made: float = 0.0
    first_s: float | None = None
    finish_s: float | None = None

    @property
    def context(self) -> float:
        return self.prompt + self.made


def token_by_token(engine: HandEngine, requests: list[tuple[float, float, float]]) -> tuple[list[One], int]:
    """All requests through one engine, an iteration at a time, every sum made anew; and how many were thrown out."""
    times, plan = engine.times, engine.plan
    token_bytes = [(layer.token_bytes, layer.window) for layer in times.layers]
    capacity, pad = engine.memory.cache_bytes, sum(size for size, _ in token_bytes) * 8 + engine.memory.sequence_bytes
    everybody = [One(number, *request) for number, request in enumerate(requests)]
    coming, waiting, prompts, decoding = list(everybody), [], [], []
    now, thrown = 0.0, 0

    def held(tokens: float) -> float:
        return pad + sum(size * min(tokens, window or np.inf) for size, window in token_bytes)

    def in_use() -> float:
        return sum(held(one.context) for one in (*prompts, *decoding))

    def next_growth() -> float:
        return sum(size for one in decoding for size, window in token_bytes if one.context < (window or np.inf))

    while coming or waiting or prompts or decoding:
        while coming and coming[0].arrival_s <= now + 1e-12:
            waiting.append(coming.pop(0))
        if not (waiting or prompts or decoding):
            now = coming[0].arrival_s
            continue
        budget = plan.max_batched_tokens - sum(one.context - one.done for one in prompts)
        while waiting and budget > 0 and len(prompts) + len(decoding) < plan.max_sequences:
            if (prompts or decoding) and in_use() + held(waiting[0].context) > 0.99 * capacity:
                break
            one = waiting.pop(0)
            one.done = 0.0
            prompts.append(one)
            budget -= one.context
        while len(prompts) + len(decoding) > 1 and in_use() + next_growth() > capacity:
            one = (prompts or decoding).pop()
            thrown += 1
            waiting.insert(0, one)
        room, chunk, attending, ended = plan.max_batched_tokens - len(decoding), 0.0, 0.0, []
        for one in prompts:
            take = min(one.context - one.done, room - chunk)
            if take <= 0:
                break
            attending += sum(layer.pair_s * float(layer.pairs(np.array(take), one.done)) for layer in times.layers)
            one.done += take
            chunk += take
            if one.done >= one.context:
                ended.append(one)
        spent = float(times.base_s(np.array([len(decoding) + chunk]))[0]) + attending
        for one in decoding:
            reads = sum(layer.context_s * min(one.context, layer.window or np.inf) for layer in times.layers)
            spent += times.sequence_s + reads
        now += spent
        for one in list(decoding):
            one.made += 1
            if one.made >= one.answer:
                one.finish_s = now
                decoding.remove(one)
        for one in ended:
            prompts.remove(one)
            one.made += 1
            if one.first_s is None:
                one.first_s = now
            if one.made >= one.answer:
                one.finish_s = now
            else:
                decoding.append(one)
    return everybody, thrown
