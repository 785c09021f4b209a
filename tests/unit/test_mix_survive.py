"""Who goes on without whom, on which plan, from which state: decided without a process."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from sapper.clusters import parse_cluster
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.costs import from_predict
from sapper.mix.plan import MixPlan, Pipeline, Stage, check
from sapper.mix.search import search
from sapper.mix.survive.cover import newest
from sapper.mix.survive.decide import decide
from sapper.mix.survive.member import Held, Member, Report, may_go_on
from sapper.mix.survive.planner import Planner
from sapper.mix.survive.replan import shrink
from sapper.predict.job import TrainJob
from sapper.workloads import load
from support import ROOT


def pipeline(*stages: tuple[str, int, int], replicas: int = 1, micro_batch: int = 1, micro_batches: int = 4, copies: int = 1) -> Pipeline:
    made = tuple(Stage(group=group, first=first, last=last, replicas=replicas) for group, first, last in stages)
    return Pipeline(stages=made, micro_batch=micro_batch, micro_batches=micro_batches, copies=copies)


def plan(*pipelines: Pipeline) -> MixPlan:
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=4, seq_len=8, pipelines=pipelines,
        global_batch=sum(one.sequences for one in pipelines),
    )  # fmt: skip


TWO = plan(pipeline(("fast", 0, 3), ("fast", 3, 6), micro_batches=6), pipeline(("slow", 0, 3), ("slow", 3, 6), micro_batches=2))


@pytest.mark.parametrize(
    ("alive", "dead", "goes_on"),
    [
        ({0, 1, 2}, set(), True), ({2, 3}, set(), False), ({0, 3}, set(), True), ({1}, {0, 2, 3}, True), ({3}, {2}, False),
        ({2, 3}, {0}, True), (set(), {0, 1, 2, 3}, False),
    ],
)  # fmt: skip
def test_of_two_parts_of_a_job_one_goes_on_at_most(alive: set[int], dead: set[int], goes_on: bool) -> None:
    assert may_go_on(range(4), alive=alive, dead=dead) is goes_on
    others = set(range(4)) - dead - alive
    assert not (may_go_on(range(4), alive=alive, dead=dead) and may_go_on(range(4), alive=others, dead=dead))


def test_a_smaller_plan_keeps_the_batch_and_every_layer() -> None:
    source = random.Random(1)
    for _ in range(60):
        groups = source.sample(["a", "b", "c"], source.randint(1, 3))
        pipelines = []
        for group in groups:
            cuts = [0, *sorted(source.sample(range(1, 6), source.randint(0, 3))), 6]
            stages = [(group, first, last) for first, last in itertools.pairwise(cuts)]
            pipelines.append(
                pipeline(
                    *stages, replicas=source.randint(1, 2), micro_batch=source.randint(1, 3), micro_batches=source.randint(1, 5),
                    copies=source.randint(1, 2),
                )
            )  # fmt: skip
        before = plan(*pipelines)
        supply = {group: source.randint(0, count) for group, count in before.chips.items()}
        after = shrink(before, supply)
        if after is None:
            assert not any(supply.values())
            continue
        check(after, supply=supply)
        assert after.global_batch == before.global_batch


def test_a_stage_is_merged_where_giving_up_its_pipeline_costs_more() -> None:
    after = shrink(plan(pipeline(("a", 0, 2), ("a", 2, 4), ("a", 4, 6))), {"a": 2})

    assert after is not None
    assert [(one.first, one.last) for one in after.pipelines[0].stages] == [(0, 3), (3, 6)]


def test_a_plan_that_fits_is_preferred() -> None:
    even = plan(pipeline(("a", 0, 3), ("a", 3, 6)), pipeline(("b", 0, 3), ("b", 3, 6)))
    after = shrink(even, {"a": 1, "b": 2}, fits=lambda one: all(len(stage.layers) < 6 for part in one.pipelines for stage in part.stages))

    assert after is not None
    assert {stage.group for part in after.pipelines for stage in part.stages} == {"b"}
    assert after.idle == {"a": 1}


def test_a_tensor_parallel_stage_goes_on_with_fewer_chips() -> None:
    wide = Pipeline(stages=(Stage(group="a", first=0, last=6, tp=4),), micro_batch=1, micro_batches=4)
    assert [after.pipelines[0].stages[0].tp for left in (3, 1) if (after := shrink(plan(wide), {"a": left}))] == [2, 1]


def test_what_is_left_is_searched_where_the_costs_are_known_and_the_time_is_there() -> None:
    job = TrainJob(workload=load("gpt2").workload(1024), global_batch=16)
    cluster = parse_cluster(str(ROOT / "examples" / "clusters" / "two-kinds.toml"))
    problem = from_predict(job, cluster)
    whole = search(problem).best
    assert whole is not None
    first, *others = whole.chips
    supply = {first: whole.chips[first] - 1, **{name: whole.chips[name] for name in others}}

    planners = (Planner(problem, limit_s=60.0), Planner(problem, limit_s=0.0), Planner())
    searched, hurried, blind = (one.plan(whole, supply) for one in planners)

    assert (searched.how, hurried.how, blind.how) == ("search", "rule", "unchecked")
    for one in (searched, hurried, blind):
        assert one.plan is not None
        check(one.plan, supply=supply)
        assert one.plan.global_batch == 16
    again = Planner(problem).plan(whole, whole.chips)
    assert again.how == "whole" and again.plan is not None and again.plan.pipelines == whole.pipelines
    full = dataclasses.replace(problem, groups=tuple(dataclasses.replace(one, capacity_bytes=1.0) for one in problem.groups))
    assert Planner(full, limit_s=60.0).plan(whole, supply).how == "overfull"


def member(number: int, group: str) -> Member:
    return Member(number=number, host="h", port=number, group=group, machine=f"m{number}")


def report(number: int, *held: Held, begun: int, ledger: Ledger) -> Report:
    return Report(number=number, turn=1, epoch=0, begun=begun, lost=(), held=held, ledger=ledger)


def ledger(steps: int) -> Ledger:
    found = Ledger()
    for step in range(steps):
        found.applied(step, batch=TWO.global_batch, plan=TWO.digest)
    return found


def test_the_newest_whole_state_is_taken_from_whoever_has_it() -> None:
    """Rank 1 died after its update of step 4, which nobody else has: its mirror has the state of step 3, and so has everybody."""
    held = {
        0: [Held(step=4, first=0, last=3), Held(step=3, first=0, last=3)],
        2: [Held(step=4, first=0, last=3), Held(step=3, first=3, last=6), Held(step=3, first=0, last=3)],
    }
    assert newest(held, plan=plan(pipeline(("a", 0, 3), ("a", 3, 6)))) == 3
    assert newest({0: held[0]}, plan=plan(pipeline(("a", 0, 6)))) is None


def test_a_decision_moves_no_more_than_it_must_and_keeps_the_books() -> None:
    members = [member(0, "fast"), member(2, "slow"), member(3, "slow")]
    reports = {
        0: report(0, Held(step=4, first=0, last=3), begun=5, ledger=ledger(4)),
        2: report(2, Held(step=4, first=0, last=3), Held(step=3, first=0, last=3), begun=5, ledger=ledger(4)),
        3: report(3, Held(step=4, first=3, last=6), Held(step=3, first=3, last=6), begun=5, ledger=ledger(4)),
    }
    view = decide(TWO, members, reports, reason="rank 1 is lost")

    assert view is not None
    assert (view.step, view.source, view.epoch) == (4, "members", 1)
    check(view.plan, supply={"fast": 1, "slow": 2})
    given = {(move.source, move.target, move.first, move.last) for move in view.moves if move.source != move.target}
    assert given == {(3, 0, 3, 6)}
    assert (view.ledger.step, view.ledger.sample) == (4, 4 * TWO.global_batch)
    undone = view.ledger.undone[-1]
    assert (undone.first, undone.last, undone.sample, undone.count) == (4, 5, 4 * TWO.global_batch, TWO.global_batch)


def test_without_a_state_in_memory_the_checkpoint_is_taken() -> None:
    reports = {0: report(0, Held(step=4, first=0, last=3), begun=5, ledger=ledger(4))}
    for saved, source, step in ((2, "checkpoint", 2), (None, "start", 0)):
        view = decide(TWO, [member(0, "fast")], reports, reason="", saved=saved)

        assert view is not None
        assert (view.source, view.step, view.ledger.step, view.moves) == (source, step, step, ())
        assert (view.ledger.undone[-1].first, view.ledger.undone[-1].last) == (step, 5)
