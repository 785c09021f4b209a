"""ZeRO's owners: the chips of one group that hold the same shard of the same layers share states, gradients and weights among them.

Each weight has one owner, who keeps its optimizer states, takes its step and gives the result to the others (arXiv:1910.02054,
section 5, by whole weights instead of equal slices). Owners may hold unequal parts; a state that belongs to a weight is in one place
under the weight's name, so that checkpoints need not know. Who owns what follows from names and sizes alone: every rank knows it of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sapper.mix.plan import MixPlan, Seat, seats


def alike(plan: MixPlan, rank: int) -> tuple[int, ...]:
    """Ranks that share states with ``rank``: same group, layers and shard, and planned so; else it alone."""
    taken = seats(plan)

    def key(seat: Seat) -> tuple[object, ...]:
        stage = plan.pipelines[seat.pipeline].stages[seat.stage]
        return *stage.sharing, seat.shard

    own = key(taken[rank])
    return tuple(seat.rank for seat in taken if key(seat) == own) if own[0] else (rank,)


def level(plan: MixPlan, rank: int) -> int:
    """The ZeRO stage of a rank: 0 where it shares with nobody."""
    seat = seats(plan)[rank]
    return plan.pipelines[seat.pipeline].stages[seat.stage].zero if len(alike(plan, rank)) > 1 else 0


def owner_of(plan: MixPlan, rank: int, *, used: Mapping[str, frozenset[int]], sizes: Mapping[str, int]) -> dict[str, int]:
    """Weight of the stage of ``rank`` -> the rank that owns it; its own where it shares with nobody.

    Args:
        plan: The plan.
        rank: Of the seat.
        used: Weight -> layers that use it.
        sizes: Elements of each weight of the whole model, whole, so that all shards of a chip's tensor parallel group agree.
    """
    seat = seats(plan)[rank]
    layers = plan.pipelines[seat.pipeline].stages[seat.stage].layers
    held = {name: size for name, size in sizes.items() if name in used and any(layer in layers for layer in used[name])}
    return owners(held, alike(plan, rank))


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
