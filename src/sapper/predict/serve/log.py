"""Log: what an engine did, iteration by iteration or run by run, as columns."""

from __future__ import annotations

import numpy as np

from sapper.predict.arrays import Floats


class Log:
    """Columns of equal length, one entry for each run of like iterations."""

    __slots__ = ("blocked", "decoding", "end_s", "held_bytes", "iterations", "prompt_s", "prompts", "spent_s")

    def __init__(self) -> None:
        self.end_s: list[float] = []
        self.spent_s: list[float] = []
        self.iterations: list[int] = []
        self.decoding: list[int] = []
        self.prompts: list[int] = []
        """Prompts that were completed: each gave a token."""
        self.prompt_s: list[float] = []
        """Part of the time that prompts added."""
        self.held_bytes: list[float] = []
        self.blocked = 0
        """How often a request had to wait because the cache was full."""

    def add(
        self, end_s: float, spent_s: float, *, iterations: int, decoding: int, prompts: int, prompt_s: float, held_bytes: float
    ) -> None:
        """One entry."""
        self.end_s.append(end_s)
        self.spent_s.append(spent_s)
        self.iterations.append(iterations)
        self.decoding.append(decoding)
        self.prompts.append(prompts)
        self.prompt_s.append(prompt_s)
        self.held_bytes.append(held_bytes)

    def column(self, name: str) -> Floats:
        """A column as an array."""
        return np.asarray(getattr(self, name), float)
