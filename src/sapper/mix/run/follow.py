"""A split that follows the measured times: in the sum that ends a step all ranks hear what each took, and each decides the same."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.mix.balance import Balancer, Measured, parts_of
from sapper.mix.plan import MixPlan, seats

_TOLD = 3
"""Numbers of each rank: the passes in the two parts of the step, and the update before it."""


class Follower:
    """Of one rank.

    Args:
        plan: That runs now.
        rank: Own seat.
        share: A split is changed when the best one saves more than this share of a step.
    """

    def __init__(self, plan: MixPlan, *, rank: int, share: float) -> None:
        self._balancer = Balancer(plan, share=share)
        self._rank, self._size = rank, len(seats(plan))
        self._update_s = 0.0

    @property
    def plan(self) -> MixPlan:
        """That the next step takes; copies are pipelines of their own, so that each can have its own count."""
        return self._balancer.plan

    def tells(self, passes_s: Sequence[float]) -> list[float]:
        """What goes into the sum: this rank's places, and zeros where others have theirs.

        Args:
            passes_s: Of the step's micro-batches in their order.
        """
        parts = parts_of(passes_s)
        values = [0.0] * (_TOLD * self._size)
        values[_TOLD * self._rank : _TOLD * (self._rank + 1)] = [*parts, *[0.0] * (_TOLD - 1 - len(parts)), self._update_s]
        return values

    def hears(self, told: Sequence[float], *, update_s: float) -> bool:
        """Take what the sum says of the step; whether another split follows.

        Args:
            told: The sums of what all ranks told.
            update_s: This rank's update, told with the next step.
        """
        self._update_s = update_s
        measured = {}
        for rank in range(self._size):
            *parts, fixed_s = told[_TOLD * rank : _TOLD * (rank + 1)]
            measured[rank] = Measured(parts_s=tuple(one for one in parts if one > 0.0), fixed_s=fixed_s)
        return self._balancer.observe(measured) is not None
