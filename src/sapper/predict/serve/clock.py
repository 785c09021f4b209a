"""Clock: the time of an iteration as table look-ups and a few multiplications, for loops in plain Python."""

from __future__ import annotations

import math

import numpy as np

from sapper.predict.serve.speculate import Speculation
from sapper.predict.serve.step import Engine

BLOCK_TOKENS = 16
"""Tokens of a page of the cache (vLLM's default, arXiv:2309.06180, section 4.1); the last page of a request is half empty in the mean."""
_TABLE_ROWS = 2**18
"""Rows of the largest table; an iteration beyond it is priced by the formula."""


class Clock:
    """Iteration times and cache bytes of one attention rank of a replica, at one pair of factors on its efficiencies.

    Each rank is a loop of its own with its own requests; what the experts take beside it is priced as if the other ranks were as
    full (:class:`StepTimes`), which in the mean they are.
    """

    __slots__ = (
        "_decode_scale",
        "_times",
        "budget",
        "capacity_bytes",
        "context_s",
        "grow",
        "pad_bytes",
        "pairs_s",
        "prefill_factor",
        "ranks",
        "request_s",
        "rows",
        "rows_s",
        "sequence_s",
        "sequences",
        "token_bytes",
        "windows",
    )

    def __init__(
        self, engine: Engine, *, decode_factor: float = 1.0, prefill_factor: float = 1.0, speculation: Speculation | None = None
    ) -> None:
        plan, times, memory = engine.plan, engine.times, engine.memory
        self.ranks = plan.attention_dp
        """Ranks of the replica, of which this is one."""
        self.sequences = plan.max_sequences
        """Requests that may run together."""
        self.budget = plan.max_batched_tokens
        """Tokens of one iteration."""
        self.rows = speculation.rows if speculation else 1
        """New tokens that are computed for one decoding request."""
        self.grow = speculation.tokens_per_iteration if speculation else 1.0
        """New tokens that one decoding request keeps."""
        self._decode_scale = decode_factor * (speculation.slowdown if speculation else 1.0)
        self.prefill_factor = prefill_factor
        self._times = times
        most = max(self.budget, plan.max_sequences * self.rows)
        grid = np.arange(min(most, _TABLE_ROWS) + 1, dtype=float)
        self.rows_s: list[float] = times.base_s(grid).tolist()
        self.rows_s[0] = 0.0
        self.sequence_s = times.sequence_s
        self.pairs_s = [(layer.pair_s, math.inf if layer.window is None else float(layer.window)) for layer in times.layers if layer.pair_s]
        self.request_s = times.request_s * prefill_factor
        """Before a request is in the queue."""
        self.windows = [math.inf if layer.window is None else float(layer.window) for layer in times.layers]
        self.context_s = [layer.context_s for layer in times.layers]
        self.token_bytes = [layer.token_bytes for layer in times.layers]
        self.pad_bytes = sum(self.token_bytes) * BLOCK_TOKENS / 2 + memory.sequence_bytes
        """Bytes that a request holds beside those of its tokens: half a page, and the state of recurrent layers."""
        self.capacity_bytes = memory.cache_bytes

    def base_s(self, tokens: int) -> float:
        """Seconds of what depends on an iteration's new tokens alone."""
        if tokens < len(self.rows_s):
            return self.rows_s[tokens]
        return float(self._times.base_s(np.array([float(tokens)]))[0])

    def decode_s(self, sequences: int, reading_s: float) -> float:
        """Seconds of an iteration in which ``sequences`` decode; ``reading_s`` is the sum over them of what their contexts cost."""
        if not sequences:
            return 0.0
        return (self.base_s(sequences * self.rows) + sequences * self.sequence_s + reading_s) * self._decode_scale

    def growth_s(self, reading_s: float) -> float:
        """How much longer the next iteration is when contexts grow by what costs ``reading_s``."""
        return reading_s * self._decode_scale

    def prompt_s(self, sequences: int, *, tokens: int, attending_s: float) -> float:
        """Seconds that ``tokens`` of prompts, whose attention takes ``attending_s``, add to such an iteration."""
        rows = sequences * self.rows
        return (self.base_s(rows + tokens) - self.base_s(rows) + attending_s) * self.prefill_factor

    def attending_s(self, tokens: float, past: float) -> float:
        """Seconds of the query-key pairs of ``tokens`` of a prompt that follow ``past`` computed ones (``CacheLayer.pairs``)."""
        total = 0.0
        for pair_s, window in self.pairs_s:
            ramp = min(max(window - past, 0.0), tokens)
            pairs = ramp * (past + (ramp + 1.0) / 2.0)
            total += pair_s * (pairs + (tokens - ramp) * window if ramp < tokens else pairs)
        return total

    def held_bytes(self, context: float) -> float:
        """Cache that one request of ``context`` tokens holds."""
        total = self.pad_bytes
        for size, window in zip(self.token_bytes, self.windows):  # noqa: B905  # strict costs a third of the time
            total += size * (context if context < window else window)
        return total
