"""Load: what a batch or a stream of requests makes of the terms of single iterations, in the mean.

Each function returns a :class:`Load`: bundles (see :mod:`sapper.predict.serve.terms`) of the times that a request meets. All
figures are of one attention rank. The closed forms replace the event simulation where many thousand questions are asked:

* static: one batch enters at once, its prompts in iterations of at most ``max_batched_tokens``, then ``output - 1`` steps.
  Where the cache cannot hold the batch, it runs in waves.
* closed: ``concurrency`` requests are always under way (continuous batching, Orca, OSDI 2022). Of them those that decode share
  each iteration with a slice of the prompts of those that enter: in the steady state as many enter as leave, so that each
  iteration of b decoding requests carries b/(output-1) prompts (chunked prefill, arXiv:2403.02310, section 4). Prompts queue for
  the engine as customers of a closed network of one server and one delay do (mean value analysis, Reiser and Lavenberg 1980,
  doi:10.1145/322186.322195, with Schweitzer's approximation).
* disaggregated (:mod:`sapper.predict.serve.separate`): prompts are read on workers of their own.
* saturated: the queue is never empty; the batch is what memory or the engine's limit allows.

Fixed points are solved at given factors of the terms, then the bundles are kept: a time is linear in them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.serve.plan import Admission, ServePlan
from sapper.predict.serve.step import ServeMemory
from sapper.predict.serve.terms import PLACE, Iteration, zeros

CONTEXT_POINTS = 9
"""Contexts at which a generation is sampled; between them its cost is straight (but for the kink of a window)."""
ROUNDS = 40
BURST_WAVES = 10.0
"""Requests of a closed-loop benchmark over its concurrency, where unstated (``num_prompts = 10 * concurrency`` is the convention of
the InferenceX and vLLM serving scripts): the first wave enters at once."""


AT_ONCE = Admission()


@dataclass(frozen=True)
class Load:
    """What one request meets; bundles of K."""

    ttft: Floats
    """From arrival to the first token without queueing."""
    queue: Floats
    """Queueing before the first token in the steady state, at one unit of the constant of that name."""
    burst: Floats
    """The same because all requests of a benchmark start at once."""
    tpot: Floats
    """Between two tokens."""
    sequences: float
    """Decoding together on one attention rank."""
    rate: Floats
    """Engine time of one request: its share of all iterations."""


def context_mean(iteration: Iteration, *, sequences: float, input_len: float, output_len: float) -> Floats:
    """K: the mean decode iteration while ``output_len`` tokens are generated after ``input_len``."""
    steps = max(output_len - 1.0, 0.0)
    contexts = input_len + np.linspace(0.5, max(steps - 0.5, 0.5), CONTEXT_POINTS)
    weight = np.ones(CONTEXT_POINTS)
    weight[[0, -1]] = 0.5
    return np.asarray(iteration.decode(np.full(CONTEXT_POINTS, sequences), contexts) @ (weight / weight.sum()), float)


def prompt_pass(iteration: Iteration, *, tokens: float, requests: float, most_tokens: float) -> Floats:
    """K: reading ``requests`` prompts of ``tokens``, in as many iterations as ``most_tokens`` allows."""
    total = tokens * requests
    count = max(1.0, np.ceil(total / max(most_tokens, 1.0)))
    whole = iteration.prompt(np.array(tokens), requests=np.array(requests))
    if count == 1.0:
        return whole
    base_once = iteration.at(np.array(total))
    return np.asarray(whole - base_once + count * iteration.at(np.array(total / count)), float)


def fitting_sequences(iteration: Iteration, memory: ServeMemory, *, tokens: float) -> float:
    """Requests of ``tokens`` cached tokens that a chip's free memory holds (paged, so without gaps); a fraction is kept. Without
    limit where not even the weights fit: whoever asks what such a replica would do asks for its speed."""
    each = memory.sequence_bytes + sum(
        size * (tokens if cache.window is None else min(tokens, cache.window))
        for cache, size in zip(iteration.caches, iteration.token_bytes, strict=True)
    )
    return memory.cache_bytes / each if each > 0 and memory.cache_bytes > 0 else np.inf


def static(iteration: Iteration, memory: ServeMemory, plan: ServePlan, *, batch: float, input_len: float, output_len: float) -> Floats:
    """K: one batch of ``batch`` sequences per attention rank from its start to its last token."""
    room = max(fitting_sequences(iteration, memory, tokens=input_len + output_len), 1.0)
    together = min(batch, room)
    prompts = prompt_pass(iteration, tokens=input_len, requests=together, most_tokens=plan.max_batched_tokens)
    steps = max(output_len - 1.0, 0.0)
    one = prompts + steps * context_mean(iteration, sequences=together, input_len=input_len, output_len=output_len)
    one = one * (batch / together)
    one[PLACE["prompt_s"]] += 1.0
    one[PLACE["token_s"]] += input_len
    return np.asarray(one, float)


def closed(
    iteration: Iteration, memory: ServeMemory, factor: Floats, *, plan: ServePlan, concurrency: float, input_len: float, output_len: float,
    waves: float = BURST_WAVES, admission: Admission = AT_ONCE,
) -> Load:
    """The steady state of ``concurrency`` requests per attention rank that are always under way."""
    steps = max(output_len - 1.0, 1.0)
    room = max(fitting_sequences(iteration, memory, tokens=input_len + output_len / 2.0), 1.0)
    inside = min(concurrency, room, float(plan.max_sequences))
    decoding, ahead, held = inside, 0.0, 0.0
    mixed = _mixed(iteration, plan=plan, decoding=decoding, input_len=input_len, output_len=output_len)
    for _ in range(ROUNDS):
        own_s, each_s, tpot_s = (float(factor @ bundle) for bundle in (mixed.own, mixed.each, mixed.tpot))
        ahead = prompts_ahead(inside, prompt_s=each_s, delay_s=steps * tpot_s)
        arrivals = plan.attention_dp * decoding * iteration.accepted / steps
        held = admission.held(arrivals, ranks=plan.attention_dp, prompt=input_len) * iteration.accepted
        after = inside * steps * tpot_s / ((steps + held) * tpot_s + own_s + ahead * each_s)
        after = max(after, min(1.0, inside))
        if abs(after - decoding) < 5e-3 * decoding:
            break
        decoding = 0.3 * decoding + 0.7 * after
        mixed = _mixed(iteration, plan=plan, decoding=decoding, input_len=input_len, output_len=output_len)
    burst = mixed.each * (0.5 * max(inside - 1.0, 0.0) / waves)
    cycle = mixed.own + ahead * mixed.each + (steps + held) * mixed.tpot
    # whoever comes in the steady state waits for all that are ahead, those of the first wave for half of them in the mean
    blocked = max(concurrency / inside - 1.0, 0.0) * (1.0 - 0.5 / waves)
    ttft = mixed.own + 0.5 * mixed.tpot
    ttft[PLACE["prompt_s"]] += 1.0
    ttft[PLACE["token_s"]] += input_len
    ttft[PLACE["stream_s"]] += max(concurrency * plan.attention_dp - 1.0, 0.0)  # one front end for all ranks
    queue = (mixed.each * ahead + mixed.tpot * held) * (1.0 - 1.0 / waves)
    return Load(
        ttft=ttft + blocked * cycle, queue=np.asarray(queue, float), burst=np.asarray(burst, float), tpot=mixed.tpot, sequences=decoding,
        rate=np.asarray(cycle / inside, float),
    )


@dataclass(frozen=True)
class _Mixed:
    """Bundles of an engine that reads prompts beside ``decoding`` sequences."""

    own: Floats
    """From the start of a prompt to its last token: the iterations that carry its chunks."""
    each: Floats
    """Engine time that one more prompt takes."""
    tpot: Floats
    """A decode iteration with its share of prompts."""


def _mixed(iteration: Iteration, *, plan: ServePlan, decoding: float, input_len: float, output_len: float) -> _Mixed:
    steps = max(output_len - 1.0, 1.0)
    alone = context_mean(iteration, sequences=decoding, input_len=input_len, output_len=output_len)
    checked = decoding * (1.0 + iteration.drafts)
    room = max(plan.max_batched_tokens - checked, 1.0)
    count = max(1.0, np.ceil(input_len / room))
    chunk = input_len / count
    extra = count * (iteration.at(np.array(checked + chunk)) - iteration.at(np.array(checked)))
    reading = iteration.prompt(np.array(input_len)) - iteration.at(np.array(input_len)) + extra
    # a budget that holds several prompts reads them in one iteration, whose decoding they share
    whole = alone * iteration.accepted
    own = reading + count * whole
    each = reading + input_len / room * whole
    each[PLACE["token_s"]] += input_len  # one process reads the prompts of all
    return _Mixed(own=own, each=each, tpot=np.asarray(alone + decoding / steps * reading, float))


def prompts_ahead(customers: float, *, prompt_s: float, delay_s: float) -> float:
    """Prompts that a new one finds before it: Schweitzer's fixed point of a closed network of one server and one delay."""
    if customers <= 1.0:
        return 0.0
    # with q = mean queue length: q = N W / (W + Z), W = S (1 + q (N-1)/N); a quadratic in q
    s, z, n = prompt_s, delay_s, customers
    a = s * (n - 1.0) / n
    b = s + z - s * (n - 1.0)
    c = -n * s
    queue = (-b + np.sqrt(max(b * b - 4.0 * a * c, 0.0))) / (2.0 * a) if a > 0 else n * s / (s + z)
    return float(min(queue, n) * (n - 1.0) / n)


def saturated(
    iteration: Iteration, memory: ServeMemory, plan: ServePlan, *, input_len: float, output_len: float, limit: float | None = None
) -> Load:
    """An engine whose queue is never empty, decoding ``limit`` sequences per attention rank or as many as fit."""
    room = max(fitting_sequences(iteration, memory, tokens=input_len + output_len / 2.0), 1.0)
    decoding = min(room, float(plan.max_sequences) if limit is None else limit)
    mixed = _mixed(iteration, plan=plan, decoding=decoding, input_len=input_len, output_len=output_len)
    rate = max(output_len - 1.0, 1.0) * mixed.tpot / decoding
    rate[PLACE["sequence_s"]] += 1.0
    return Load(ttft=mixed.own, queue=zeros(), burst=zeros(), tpot=mixed.tpot, sequences=decoding, rate=np.asarray(rate, float))
