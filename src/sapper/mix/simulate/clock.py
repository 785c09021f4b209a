"""Events of one step: every seat follows :func:`sapper.mix.order.order`, messages travel beside the passes.

Durations are those of the closed form (objective.py); the clock adds what it leaves out, the waiting of one stage for another. A
link carries the messages of one seat and direction one after the other. Like copies of a pipeline run alike, so one is simulated
and the others are told from it; that all pipelines share a link between groups is the closed form's bound and not seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sapper.mix.objective import PipelineScore, Score, score_plan
from sapper.mix.order import Work, order
from sapper.mix.plan import MixPlan, Pipeline, Seat, seats
from sapper.mix.problem import Problem

Kind = Literal["forward", "backward", "send", "reduce", "update"]


class Event(NamedTuple):
    """One piece of work of one seat."""

    seat_rank: int
    kind: Kind
    micro_batch: int
    """Index in the step of its copy; -1 for what happens once a step."""
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """One step, from its first pass to the last update and what the host does after it."""

    events: tuple[Event, ...]
    step_s: float

    def busy_s(self, rank: int) -> float:
        """Time that a seat spends in passes."""
        return sum(one.end_s - one.start_s for one in self.events if one.seat_rank == rank and one.kind in ("forward", "backward"))


Place = tuple[int, int]
"""(stage, replica) of a pipeline."""


class _Piece(NamedTuple):
    """An event before the seats are known."""

    kind: Kind
    micro_batch: int
    start_s: float
    end_s: float


def simulate(problem: Problem, plan: MixPlan) -> Timeline:
    """Run one step of ``plan`` on the clock.

    Raises:
        KeyError: A shape that the problem has no times for.
    """
    priced = score_plan(problem, plan)
    runs = [_run(problem, plan, index, scored) for index, scored in enumerate(priced.pipelines)]
    ends = [{place: pieces[-1].end_s if pieces else 0.0 for place, pieces in run.items()} for run in runs]
    ready_s = _ready_s(plan, ends)
    events: list[Event] = []
    for seat in seats(plan):
        pieces = runs[seat.pipeline][seat.stage, seat.replica]
        events += [Event(seat.rank, *piece) for piece in pieces]
        events += _closing(priced, seat, ready_s=ready_s[seat.pipeline][seat.stage])
    used = {stage.group for one in plan.pipelines for stage in one.stages}
    last_s = max(event.end_s for event in events)
    return Timeline(events=tuple(events), step_s=last_s + max(problem.group(name).host_s for name in used))


def _closing(priced: Score, seat: Seat, *, ready_s: float) -> Iterator[Event]:
    stage = priced.pipelines[seat.pipeline].stages[seat.stage]
    if stage.reduce_s > 0.0:
        yield Event(seat.rank, "reduce", -1, ready_s, ready_s + stage.reduce_s)
    yield Event(seat.rank, "update", -1, ready_s + stage.reduce_s, ready_s + stage.reduce_s + stage.update_s)


def _ready_s(plan: MixPlan, ends: list[dict[Place, float]]) -> list[list[float]]:
    """When the gradients of each stage may be reduced: all who hold one of its layers have finished their passes."""
    by_layer = [0.0] * (plan.layers + 2)
    for pipeline, end in zip(plan.pipelines, ends, strict=True):
        for (s, _), end_s in end.items():
            for layer in pipeline.stages[s].layers:
                by_layer[layer] = max(by_layer[layer], end_s)
    return [[max(by_layer[layer] for layer in stage.layers) for stage in pipeline.stages] for pipeline in plan.pipelines]


def _run(problem: Problem, plan: MixPlan, index: int, scored: PipelineScore) -> dict[Place, list[_Piece]]:
    """What the seats of one copy do, each list ending with its last pass."""
    clock = _Clock(problem, plan.pipelines[index], scored)
    waiting = {
        (s, r): list(reversed(order(clock.pipeline, s, replica=r, schedule=plan.schedule)))
        for s, stage in enumerate(clock.pipeline.stages) for r in range(stage.replicas)
    }  # fmt: skip
    moved = True
    while moved:
        moved = False
        for place, work in waiting.items():
            while work and clock.arrived(place[0], work[-1]) is not None:
                clock.do(place, work.pop())
                moved = True
    assert not any(waiting.values()), "an order of work that blocks itself"
    return clock.pieces


class _Clock:
    """The seats of one copy of a pipeline, and the messages between them."""

    def __init__(self, problem: Problem, pipeline: Pipeline, scored: PipelineScore) -> None:
        self.problem, self.pipeline, self.scored = problem, pipeline, scored
        places = [(s, r) for s, stage in enumerate(pipeline.stages) for r in range(stage.replicas)]
        self.pieces: dict[Place, list[_Piece]] = {place: [] for place in places}
        self._free_s: dict[Place, float] = dict.fromkeys(places, 0.0)
        self._wire_s: dict[tuple[Place, str], float] = {}
        """When the link of a seat and direction is free again."""
        self._arrived_s: dict[tuple[int, Work], float] = {}
        """(stage, its work) -> when what the work needs is there."""

    def arrived(self, stage: int, work: Work) -> float | None:
        """When what ``work`` needs is there; None where it is not sent yet."""
        last = len(self.pipeline.stages) - 1
        if (work.kind == "forward" and stage == 0) or (work.kind == "backward" and stage == last):
            return 0.0
        return self._arrived_s.get((stage, work))

    def do(self, place: Place, work: Work) -> None:
        """One pass, and its message to the next stage or the one before."""
        stage, ahead = self.scored.stages[place[0]], work.kind == "forward"
        start_s = max(self._free_s[place], self.arrived(place[0], work) or 0.0)
        end_s = start_s + (stage.forward_s if ahead else stage.backward_s)
        self.pieces[place].append(_Piece(work.kind, work.micro_batch, start_s, end_s))
        self._free_s[place] = end_s
        other = place[0] + (1 if ahead else -1)
        if 0 <= other < len(self.pipeline.stages):
            self._send(place, work, other, done_s=end_s)

    def _send(self, place: Place, work: Work, other: int, *, done_s: float) -> None:
        near = min(place[0], other)
        send_s = self.scored.stages[near].send_s
        start_s = max(done_s, self._wire_s.get((place, work.kind), 0.0))
        self._wire_s[place, work.kind] = start_s + send_s
        self._arrived_s[other, work] = start_s + send_s
        if send_s > 0.0:
            # a seat's list is kept in the order of its passes, whose last one is its end
            self.pieces[place].insert(-1, _Piece("send", work.micro_batch, start_s, start_s + send_s))
        size = float(self.problem.boundary_bytes[self.pipeline.stages[near].last - 1]) * self.pipeline.micro_batch
        tp = min(self.pipeline.stages[near].tp, self.pipeline.stages[near + 1].tp)
        if self.problem.transport.blocking and size / tp > self.problem.transport.buffer_bytes:
            self._free_s[place] = start_s + send_s
