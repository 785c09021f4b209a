"""Local search on whole plans by the objective itself: what the columns could not see of each other."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sapper.mix.objective import Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem


def refine(problem: Problem, pipelines: tuple[Pipeline, ...], *, stages: int) -> tuple[tuple[Pipeline, ...], Score]:
    """Take every step that makes the plan faster, until none does or ``stages`` have been priced."""
    best, priced = pipelines, score(problem, pipelines)
    improved = True
    while improved and stages > 0:
        improved = False
        for other in neighbours(problem, best, priced):
            stages -= sum(len(one.stages) for one in other)
            try:
                found = score(problem, other)
            except KeyError:
                continue
            if found.fits and (not priced.fits or found.step_s < priced.step_s * (1.0 - 1e-9)):
                best, priced, improved = other, found, True
                break
            if stages <= 0:
                break
    return best, priced


def neighbours(problem: Problem, pipelines: tuple[Pipeline, ...], priced: Score) -> Iterator[tuple[Pipeline, ...]]:
    """Plans one step away, the most promising first."""
    order = sorted(range(len(pipelines)), key=lambda p: -priced.pipelines[p].time_s)
    for p in order:
        yield from _boundaries(pipelines, p, slowest=priced.pipelines[p].slowest)
    yield from _batches(pipelines, order)
    for p in order:
        yield from _settings(problem, pipelines, p)


def _with(pipelines: tuple[Pipeline, ...], p: int, *new: Pipeline) -> tuple[Pipeline, ...]:
    return pipelines[:p] + tuple(one for one in new if one.copies > 0 and one.micro_batches > 0) + pipelines[p + 1 :]


def _boundaries(pipelines: tuple[Pipeline, ...], p: int, *, slowest: int) -> Iterator[tuple[Pipeline, ...]]:
    """A layer moves over a cut; the cuts of the slowest stage first."""
    stages = pipelines[p].stages
    for cut in sorted(range(1, len(stages)), key=lambda c: min(abs(c - slowest), abs(c - 1 - slowest))):
        for by in (-1, 1):
            at = stages[cut].first + by
            if stages[cut - 1].first < at < stages[cut].last:
                changed = list(stages)
                changed[cut - 1] = msgspec.structs.replace(stages[cut - 1], last=at)
                changed[cut] = msgspec.structs.replace(stages[cut], first=at)
                yield _with(pipelines, p, msgspec.structs.replace(pipelines[p], stages=tuple(changed)))


def _batches(pipelines: tuple[Pipeline, ...], order: list[int]) -> Iterator[tuple[Pipeline, ...]]:
    """Micro-batches of one copy of the slowest pipelines go to a copy of a faster one."""
    for slow in order:
        for fast in reversed(order):
            giver, taker = pipelines[slow], pipelines[fast]
            if slow == fast or giver.micro_batches < 2:
                continue
            for givers, takers in ((giver.copies, taker.copies), (1, 1), (giver.copies, 1), (1, taker.copies)):
                moved = givers * giver.micro_batch
                if moved % (takers * taker.micro_batch):
                    continue
                more = moved // (takers * taker.micro_batch)
                split = {
                    slow: (giver, givers, giver.micro_batches - 1),
                    fast: (taker, takers, taker.micro_batches + more),
                }
                found: list[Pipeline] = []
                for p, one in enumerate(pipelines):
                    if p in split:
                        base, copies, count = split[p]
                        found.append(msgspec.structs.replace(base, copies=copies, micro_batches=count))
                        if base.copies > copies:
                            found.append(msgspec.structs.replace(base, copies=base.copies - copies))
                    else:
                        found.append(one)
                yield merged(found)


def _settings(problem: Problem, pipelines: tuple[Pipeline, ...], p: int) -> Iterator[tuple[Pipeline, ...]]:
    """Another recomputation for one stage; ZeRO off where it does not help."""
    stages = pipelines[p].stages
    for s, stage in enumerate(stages):
        for recompute in problem.recomputes:
            if recompute != stage.recompute:
                yield _with(pipelines, p, _replaced(pipelines[p], s, msgspec.structs.replace(stage, recompute=recompute)))


def _replaced(pipeline: Pipeline, s: int, stage: Stage) -> Pipeline:
    return msgspec.structs.replace(pipeline, stages=(*pipeline.stages[:s], stage, *pipeline.stages[s + 1 :]))


def merged(pipelines: list[Pipeline]) -> tuple[Pipeline, ...]:
    """Like pipelines become copies of one."""
    found: dict[Pipeline, int] = {}
    for one in pipelines:
        key = msgspec.structs.replace(one, copies=1)
        found[key] = found.get(key, 0) + one.copies
    return tuple(msgspec.structs.replace(one, copies=copies) for one, copies in found.items())
