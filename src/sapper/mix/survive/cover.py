"""Who can give the state of a layer: the pieces of it that members have, cut by tensor parallelism and shared by ZeRO, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.owners import alike
from sapper.mix.survive.member import Held

Givers = tuple[tuple[int, Held], ...]
"""Members, each with what it gives from; together they have all that is asked for."""
_Family = tuple[int, ...]
"""Pieces that fit together: cut by one tensor degree and, where ZeRO shares them, owned by the rule of one range of layers."""


def part_of(plan: MixPlan, rank: int, *, step: int) -> Held:
    """What the seat of ``rank`` answers for after ``step`` steps."""
    seat, mates = seats(plan)[rank], alike(plan, rank)
    stage = plan.pipelines[seat.pipeline].stages[seat.stage]
    return Held(
        step=step, first=stage.first, last=stage.last, tp=stage.tp, shard=seat.shard, shares=len(mates), share=mates.index(rank)
    )  # fmt: skip


def givers(layer: int, wanted: Held, held: Mapping[int, Sequence[Held]], *, prefer: Sequence[int] = ()) -> Givers | None:
    """Members that together have the state of ``layer`` as the seat of ``wanted`` needs it; None: it cannot be put together.

    A seat that keeps its tensor degree needs its own shard alone, one of another degree all of them; of the shares always all, since
    each shares anew.

    Args:
        layer: The layer.
        wanted: Says step, tensor degree and shard.
        held: Member -> what it has.
        prefer: Members to take where there is a choice, the best first.
    """
    families: dict[_Family, dict[tuple[int, int], list[tuple[int, Held]]]] = {}
    for number, parts in held.items():
        for one in parts:
            if one.step == wanted.step and one.first <= layer < one.last:
                family = (one.tp, one.shares, one.first, one.last) if one.shares > 1 else (one.tp, 1)
                families.setdefault(family, {}).setdefault((one.shard, one.share), []).append((number, one))
    rank = {number: at for at, number in enumerate(prefer)}
    found: list[tuple[int, int, Givers]] = []
    for (tp, shares, *_), pieces in families.items():
        shards = [wanted.shard] if tp == wanted.tp else range(tp)
        places = [(shard, share) for shard in shards for share in range(shares)]
        if all(place in pieces for place in places):
            chosen = tuple(min(pieces[place], key=lambda one: (rank.get(one[0], len(rank)), one[0])) for place in places)
            found.append((sum(number not in prefer[:1] for number, _ in chosen), len(chosen), chosen))
    return min(found, key=lambda one: one[:2])[2] if found else None


def wanted_by(plan: MixPlan, *, step: int) -> Iterator[tuple[int, Held]]:
    """(layer, what a seat needs of it) of all seats, each once."""
    parts = {(part.tp, part.shard, part.first, part.last): part for part in (part_of(plan, seat.rank, step=step) for seat in seats(plan))}
    for part in parts.values():
        for layer in range(part.first, part.last):
            yield layer, part


def newest(held: Mapping[int, Sequence[Held]], *, plan: MixPlan) -> int | None:
    """The latest step whose state of all that ``plan`` needs is in the members' memory; None: there is none."""
    for step in sorted({one.step for parts in held.values() for one in parts}, reverse=True):
        if all(givers(layer, part, held) is not None for layer, part in wanted_by(plan, step=step)):
            return step
    return None
