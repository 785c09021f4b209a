"""Requests: what a stream asks for, and what became of each request."""

from __future__ import annotations

import numpy as np

from sapper.predict.arrays import Floats


class Requests:
    """A stream of requests as columns. Plain lists, since the simulation reads and writes single entries."""

    __slots__ = ("arrival_s", "context", "finish_s", "first_s", "input_tokens", "output_tokens", "preempted", "remaining")

    def __init__(self, arrival_s: Floats, input_tokens: Floats, output_tokens: Floats) -> None:
        self.arrival_s: list[float] = arrival_s.tolist()
        self.input_tokens: list[float] = input_tokens.tolist()
        self.output_tokens: list[float] = output_tokens.tolist()
        count = len(self.arrival_s)
        self.first_s = [-1.0] * count
        """When the first token came; negative: not yet."""
        self.finish_s = [-1.0] * count
        self.context: list[float] = list(self.input_tokens)
        """Tokens that the cache must hold before the request can decode."""
        self.remaining: list[float] = list(self.output_tokens)
        """Output tokens still to come."""
        self.preempted = 0

    def __len__(self) -> int:
        return len(self.arrival_s)

    def column(self, name: str) -> Floats:
        """A column as an array."""
        return np.asarray(getattr(self, name), float)
