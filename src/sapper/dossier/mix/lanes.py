"""Lanes of a timeline: seats that do the same at the same time are one line of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sapper.mix.plan import MixPlan, seats

MOST_LANES = 72
"""Beyond it a picture is no longer read; of stages with many replicas the first ones are shown then."""


class Happening(Protocol):
    """One piece of work of one seat, as the simulated clock and the run's records have it."""

    @property
    def seat_rank(self) -> int:
        """Whose."""

    @property
    def kind(self) -> str:
        """``forward``, ``backward``, ``send``, ``reduce``, ``update``."""

    @property
    def micro_batch(self) -> int:
        """-1 for what is done once a step."""

    @property
    def start_s(self) -> float:
        """From the beginning of the step."""

    @property
    def end_s(self) -> float:
        """From the beginning of the step."""


@dataclass(frozen=True)
class Lane:
    """One line: a replica of a stage, for all copies of its pipeline and all shards of its tensor parallel group."""

    pipeline: int
    copies: int
    stage: int
    replica: int
    replicas: int
    tp: int
    group: str
    first: int
    last: int
    """One past the last layer."""
    rank: int
    """The first seat that it stands for."""
    events: tuple[Happening, ...]
    """By start."""

    @property
    def busy_s(self) -> float:
        """Time in passes; waiting, talking and updating are not in it."""
        return sum(one.end_s - one.start_s for one in self.events if one.kind in ("forward", "backward"))

    @property
    def opens(self) -> bool:
        """Whether it is the first of its pipeline."""
        return self.stage == 0 and self.replica == 0


def lanes(plan: MixPlan, events: Iterable[Happening], *, most: int = MOST_LANES) -> tuple[tuple[Lane, ...], int]:
    """The lanes of ``plan`` in the order of its seats, and how many more there are than ``most``.

    Args:
        plan: Whose seats the events name.
        events: What happened, in any order; of copies and shards only those of the first are used.
        most: Lanes to show; stages lose replicas beyond that, evenly, and each keeps one.
    """
    heads = [seat for seat in seats(plan) if seat.copy == 0 and seat.shard == 0]
    shown = _shown(plan, len(heads), most)
    by_rank: dict[int, list[Happening]] = {seat.rank: [] for seat in heads if seat.replica < shown}
    for event in events:
        if event.seat_rank in by_rank:
            by_rank[event.seat_rank].append(event)
    found = []
    for seat in heads:
        if seat.rank not in by_rank:
            continue
        pipeline = plan.pipelines[seat.pipeline]
        stage = pipeline.stages[seat.stage]
        ordered = tuple(sorted(by_rank[seat.rank], key=lambda event: (event.start_s, event.end_s)))
        found.append(
            Lane(
                pipeline=seat.pipeline, copies=pipeline.copies, stage=seat.stage, replica=seat.replica, replicas=stage.replicas,
                tp=stage.tp, group=seat.group, first=stage.first, last=stage.last, rank=seat.rank, events=ordered,
            )
        )  # fmt: skip
    return tuple(found), len(heads) - len(found)


def _shown(plan: MixPlan, total: int, most: int) -> int:
    """Replicas of a stage that are shown: the most with which all stages stay within ``most`` lanes, but at least one."""
    sizes = [stage.replicas for one in plan.pipelines for stage in one.stages]
    if total <= most:
        return max(sizes)
    return max((count for count in range(1, max(sizes)) if sum(min(size, count) for size in sizes) <= most), default=1)


def span_s(found: Sequence[Lane]) -> float:
    """Length of the step: the last end."""
    return max((event.end_s for lane in found for event in lane.events), default=0.0)
