"""Separate: requests whose prompts are read on workers of their own (DistServe, arXiv:2401.09670), in the mean.

The readers are one queue with several servers (Seidmann et al. 1987: a server that is ``readers`` times as fast, and the rest of the
service as a delay) in a closed network with generation. Prompts that wait are read together, as many as the tokens of an iteration
allow. Where decode workers hold a limited number of requests, the others wait for a place before their first token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.serve.load import BURST_WAVES, ROUNDS, Load, context_mean, prompt_pass, prompts_ahead
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.terms import PLACE, Iteration, zeros


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Workers of both kinds, and what is asked of them."""

    decoder: Iteration
    """Of a decode worker."""
    reader: Iteration
    """Of a prefill worker."""
    plan: ServePlan
    """Of a prefill worker."""
    ranks: float
    """Attention ranks of all decode workers."""
    readers: float | None
    """Attention ranks of all prefill workers; None: unknown, as many workers as keep pace with generation."""
    most: float | None = None
    """Requests that an attention rank decodes together; None: without limit."""
    input_len: float
    output_len: float

    @property
    def steps(self) -> float:
        """Tokens after the first one."""
        return max(self.output_len - 1.0, 1.0)

    @property
    def fitting(self) -> float:
        """Prompts that one iteration of a reader takes."""
        return max(1.0, float(self.plan.max_batched_tokens // max(self.input_len, 1.0)))

    def reading(self, requests: float) -> Floats:
        """K: reading ``requests`` prompts together."""
        return prompt_pass(self.reader, tokens=self.input_len, requests=requests, most_tokens=self.plan.max_batched_tokens)

    def token(self, sequences: float) -> Floats:
        """K: a token of each of ``sequences`` requests on a decode rank."""
        return context_mean(self.decoder, sequences=max(sequences, 1.0), input_len=self.input_len, output_len=self.output_len)

    def pace(self, concurrency: float, factor: Floats) -> float:
        """Attention ranks of as many readers as keep pace with generation."""
        busy = concurrency * float(factor @ self.reading(1.0)) / (self.steps * float(factor @ self.token(concurrency / self.ranks)))
        return self.plan.attention_dp * max(1.0, float(np.ceil(busy / self.plan.attention_dp)))


@dataclass(frozen=True)
class _Steady:
    """Where the closed network settles."""

    decoding: float
    """Requests on a decode rank."""
    together: float
    """Prompts of one iteration of a reader."""
    ahead: float
    """Prompts that a new one finds before it."""


def disaggregated(asked: Separate, factor: Floats, *, concurrency: float, waves: float = BURST_WAVES) -> Load:
    """The steady state of ``concurrency`` requests over all workers, that are always under way.

    Args:
        asked: Workers and lengths.
        factor: Factors of the terms, at which fixed points are solved.
        concurrency: Requests under way, over all workers.
        waves: Requests of the measurement over its concurrency.
    """
    readers = asked.pace(concurrency, factor) if asked.readers is None else asked.readers
    steady = _settled(asked, factor, concurrency=concurrency, readers=readers)
    decoding, ahead, blocked = steady.decoding, steady.ahead, zeros()
    if asked.most is not None and decoding > asked.most:
        decoding, ahead = asked.most, 0.0  # decoding is what limits: prompts wait for a place there, not for a reader
        blocked = asked.token(decoding) * (asked.steps * max(concurrency / (asked.ranks * decoding) - 1.0, 0.0))
    own, tpot = asked.reading(steady.together), asked.token(decoding)
    each = own / steady.together / readers
    first = max(concurrency / readers, 1.0)
    packed = min(first, asked.fitting)
    burst = asked.reading(packed) / packed * (0.5 * (first - 1.0) / waves)
    ttft = own + blocked
    ttft[PLACE["prompt_s"]] += 1.0
    ttft[PLACE["token_s"]] += asked.input_len
    ttft[PLACE["stream_s"]] += max(concurrency - 1.0, 0.0)
    queue = each * (ahead * (1.0 - 1.0 / waves))
    rate = (own + blocked + each * ahead + asked.steps * tpot) / concurrency
    return Load(ttft=ttft, queue=np.asarray(queue, float), burst=burst, tpot=tpot, sequences=decoding, rate=np.asarray(rate, float))


def _settled(asked: Separate, factor: Floats, *, concurrency: float, readers: float) -> _Steady:
    """The fixed point of who decodes, who waits, and how many prompts are read together."""
    decoding, together, ahead = concurrency / asked.ranks, 1.0, 0.0
    for _ in range(ROUNDS):
        delay_s, own_s = asked.steps * float(factor @ asked.token(decoding)), float(factor @ asked.reading(together))
        each_s = own_s / together / readers
        ahead = prompts_ahead(concurrency, prompt_s=each_s, delay_s=delay_s + own_s - each_s)
        after = concurrency * delay_s / (delay_s + own_s + ahead * each_s) / asked.ranks
        waiting = min(max(1.0 + ahead / readers, 1.0), asked.fitting)
        if abs(after - decoding) < 5e-3 * decoding and abs(waiting - together) < 0.02 * together:
            break
        decoding, together = 0.3 * decoding + 0.7 * after, 0.5 * (together + waiting)
    return _Steady(decoding, together, ahead)
