"""The step size of each step, and the factor that keeps fp16 gradients in range; all ranks compute the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Rates:
    """A step size that rises linearly for ``warmup`` steps and then stays, or falls to ``least`` of it by step ``total``."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    total: int = 0
    """Steps until it has fallen; 0: it stays."""
    least: float = 0.0
    """Share of the greatest that is left at the end."""

    def share(self, step: int) -> float:
        """Share of the greatest step size in ``step``, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "constant" or self.total <= self.warmup:
            return 1.0
        passed = min(1.0, (step - self.warmup) / (self.total - self.warmup))
        left = 1.0 - passed if self.kind == "linear" else (1.0 + math.cos(math.pi * passed)) / 2.0
        return self.least + (1.0 - self.least) * left


class LossScale:
    """Factor of the loss (arXiv:1710.03740, section 3.2): halved where a gradient overflows, doubled after many that did not.

    A step whose gradients overflow changes no weight. Whether they did shows in their norm, which all ranks have.
    """

    GROWS_AFTER = 2000

    def __init__(self, *, used: bool) -> None:
        self.value = 2.0**16 if used else 1.0
        self.used = used
        self._fine = 0

    @property
    def state(self) -> tuple[float, int]:
        """The factor and the steps since it changed; whoever goes on with a run sets both."""
        return self.value, self._fine

    @state.setter
    def state(self, state: tuple[float, int]) -> None:
        self.value, self._fine = state

    def saw(self, norm: float) -> bool:
        """Take account of the norm of a step's gradients; returns whether the step counts."""
        if not self.used:
            return True
        if not math.isfinite(norm):
            self.value, self._fine = max(1.0, self.value / 2.0), 0
            return False
        self._fine += 1
        if self._fine == self.GROWS_AFTER:
            self.value, self._fine = self.value * 2.0, 0
        return True
