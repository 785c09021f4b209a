"""What a run tells of each step."""

from __future__ import annotations

import msgspec


class StepLog(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one process; the loss and the norm are of the whole job."""

    step: int
    loss: float
    """Mean over all tokens that have a label."""
    tokens: float
    """These tokens."""
    gradient_norm: float
    """Before it is clipped."""
    lr: float
    """0 where an overflow of fp16 let the step change nothing."""
    step_s: float
    compute_s: float
    """Forward and backward passes of this process."""
    wait_s: float
    """For what other stages send."""
    send_s: float
    reduce_s: float
    """For sums of gradients that were not there when the last pass had ended."""
    update_s: float

    @property
    def tokens_per_s(self) -> float:
        """Of the whole job."""
        return self.tokens / self.step_s


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A run of one process."""

    rank: int
    group: str
    steps: tuple[StepLog, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """By step."""
        return tuple(one.loss for one in self.steps)
