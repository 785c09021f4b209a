"""What the planner answers: the best plan, how good any plan could be, and what the other ways would give."""

from __future__ import annotations

import msgspec

from sapper.mix.objective import Score
from sapper.mix.plan import MixPlan


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the catalogue and its values."""

    code: str
    values: dict[str, str]


class Subfleet(msgspec.Struct, frozen=True, kw_only=True):
    """The best plan that uses these groups alone."""

    groups: tuple[str, ...]
    step_s: float | None
    """None: the model does not fit there."""


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A plan of another shape that lost."""

    plan: MixPlan
    step_s: float
    slower: float
    """Step time over the best plan's, minus 1."""
    reason: Reason


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps one stage from taking more."""

    pipeline: int
    stage: int
    busy: float
    """Share of the step that the stage computes."""
    filled: float
    """Share of its chip's capacity that it fills."""
    reason: Reason


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one :class:`~sapper.mix.problem.Problem`."""

    best: MixPlan | None
    """None: the model fits nowhere."""
    score: Score | None
    bound_s: float | None
    """No plan of the searched space (docs/mix-search.md) is faster by the same costs."""
    gap: float | None
    """The best plan's step time over the bound, minus 1: it is within this share of the best possible."""
    subfleets: tuple[Subfleet, ...] = ()
    """Sets of groups, the single ones first; sets that the bound rules out are left out."""
    gain: float | None = None
    """Speed over the best plan on a single group, minus 1; 0: better not to mix; None: no single group holds the model."""
    verdict: Reason | None = None
    """Whether to mix, and why."""
    runners: tuple[Runner, ...] = ()
    binds: tuple[Binding, ...] = ()
    idle: tuple[Reason, ...] = ()
    """Why chips are left out, by group."""
    plans: int = 0
    """Plans priced whole."""
    columns: int = 0
    """Pipelines that whole plans were made of."""
    elapsed_s: float = 0.0
    why_none: tuple[Reason, ...] = ()
    """What is missing, by group, where nothing fits."""

    @property
    def alone_s(self) -> dict[str, float | None]:
        """Step time of the best plan on each group alone."""
        return {one.groups[0]: one.step_s for one in self.subfleets if len(one.groups) == 1}
