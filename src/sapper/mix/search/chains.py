"""Columns, the pieces that fleets are made of, and chains, which are columns before their layers are cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sapper.mix.plan import Pipeline, Stage
from sapper.mix.search.segments import Kind

UNLIMITED = 1 << 40
"""Micro-batches: as many as the time allows."""


@dataclass(frozen=True)
class Column:
    """One copy of a pipeline, its number of micro-batches left open."""

    kinds: tuple[Kind, ...]
    cuts: tuple[int, ...]
    """First layer of each stage, and L."""
    micro_batch: int
    paces_s: tuple[float, ...]
    """Each further micro-batch, by stage: :attr:`sapper.mix.objective.StageScore.pace_s`."""
    fill_s: float
    """The first micro-batch through all stages and back."""
    limit: int
    """Micro-batches at most: more would not fit in memory."""

    def time_s(self, count: int) -> float:
        """All of ``count`` micro-batches."""
        return self.fill_s + max((-(-count // replicas) - 1) * pace for replicas, pace in self.turns_s)

    def most(self, time_s: float) -> int:
        """Micro-batches in ``time_s``."""
        left = time_s - self.fill_s
        if left < 0.0:
            return 0
        return min(self.limit, *(replicas * (1 + int(left / pace + 1e-9)) for replicas, pace in self.turns_s))

    @cached_property
    def taken(self) -> tuple[tuple[str, int], ...]:
        """Groups, with the chips that one copy takes of each."""
        found: dict[str, int] = {}
        for kind in self.kinds:
            found[kind.group] = found.get(kind.group, 0) + kind.chips
        return tuple(found.items())

    @cached_property
    def turns_s(self) -> tuple[tuple[int, float], ...]:
        """Numbers of replicas, with the pace of the slowest stage that has so many."""
        found: dict[int, float] = {}
        for kind, pace in zip(self.kinds, self.paces_s, strict=True):
            found[kind.replicas] = max(found.get(kind.replicas, 0.0), pace)
        return tuple(found.items())

    def chips(self, group: str) -> int:
        """That one copy takes of ``group``."""
        return dict(self.taken).get(group, 0)

    def pipeline(self, *, micro_batches: int, copies: int) -> Pipeline:
        """The column at work."""
        stages = tuple(
            Stage(group=kind.group, first=first, last=last, tp=kind.tp, replicas=kind.replicas, zero=kind.zero, recompute=kind.recompute)
            for kind, first, last in zip(self.kinds, self.cuts, self.cuts[1:], strict=False)
        )
        return Pipeline(stages=stages, micro_batch=self.micro_batch, micro_batches=micro_batches, copies=copies)


@dataclass(frozen=True)
class Chain:
    """A pipeline whose layers are not cut yet."""

    kinds: tuple[Kind, ...]
    micro_batch: int
    count: int
    """Micro-batches that the time is to be least for."""
    shards: tuple[int, ...]
    """Chips that share the sharded states, by stage."""
    limit: int = UNLIMITED
    """It must fit at this many micro-batches."""
