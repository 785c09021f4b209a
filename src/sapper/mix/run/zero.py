"""ZeRO 1: the chips of one group that hold the same shard of the same layers share the optimizer's work and states among them.

Each weight has one owner, who alone keeps its optimizer states, takes its step and gives the result to the others
(arXiv:1910.02054, section 5.1, by whole weights instead of equal slices). Owners may hold unequal parts; a state that belongs to a
weight is in one place under the weight's name, so that checkpoints need not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from sapper.errors import BadPlan
from sapper.mix.plan import MixPlan, Seat, seats
from sapper.mix.run.exchange import Group, hand_on


def alike(plan: MixPlan, rank: int) -> tuple[int, ...]:
    """Ranks that share optimizer states with ``rank``: same group, layers and shard, and planned so; else it alone."""
    taken = seats(plan)

    def key(seat: Seat) -> tuple[object, ...]:
        stage = plan.pipelines[seat.pipeline].stages[seat.stage]
        return stage.zero >= 1, stage.group, stage.first, stage.last, stage.tp, seat.shard

    own = key(taken[rank])
    return tuple(seat.rank for seat in taken if key(seat) == own) if own[0] else (rank,)


def refuse_beyond(plan: MixPlan, *, where: str) -> None:
    """Refuse what is planned but not run: cut gradients and weights, which would not fit where the plan says they do.

    Raises:
        BadPlan: A stage with ZeRO 2 or 3.
    """
    for p, pipeline in enumerate(plan.pipelines):
        for s, stage in enumerate(pipeline.stages):
            if stage.zero > 1:
                raise BadPlan("SP-MIX-168", where=f"{where} pipelines[{p}].stages[{s}]", zero=stage.zero)


def owners(sizes: Mapping[str, int], members: Sequence[int], *, weights: Sequence[float] | None = None) -> dict[str, int]:
    """Weight -> the rank that owns it: the largest first, each to whom it leaves least full.

    Args:
        sizes: Elements of each weight, in an order that all members share.
        members: Ranks.
        weights: Room of each member; None: as even as whole weights allow.
    """
    room = dict(zip(members, weights or [1.0] * len(members), strict=True))
    filled = dict.fromkeys(members, 0)
    found: dict[str, int] = {}
    for name in sorted(sizes, key=lambda one: -sizes[one]):
        owner = min(members, key=lambda one: (filled[one] + sizes[name]) / room[one])
        found[name] = owner
        filled[owner] += sizes[name]
    return found


class Shared:
    """The weights of a stage, each with its owner.

    Args:
        masters: By name: what the optimizer steps.
        members: The ranks that share them; see :func:`alike`.
        rank: Own rank.
        group: Of the members, in their order; None where there is only one.
        weights: Room of each member.
    """

    def __init__(
        self, masters: Mapping[str, torch.Tensor], *, members: Sequence[int], rank: int, group: Group | None,
        weights: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self._members, self._group = members, group
        self._owned: dict[int, list[torch.Tensor]] = {one: [] for one in members}
        owner = owners({name: one.numel() for name, one in masters.items()}, members, weights=weights)
        for name, one in masters.items():
            self._owned[owner[name]].append(one)
        self.own = self._owned[rank]
        """What this rank's optimizer steps."""

    @torch.no_grad()
    def spread(self) -> None:
        """Give each weight, after its owner's step, to the others."""
        if self._group is None:
            return
        for place, member in enumerate(self._members):
            hand_on(self._owned[member], self._group, root=place)
