"""A split that follows the measured times: in the sum that ends a step all ranks hear what each took, and each decides the same."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.mix.balance import Balancer, Measured
from sapper.mix.order import order
from sapper.mix.plan import MixPlan, seats


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

    def tells(self, *, compute_s: float) -> list[float]:
        """What goes into the sum: this rank's places, and zeros where others have theirs.

        Args:
            compute_s: All passes of the step.
        """
        seat = seats(self.plan)[self._rank]
        works = order(self.plan.pipelines[seat.pipeline], seat.stage, replica=seat.replica, schedule=self.plan.schedule)
        values = [0.0] * (2 * self._size)
        values[2 * self._rank : 2 * self._rank + 2] = [compute_s / max(len(works) // 2, 1), self._update_s]
        return values

    def hears(self, told: Sequence[float], *, update_s: float) -> bool:
        """Take what the sum says of the step; whether another split follows.

        Args:
            told: The sums of what all ranks told.
            update_s: This rank's update, told with the next step.
        """
        self._update_s = update_s
        measured = {rank: Measured(pass_s=told[2 * rank], fixed_s=told[2 * rank + 1]) for rank in range(self._size)}
        return self._balancer.observe(measured) is not None
