"""A split that follows the measured times: in the sum that ends a step all ranks hear what each took, and each decides the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sapper.mix.balance import Balancer, Decision, Measured, Tried, parts_of
from sapper.mix.plan import MixPlan, seats

_TOLD = 6
"""Numbers of each rank: the passes in the two parts of the step, their error and hiccups, the update before it, and what it took to take
up the layers."""


_WARM = 1
"""First steps, in which layers are not timed."""
_LEARNS = 2
"""Steps after these in which they are."""


class Follower:
    """Of one rank.

    Args:
        plan: That runs now.
        rank: Own seat.
        share: A split is changed when the best one saves more than this share of a step.
        tried: What came of earlier cuts; None: layers stay where they are.
        fits: Whether a plan fits into memory; the same answer on all ranks.
        steps: That the run still has; None: not known.
        entered_s: What it took this rank to take up its layers.
    """

    def __init__(
        self, plan: MixPlan, *, rank: int, share: float, tried: Tried | None = None,
        fits: Callable[[MixPlan], bool] = lambda plan: True, steps: int | None = None, entered_s: float = 0.0,
    ) -> None:  # fmt: skip
        deep = any(len(one.stages) > 1 for one in plan.pipelines)
        self._balancer = Balancer(plan, share=share, tried=tried if deep else None, fits=fits, steps=steps)
        self._seats = seats(self.plan)
        self._rank, self._size = rank, len(self._seats)
        self._learns_until = _WARM + _LEARNS if tried is not None and deep else 0
        self._steps = 0
        self._layers_s: list[dict[int, float]] = [{} for _ in self.plan.pipelines]
        self._update_s, self._entered_s = 0.0, entered_s

    @property
    def plan(self) -> MixPlan:
        """That the next step takes; copies are pipelines of their own, so that each can have its own count."""
        return self._balancer.plan

    @property
    def times_layers(self) -> bool:
        """Whether the step that follows times the layers of each stage."""
        return _WARM <= self._steps < self._learns_until

    def tells(self, passes_s: Sequence[float], layers_s: Mapping[int, float] | None = None) -> list[float]:
        """What goes into the sum: this rank's places, and zeros where others have theirs.

        Args:
            passes_s: Of the step's micro-batches in their order.
            layers_s: Layer of the own stage -> its forward pass, in steps that time layers.
        """
        found = parts_of(passes_s)
        first_s, last_s = (*found.parts_s, 0.0, 0.0)[:2]
        values = [0.0] * (_TOLD * self._size)
        own = [first_s, last_s, found.error, found.hiccups, self._update_s, self._entered_s]
        values[_TOLD * self._rank : _TOLD * (self._rank + 1)] = own
        return values + self._tells_layers(layers_s or {})

    def hears(self, told: Sequence[float], *, update_s: float) -> Decision | None:
        """Take what the sum says of the step; another split, where it is time for one.

        Args:
            told: The sums of what all ranks told.
            update_s: This rank's update, told with the next step.
        """
        self._update_s = update_s
        measured = {}
        for rank in range(self._size):
            *parts, error, hiccups, fixed_s, entered_s = told[_TOLD * rank : _TOLD * (rank + 1)]
            parts_s = tuple(one for one in parts if one > 0.0)
            measured[rank] = Measured(parts_s=parts_s, fixed_s=fixed_s, error=error, hiccups=hiccups, entered_s=entered_s)
        if self.times_layers:
            self._hears_layers(told[_TOLD * self._size :])
        self._steps += 1
        return self._balancer.observe(measured)

    def _tells_layers(self, layers_s: Mapping[int, float]) -> list[float]:
        """A place for each layer of each pipeline, told by one rank of its stage."""
        if not self.times_layers:
            return []
        seat, wide = self._seats[self._rank], self.plan.layers + 2
        values = [0.0] * (wide * len(self.plan.pipelines))
        if (seat.replica, seat.shard) == (0, 0):
            for layer, one_s in layers_s.items():
                values[wide * seat.pipeline + layer] = one_s
        return values

    def _hears_layers(self, told: Sequence[float]) -> None:
        wide = self.plan.layers + 2
        for at, one_s in enumerate(told):
            layers_s = self._layers_s[at // wide]
            layers_s[at % wide] = layers_s.get(at % wide, 0.0) + one_s
        if self._steps + 1 == self._learns_until:
            self._balancer.learn(self._layers_s)
