"""Which seats hold which part of which weight, and so what is summed with whom: one rule for copies, replicas, ties and unlike shards.

A weight's gradient is the sum over all seats that use it. Where stages of unlike tensor parallel degrees hold it, it falls into spans
at the ends of all shards, each held by one shard of every stage. A weight that is whole on all shards has one gradient in a tensor
parallel group: shard 0 sums it with the others' and hands it on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.cuts import Rule


@dataclass(frozen=True)
class Span:
    """A part of a weight that all its holders hold in one piece."""

    weight: str
    members: tuple[int, ...]
    """Ranks that sum its gradient."""
    dim: int | None = None
    """Along which it is a part; None: the weight is whole."""
    start: int = 0
    """First place of what this rank has of the weight."""
    stop: int = 0

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of ``tensor``, which is as large as what this rank has of the weight; a view."""
        return tensor if self.dim is None else tensor.narrow(self.dim, self.start, self.stop - self.start)


def spans(plan: MixPlan, rank: int, *, held: Mapping[str, Sequence[int]], rules: Mapping[str, Rule]) -> dict[str, Span]:
    """What ``rank`` has of the weights that it holds, by names that are the same on all members of a span.

    Args:
        plan: The plan.
        rank: Of the seat.
        held: Weight -> ranks of the seats that use it, in an order that all ranks share.
        rules: Of the weights that are cut; those of the weights that this rank holds have to be there.
    """
    taken = seats(plan)
    degree = {seat.rank: plan.pipelines[seat.pipeline].stages[seat.stage].tp for seat in taken}
    found: dict[str, Span] = {}
    for name, holders in held.items():
        if rank not in holders:
            continue
        if name not in rules or all(degree[one] == 1 for one in holders):
            found[name] = Span(name, tuple(one for one in holders if taken[one].shard == 0))
            continue
        ranges = {one: rules[name].cut(degree[one], taken[one].shard).ranges for one in holders}
        edges = sorted({edge for own in ranges.values() for pair in own for edge in pair})
        at = 0
        for start, stop in ranges[rank]:
            inside = [edge for edge in edges if start <= edge <= stop]
            for first, last in itertools.pairwise(inside):
                members = tuple(one for one, own in ranges.items() if any(a <= first and last <= b for a, b in own))
                found[f"{name}[{first}:{last}]"] = Span(name, members, rules[name].dim, at + first - start, at + last - start)
            at += stop - start
    return found


def together(plan: MixPlan, rank: int) -> tuple[int, ...]:
    """Ranks of the tensor parallel group of ``rank``, shard 0 first."""
    taken = seats(plan)
    own = taken[rank]
    place = (own.pipeline, own.copy, own.stage, own.replica)
    return tuple(seat.rank for seat in taken if (seat.pipeline, seat.copy, seat.stage, seat.replica) == place)
