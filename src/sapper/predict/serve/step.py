"""What pricing hands to the simulator: the time of one engine iteration, and the memory of a replica.

An iteration of a continuous-batching engine (Orca, OSDI 2022, section 4; chunked prefill, arXiv:2403.02310) mixes ``decode``
sequences, each with one new token that reads its whole cached context, with ``chunk`` new prompt tokens. Its time is

    seconds = rows_s(decode + chunk) + sequence_s * decode + sum over layer types of (context_s * tokens read by decode)
              + sum over layer types of (pair_s * query-key pairs of the chunk)

so that an event simulation needs a table and a few multiplications, never a roofline. All figures are of one attention rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.estimate import Coverage, Used
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan


@dataclass(frozen=True, kw_only=True)
class CacheLayer:
    """All layers of one cache type on the fullest chip of a replica.

    ``window``: tokens that stay readable; None keeps all. Recurrent layers have no per-token cache: their state is in
    :attr:`ServeMemory.sequence_bytes`.
    """

    window: int | None
    context_s: float
    """Seconds that one decoding sequence adds to an iteration for each cached token that it reads in these layers."""
    token_bytes: float
    """Cache bytes of one token on one chip."""
    pair_s: float = 0.0
    """Seconds of each query-key pair of a prompt chunk in these layers."""

    def read_tokens(self, context: Floats) -> Floats:
        """Cached tokens that a sequence of ``context`` tokens reads."""
        return context if self.window is None else np.minimum(context, float(self.window))

    def pairs(self, tokens: Floats, past: Floats | float = 0.0) -> Floats:
        """Query-key pairs of ``tokens`` prompt tokens that follow ``past`` cached ones: each sees all before it and itself, at
        most ``window``."""
        start, length = np.asarray(past, float), np.asarray(tokens, float)
        if self.window is None:
            return np.asarray(length * (start + (length + 1.0) / 2.0), float)
        ramp = np.clip(self.window - start, 0.0, length)
        return np.asarray(ramp * (start + (ramp + 1.0) / 2.0) + (length - ramp) * self.window, float)


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Time of an iteration at one set of efficiencies."""

    rows: Floats
    """Grid of new tokens of an iteration on one attention rank, ascending from 1; length R."""
    rows_s: Floats
    """Seconds of everything that depends on the number of new tokens alone: linear layers, experts, norms, communication,
    launches, the engine's fixed time. Length R."""
    sequence_s: float
    """Seconds for each decoding sequence: sampling, detokenisation, scheduling."""
    layers: tuple[CacheLayer, ...]
    request_s: float = 0.0
    """Seconds of a request outside the engine's loop, before its prompt is queued: receiving it, tokenisation."""
    stream_s: float = 0.0
    """Seconds that each other request under way holds up what a replica's front end takes in or hands out."""

    def base_s(self, tokens: Floats) -> Floats:
        """Linear interpolation of ``rows_s``; beyond the grid proportional to the last point."""
        inside = np.interp(tokens, self.rows, self.rows_s)
        return np.asarray(np.where(tokens > self.rows[-1], self.rows_s[-1] * tokens / self.rows[-1], inside), float)

    def decode_s(self, sequences: Floats, context: Floats) -> Floats:
        """Seconds of an iteration of ``sequences`` decoding requests, each of ``context`` cached tokens."""
        reading = sum((layer.context_s * layer.read_tokens(context) for layer in self.layers), np.zeros(np.shape(context)))
        return np.asarray(self.base_s(sequences) + sequences * (self.sequence_s + reading), float)

    def prefill_s(self, tokens: Floats, past: Floats | float = 0.0) -> Floats:
        """Seconds of an iteration of ``tokens`` prompt tokens of one request that follow ``past`` cached ones."""
        reading = sum((layer.pair_s * layer.pairs(tokens, past) for layer in self.layers), np.zeros(np.shape(tokens)))
        return np.asarray(self.base_s(tokens) + reading, float)

    @property
    def pair_s(self) -> float:
        """Seconds for each query-key pair of a prompt chunk in the layers that attend to all; where every layer has a window,
        in all of them."""
        whole = sum(layer.pair_s for layer in self.layers if layer.window is None)
        return whole or sum(layer.pair_s for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class ServeMemory:
    """Memory of the fullest chip of a replica, in bytes."""

    weights_bytes: float
    workspace_bytes: float
    """Driver context, activations of the largest iteration, captured graphs, collective buffers."""
    sequence_bytes: float
    """State of one request apart from the cache of its tokens (recurrent layers)."""
    capacity_bytes: float
    """What a program can have of the chip."""

    @property
    def cache_bytes(self) -> float:
        """What is left for the cache; negative where the model does not fit."""
        return self.capacity_bytes - self.weights_bytes - self.workspace_bytes


class Engine(Protocol):
    """One replica of a job, priced on a chip: what the simulator and the searches use."""

    @property
    def job(self) -> ServeJob:
        """What is served."""

    @property
    def plan(self) -> ServePlan:
        """How the replica is cut."""

    @property
    def memory(self) -> ServeMemory:
        """Of its fullest chip."""

    @property
    def times(self) -> StepTimes:
        """At the most likely efficiencies."""

    @property
    def decode_sd(self) -> float:
        """Standard deviation of the log of an iteration's time, decoding."""

    @property
    def prefill_sd(self) -> float:
        """The same for prompts."""

    @property
    def used(self) -> tuple[Used, ...]:
        """Every constant with its evidence."""

    @property
    def coverage(self) -> Coverage:
        """What was priced and what was not."""
