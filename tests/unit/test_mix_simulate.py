"""The simulated clock: each seat in its order, nothing before its input, and no faster than the closed form's parts."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from sapper.mix.objective import score_plan
from sapper.mix.plan import MixPlan, Pipeline, Stage, seats
from sapper.mix.problem import Held, Problem, Shape, StateBytes, Supply, Times
from sapper.mix.simulate import Timeline, simulate

LAYERS = 6


class Wires:
    """A second for each byte of an activation between unlike groups, nothing within; a second for each reduction."""

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        return 0.0 if source == target else size_bytes

    def all_reduce_s(self, size_bytes: float, members: dict[tuple[str, int], int]) -> float:
        return 1.0 if sum(members.values()) > 1 else 0.0


def problem(*, boundary: float = 0.25) -> Problem:
    def times(speed: float) -> Times:
        one = np.full(LAYERS, 1.0 / speed)
        return Times(forward_s=one, backward_s=2.0 * one, saved_bytes=one * 0.0, working_bytes=one * 0.0)

    return Problem(
        model="m", layers=LAYERS, seq_len=8, global_batch=16,
        groups=tuple(Supply(name=name, chips=8, chips_per_node=8, capacity_bytes=1e9, host_s=0.5) for name in ("fast", "slow")),
        times={Shape("fast", 1, 1): times(2.0), Shape("slow", 1, 1): times(1.0)},
        held={(name, 1): Held(params=np.ones(LAYERS), update_s=np.full(LAYERS, 0.01)) for name in ("fast", "slow")},
        boundary_bytes=np.full(LAYERS, boundary), state=StateBytes(4.0, 4.0, 8.0, 4.0), network=Wires(), micro_batches=(1,),
    )  # fmt: skip


def plan(*pipelines: Pipeline) -> MixPlan:
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=LAYERS - 2, seq_len=8, pipelines=pipelines,
        global_batch=sum(one.sequences for one in pipelines),
    )  # fmt: skip


def chain(*stages: tuple[str, int, int], micro_batches: int = 8, copies: int = 1) -> Pipeline:
    cuts, found = 0, []
    for group, layers, replicas in stages:
        found.append(Stage(group=group, first=cuts, last=cuts + layers, replicas=replicas))
        cuts += layers
    return Pipeline(stages=tuple(found), micro_batch=1, micro_batches=micro_batches, copies=copies)


MIXED = plan(chain(("fast", 4, 1), ("slow", 2, 1)), chain(("fast", 2, 2), ("slow", 1, 1), ("fast", 3, 3), micro_batches=4, copies=2))


def passes(timeline: Timeline, rank: int) -> list[tuple[float, float]]:
    return [(one.start_s, one.end_s) for one in timeline.events if one.seat_rank == rank and one.kind in ("forward", "backward")]


def test_every_seat_does_one_thing_at_a_time_and_all_of_its_work() -> None:
    timeline = simulate(problem(), MIXED)

    for seat in seats(MIXED):
        mine = sorted(passes(timeline, seat.rank))
        pipeline = MIXED.pipelines[seat.pipeline]
        assert len(mine) == 2 * len(range(seat.replica, pipeline.micro_batches, pipeline.stages[seat.stage].replicas))
        assert all(before[1] <= after[0] + 1e-12 for before, after in itertools.pairwise(mine))
        assert timeline.busy_s(seat.rank) == pytest.approx(sum(end - start for start, end in mine))


def test_nothing_begins_before_its_message_is_there() -> None:
    timeline = simulate(problem(), MIXED)
    at = {seat.rank: seat for seat in seats(MIXED)}
    done: dict[tuple[int, int, int, str, int], float] = defaultdict(float)
    for one in timeline.events:
        seat = at[one.seat_rank]
        done[seat.pipeline, seat.copy, seat.stage, one.kind, one.micro_batch] = one.end_s
    for one in timeline.events:
        seat = at[one.seat_rank]
        wire_s = 0.25  # neighbours are of unlike groups
        if one.kind == "forward" and seat.stage > 0:
            assert one.start_s >= done[seat.pipeline, seat.copy, seat.stage - 1, "forward", one.micro_batch] + wire_s - 1e-12
    first_stages = [rank for rank, seat in at.items() if seat.stage == 0]
    reduce_s = {one.seat_rank: one.start_s for one in timeline.events if one.kind == "reduce"}
    assert reduce_s[0] >= max(end for rank in first_stages for _, end in passes(timeline, rank))


def test_one_stage_takes_what_the_closed_form_says() -> None:
    alone = plan(chain(("slow", LAYERS, 1), micro_batches=5), chain(("fast", LAYERS, 1), micro_batches=10))

    assert simulate(problem(), alone).step_s == pytest.approx(score_plan(problem(), alone).step_s)


@pytest.mark.parametrize("boundary", [0.0, 0.25, 20.0])
def test_a_chain_is_no_faster_than_its_pace_and_near_the_closed_form(boundary: float) -> None:
    asked = problem(boundary=boundary)
    one = plan(chain(("fast", 4, 1), ("slow", 2, 1), micro_batches=32))
    closed, clock = score_plan(asked, one), simulate(asked, one)

    assert clock.step_s >= 32 * max(stage.forward_s + stage.backward_s for stage in closed.pipelines[0].stages)
    assert clock.step_s == pytest.approx(closed.step_s, rel=0.05)


def test_a_blocking_transport_is_slower() -> None:
    asked = problem(boundary=1.0)
    blocking = replace(asked, transport=replace(asked.transport, blocking=True))

    assert simulate(blocking, MIXED).step_s > simulate(asked, MIXED).step_s
