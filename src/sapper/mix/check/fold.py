"""A plan folded to few seats: what differs between its parts still differs, only less.

Numbers of copies, replicas and chips are replaced by their rank among those that occur (4, 16, 16 become 1, 2, 2), neighbouring stages
of one group that are alike are joined while there are too many, and micro-batches and blocks are taken out in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sapper.mix.plan import MixPlan, Pipeline, Stage, check, seats

MOST_SEATS = 6
MOST_BLOCKS = 8
MOST_MICRO_BATCHES = 4
"""Of one copy in a step, where the plan has more."""
_CAPS = ((2, 3, 2), (2, 2, 2), (1, 3, 2), (1, 2, 2), (2, 1, 2), (1, 1, 2), (1, 1, 1))
"""Most copies, replicas and tensor parallel degrees, in the order in which they are tried: like copies show least."""


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """A plan small enough to run here."""

    plan: MixPlan
    seats_before: int
    seats: int
    blocks_before: int
    dropped: int
    """Pipelines that are left out since others of the same chain of groups stay."""


def fold(plan: MixPlan, *, seats_at_most: int = MOST_SEATS, blocks_at_most: int = MOST_BLOCKS) -> Folded:
    """``plan`` with at most ``seats_at_most`` seats where that can be had, and at least one for each stage that differs.

    Args:
        plan: The plan.
        seats_at_most: Processes to spend.
        blocks_at_most: Blocks of the toy; more only where there are more stages.
    """
    pipelines, dropped = list(plan.pipelines), 0
    for copies, replicas, degrees in _CAPS:
        candidates = _ranked(pipelines, copies=copies, replicas=replicas, degrees=degrees)
        while _count(candidates) > seats_at_most and (joined := _joined(candidates)) is not None:
            candidates = joined
        kept = _distinct(candidates) if _count(candidates) > seats_at_most else candidates
        dropped, folded = len(candidates) - len(kept), kept
        if _count(folded) <= seats_at_most:
            break
    folded = _shorter([_batches(one, folded, pipelines) for one in folded], plan.layers, blocks_at_most)
    blocks = folded[0].stages[-1].last - 2
    small = msgspec.structs.replace(
        plan, pipelines=tuple(folded), layers=blocks, global_batch=sum(one.sequences for one in folded), idle={}, expected=None
    )
    check(small)
    return Folded(plan=small, seats_before=len(seats(plan)), seats=len(seats(small)), blocks_before=plan.layers, dropped=dropped)


def _count(pipelines: Iterable[Pipeline]) -> int:
    return sum(one.chips for one in pipelines)


def _ranks(values: Iterable[int], most: int) -> dict[int, int]:
    """Each value -> its place among those that occur, from 1, and at most ``most``; 1 stays 1."""
    found = sorted({1, *values})
    return {value: min(at + 1, most) for at, value in enumerate(found)}


def _ranked(pipelines: Sequence[Pipeline], *, copies: int, replicas: int, degrees: int) -> list[Pipeline]:
    """Copies, replicas and tensor parallel degrees by rank, up to so many."""
    many = _ranks((one.copies for one in pipelines), copies)
    turns = _ranks((stage.replicas for one in pipelines for stage in one.stages), replicas)
    cuts = _ranks((stage.tp for one in pipelines for stage in one.stages), degrees)
    sizes = _ranks((one.micro_batch for one in pipelines), 2)
    return [
        msgspec.structs.replace(
            one, copies=many[one.copies], micro_batch=sizes[one.micro_batch],
            stages=tuple(msgspec.structs.replace(stage, tp=cuts[stage.tp], replicas=turns[stage.replicas]) for stage in one.stages),
        )
        for one in pipelines
    ]  # fmt: skip


def _alike(one: Stage, other: Stage) -> bool:
    return msgspec.structs.replace(one, first=0, last=0) == msgspec.structs.replace(other, first=0, last=0)


def _joined(pipelines: Sequence[Pipeline]) -> list[Pipeline] | None:
    """The longest pipeline with its first two like neighbours as one stage; None where no two neighbours are alike."""
    order = sorted(range(len(pipelines)), key=lambda p: -len(pipelines[p].stages))
    for p in order:
        stages = pipelines[p].stages
        for s in range(len(stages) - 1):
            # a chain of two like stages shows what a longer one does
            run = sum(1 for stage in stages if _alike(stage, stages[s]))
            if _alike(stages[s], stages[s + 1]) and run > 2:
                whole = msgspec.structs.replace(stages[s], last=stages[s + 1].last)
                shorter = msgspec.structs.replace(pipelines[p], stages=(*stages[:s], whole, *stages[s + 2 :]))
                return [*pipelines[:p], shorter, *pipelines[p + 1 :]]
    return None


def _distinct(pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """One pipeline for each chain of groups."""
    found: dict[tuple[str, ...], Pipeline] = {}
    for one in pipelines:
        found.setdefault(tuple(dict.fromkeys(stage.group for stage in one.stages)), one)
    return list(found.values())


def _batches(one: Pipeline, folded: Sequence[Pipeline], before: Sequence[Pipeline]) -> Pipeline:
    """Fewer micro-batches, unequal where they were unequal, and enough that each replica has one."""
    counts = sorted({pipeline.micro_batches for pipeline in before})
    least = max(stage.replicas for pipeline in folded for stage in pipeline.stages)
    if counts[-1] <= MOST_MICRO_BATCHES:
        return one
    place = counts.index(one.micro_batches) if one.micro_batches in counts else 0
    room = max(MOST_MICRO_BATCHES - least, 1)
    share = place / (len(counts) - 1) if len(counts) > 1 else 1.0
    return msgspec.structs.replace(one, micro_batches=min(one.micro_batches, least + round(room * share)))


def _shorter(pipelines: Sequence[Pipeline], blocks: int, most: int) -> list[Pipeline]:
    """Fewer blocks: each boundary keeps its place in proportion, and stages keep at least one layer."""
    target = min(blocks, max(most, *(len(one.stages) for one in pipelines)))
    if target == blocks:
        return list(pipelines)
    found = []
    for one in pipelines:
        cuts = [round(stage.first * (target + 2) / (blocks + 2)) for stage in one.stages[1:]]
        edges = [0, *cuts, target + 2]
        for s in range(1, len(edges) - 1):
            edges[s] = max(edges[s], edges[s - 1] + 1)
        for s in range(len(edges) - 2, 0, -1):
            edges[s] = min(edges[s], edges[s + 1] - 1)
        stages = tuple(
            msgspec.structs.replace(stage, first=first, last=last) for stage, first, last in zip(one.stages, edges, edges[1:], strict=False)
        )
        found.append(msgspec.structs.replace(one, stages=stages))
    return found
