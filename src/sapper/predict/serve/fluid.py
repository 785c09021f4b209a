"""The steady state without chance: what a batch of a given size sustains. It prunes searches, and tells a simulation how long to run.

While ``n`` requests decode, each iteration ends ``n * kept / (answer - 1)`` of them, ``kept`` tokens being those that a request gains;
as many prompts must be computed beside it. Little's law gives the rate that the batch belongs to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sapper.predict.serve.clock import Clock
from sapper.predict.serve.replica import HEADROOM


@dataclass(frozen=True, kw_only=True)
class Steady:
    """One attention rank with a constant batch."""

    sequences: float
    """Decoding together."""
    iteration_s: float
    rate_per_s: float
    """Requests that begin and end each second."""
    tpot_s: float
    ttft_s: float
    """Without queueing: half an iteration's wait, then the prompt's own chunks."""


def most_sequences(clock: Clock, *, prompt: float, answer: float, prompts: bool = True) -> float:
    """Requests that can decode together for ever: bound by the engine, by the cache, or by how many prompts fit beside them."""
    held = clock.held_bytes(prompt + answer / 2.0)
    fits = clock.capacity_bytes * (1.0 - HEADROOM) / held if held > 0 else math.inf
    most = min(float(clock.sequences), fits)
    decoded = answer - 1.0
    if prompts and decoded > 0:
        # an iteration has room for budget - n rows prompt tokens and needs n kept prompt / decoded
        per_sequence = clock.grow * prompt / decoded + clock.rows
        most = min(most, max(1.0, clock.budget / per_sequence))
    return most


def steady(clock: Clock, *, sequences: float, prompt: float, answer: float, prompts: bool = True) -> Steady:
    """The steady state of ``sequences`` decoding requests; ``prompts`` False where others compute the prompts."""
    decoded = answer - 1.0
    if decoded <= 0.0:
        return _prompts_alone(clock, prompt)
    begun = sequences * clock.grow / decoded
    whole = math.ceil(sequences)
    decode_s = clock.decode_s(whole, sequences * reading_s(clock, prompt=prompt, answer=answer))
    if not prompts:
        return Steady(
            sequences=sequences, iteration_s=decode_s, rate_per_s=begun / decode_s, tpot_s=decode_s / clock.grow, ttft_s=decode_s / 2
        )
    room = max(1.0, float(clock.budget - whole * clock.rows))
    chunks = math.ceil(prompt / room)
    busy = min(1.0, begun * chunks)
    """Share of the iterations that compute prompts."""
    tokens = min(room, max(prompt / chunks, begun * prompt))
    prompt_s = clock.prompt_s(whole, tokens=max(1, round(tokens)), attending_s=_attending_s(clock, prompt, tokens))
    mean_s = decode_s + busy * prompt_s
    return Steady(
        sequences=sequences,
        iteration_s=mean_s,
        rate_per_s=begun / mean_s,
        tpot_s=mean_s / clock.grow,
        ttft_s=clock.request_s + mean_s / 2 + chunks * (decode_s + prompt_s),
    )


def _prompts_alone(clock: Clock, prompt: float) -> Steady:
    """Nothing but prompts: classification, embeddings, a prefill worker. Prompts that fit share an iteration."""
    chunks = math.ceil(prompt / clock.budget)
    together = max(1, int(clock.budget // prompt)) if chunks == 1 else 1
    tokens = prompt * together / chunks
    spent = chunks * clock.prompt_s(0, tokens=max(1, round(tokens)), attending_s=_attending_s(clock, prompt, tokens))
    chunk = prompt / chunks
    alone = chunks * clock.prompt_s(0, tokens=max(1, round(chunk)), attending_s=_attending_s(clock, prompt, chunk))
    return Steady(sequences=0.0, iteration_s=spent, rate_per_s=together / spent, tpot_s=0.0, ttft_s=clock.request_s + alone)


def _attending_s(clock: Clock, prompt: float, tokens: float) -> float:
    """What the attention of ``tokens`` takes that are spread evenly over prompts of length ``prompt``."""
    return clock.attending_s(prompt, 0.0) * tokens / prompt


def prefill_only(clock: Clock, *, prompt: float) -> Steady:
    """One rank of a prefill worker with prompts always at hand."""
    return _prompts_alone(clock, prompt)


def capacity_per_s(clock: Clock, *, prompt: float, answer: float, prompts: bool = True) -> float:
    """The highest rate of requests that one replica, all its ranks together, sustains."""
    most = most_sequences(clock, prompt=prompt, answer=answer, prompts=prompts)
    if answer <= 1.0:
        return _prompts_alone(clock, prompt).rate_per_s * clock.ranks
    sizes = [most * share for share in (0.125, 0.25, 0.5, 0.75, 1.0)]
    best = max(steady(clock, sequences=size, prompt=prompt, answer=answer, prompts=prompts).rate_per_s for size in sizes)
    return best * clock.ranks


def in_flight(clock: Clock, *, rate_per_s: float, prompt: float, answer: float, prompts: bool = True) -> float:
    """Requests that decode together on one rank at its ``rate_per_s``; the most possible where the rate is beyond capacity."""
    low, high = 0.0, most_sequences(clock, prompt=prompt, answer=answer, prompts=prompts)
    if answer <= 1.0:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if steady(clock, sequences=max(middle, 1e-3), prompt=prompt, answer=answer, prompts=prompts).rate_per_s < rate_per_s:
            low = middle
        else:
            high = middle
    return high


def reading_s(clock: Clock, *, prompt: float, answer: float) -> float:
    """What one request's context costs an iteration, in the mean over its answer."""
    return sum(
        cost * _mean_read(prompt, prompt + max(answer - 1.0, 0.0), window)
        for cost, window in zip(clock.context_s, clock.windows, strict=True)
    )


def _mean_read(start: float, end: float, window: float) -> float:
    """Mean of min(context, window) while the context grows from ``start`` to ``end``."""
    if window <= start:
        return window
    if window >= end:
        return (start + end) / 2
    return ((window - start) * (start + window) / 2 + (end - window) * window) / (end - start)
