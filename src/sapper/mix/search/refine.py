"""Local search on whole plans by the objective itself: what the columns could not see of each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from sapper.mix.objective import Known, Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem
from sapper.mix.search.chains import Chain, Column
from sapper.mix.search.cuts import cut
from sapper.mix.search.segments import Kind, Table


class Cuts:
    """Exact cuts for the number of micro-batches that a pipeline has, each made once."""

    def __init__(self, table: Table, *, most: int) -> None:
        """``most``: cuts that are made in all; pipelines beyond stay as they are."""
        self.table, self.left = table, most
        self._known: dict[Chain, Column | None] = {}

    def again(self, pipelines: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        """``pipelines`` with the layers of each cut for its own micro-batches."""
        return merged([self._one(one) for one in pipelines])

    def _one(self, pipeline: Pipeline) -> Pipeline:
        kinds = tuple(Kind(one.group, one.tp, one.recompute, one.zero, one.replicas) for one in pipeline.stages)
        count = pipeline.micro_batches
        chain = Chain(kinds, pipeline.micro_batch, count, tuple(pipeline.copies * kind.replicas for kind in kinds), count)
        if chain not in self._known:
            if self.left <= 0:
                return pipeline
            self.left -= 1
            self._known[chain] = cut(self.table, [chain])[0]
        column = self._known[chain]
        return pipeline if column is None else column.pipeline(micro_batches=count, copies=pipeline.copies)


def refine(table: Table, pipelines: tuple[Pipeline, ...], *, stages: int, cuts: int, known: Known) -> tuple[tuple[Pipeline, ...], Score]:
    """Take every step that makes the plan faster, until none does, or ``stages`` have been priced and ``cuts`` made.

    ``known`` are stages of the problem that were priced before.
    """
    problem, exact = table.problem, Cuts(table, most=cuts)
    best, priced = pipelines, score(problem, pipelines, known=known)
    improved = True
    while improved and stages > 0:
        improved = False
        for other in neighbours(problem, best, priced, exact):
            stages -= sum(len(one.stages) for one in other)
            try:
                found = score(problem, other, known=known)
            except KeyError:
                continue
            if found.fits and (not priced.fits or found.step_s < priced.step_s * (1.0 - 1e-9)):
                best, priced, improved = other, found, True
                break
            if stages <= 0:
                break
    return best, priced


def neighbours(problem: Problem, pipelines: tuple[Pipeline, ...], priced: Score, exact: Cuts) -> Iterator[tuple[Pipeline, ...]]:
    """Plans one step away, the most promising first; every step is followed by cuts for the new numbers of micro-batches."""
    order = sorted(range(len(pipelines)), key=lambda p: -priced.pipelines[p].time_s)
    again = exact.again(pipelines)
    if again != pipelines:
        yield again
    for other in itertools.chain(_batches(pipelines, order), _sizes(problem, pipelines)):
        again = exact.again(other)
        yield again
        if again != other:
            yield other
    for p in order:
        yield from _boundaries(pipelines, p, slowest=priced.pipelines[p].slowest)
    for p in order:
        yield from _settings(problem, pipelines, p)


def _sizes(problem: Problem, pipelines: tuple[Pipeline, ...]) -> Iterator[tuple[Pipeline, ...]]:
    """The same sequences in micro-batches of another size."""
    for p, one in enumerate(pipelines):
        sequences = one.micro_batch * one.micro_batches
        for size in problem.micro_batches:
            if size != one.micro_batch and sequences % size == 0:
                yield _with(pipelines, p, msgspec.structs.replace(one, micro_batch=size, micro_batches=sequences // size))


def _with(pipelines: tuple[Pipeline, ...], p: int, *new: Pipeline) -> tuple[Pipeline, ...]:
    return pipelines[:p] + tuple(one for one in new if one.copies > 0 and one.micro_batches > 0) + pipelines[p + 1 :]


def _boundaries(pipelines: tuple[Pipeline, ...], p: int, *, slowest: int) -> Iterator[tuple[Pipeline, ...]]:
    """A layer moves over a cut; the cuts of the slowest stage first."""
    stages = pipelines[p].stages
    for at in sorted(range(1, len(stages)), key=lambda c: min(abs(c - slowest), abs(c - 1 - slowest))):
        for by in (-1, 1):
            layer = stages[at].first + by
            if stages[at - 1].first < layer < stages[at].last:
                changed = list(stages)
                changed[at - 1] = msgspec.structs.replace(stages[at - 1], last=layer)
                changed[at] = msgspec.structs.replace(stages[at], first=layer)
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
    """Another recomputation for one stage."""
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
