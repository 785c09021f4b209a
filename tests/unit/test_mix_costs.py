"""What the planner is told of a job on a cluster: it is what predict says, layer by layer."""

from __future__ import annotations

import dataclasses
import itertools
import math

import msgspec
import numpy as np
import pytest
from predict_kit import LLAMA, cluster, job

from sapper.clusters.cluster import Cluster, GroupLink
from sapper.errors import BadValue, MissingFact
from sapper.evidence import Fact
from sapper.mix.costs import from_predict, network_of
from sapper.mix.objective import Score, score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem, Shape, Transport
from sapper.predict.job import TrainJob
from sapper.predict.plan import Plan, Recompute
from sapper.predict.train import predict_train
from sapper.workloads import from_config

CHIPS, BATCH, LAYERS = 64, 128, 32


def fact(value: float | None, unit: str) -> Fact:
    return Fact(value=value, unit=unit, source="test", grade="assumed")


def as_mix(plan: Plan) -> Pipeline:
    """The pipeline that ``plan`` means; its stages divide the layers."""
    cuts = [0, *(1 + s * LAYERS // plan.pp for s in range(1, plan.pp)), LAYERS + 2]
    stages = tuple(
        Stage(group="all", first=first, last=last, tp=plan.tp, zero=plan.zero, recompute=plan.recompute)
        for first, last in itertools.pairwise(cuts)
    )
    return Pipeline(stages=stages, micro_batch=plan.micro_batch, micro_batches=BATCH // plan.dp // plan.micro_batch, copies=plan.dp)


@pytest.fixture(scope="module", params=["nvidia-a100-sxm-80gb", "huawei-ascend-910b2"])
def asked(request: pytest.FixtureRequest) -> tuple[str, Problem]:
    return request.param, from_predict(job(global_batch=BATCH), cluster(request.param, CHIPS), sequence_parallel=True)


def mixed(*links: GroupLink, third: bool = False) -> Cluster:
    names = ("a", "b", "c") if third else ("a", "b")
    chips = ("nvidia-a100-sxm-80gb", "huawei-ascend-910b2", "nvidia-h100-sxm-80gb")
    groups = tuple(msgspec.structs.replace(cluster(chip, 16).groups[0], name=name) for name, chip in zip(names, chips, strict=False))
    return Cluster(name="mixed", groups=groups, links=links)


def link(source: str, target: str, rate: float | None = 10e9) -> GroupLink:
    return GroupLink(from_group=source, to_group=target, bandwidth_bytes_per_s=fact(rate, "bytes/s"), latency_s=fact(1e-4, "s"))


@pytest.mark.parametrize(
    ("tp", "pp", "micro_batch", "recompute"),
    [(1, 1, 1, "full"), (8, 1, 1, "none"), (4, 4, 1, "none"), (8, 8, 2, "full"), (2, 8, 1, "none")],
)
def test_a_plan_on_like_chips_costs_what_predict_says(
    asked: tuple[str, Problem], tp: int, pp: int, micro_batch: int, recompute: Recompute
) -> None:
    chip, problem = asked
    plan = Plan(tp=tp, pp=pp, dp=CHIPS // tp // pp, micro_batch=micro_batch, recompute=recompute)
    said = predict_train(job(global_batch=BATCH), cluster(chip, plan.chips), plan)
    terms = {term.name: term.time_s for term in said.terms}

    found: Score = score(problem, (as_mix(plan),))
    unshared = score(problem, (as_mix(msgspec.structs.replace(plan, zero=0)),))

    # each hides messages by a model of its own: gradients, and the weights that ZeRO 1 hands on after the update
    handed_s = found.update_s - unshared.update_s / plan.dp
    assert found.step_s - found.reduce_s - handed_s == pytest.approx(said.step_time.mid - terms["data-comm"], rel=0.03)
    assert max(stage.peak_bytes for stage in found.pipelines[0].stages) == pytest.approx(said.memory.peak.mid, rel=0.01)


def test_recomputation_trades_time_for_memory(asked: tuple[str, Problem]) -> None:
    _, problem = asked
    none, full = (problem.times[Shape("all", 2, 1, recompute)] for recompute in ("none", "full"))

    assert (full.saved_bytes[1:-1] < none.saved_bytes[1:-1] / 5).all()
    assert np.allclose(full.forward_s, none.forward_s, rtol=0.01)
    assert (full.backward_s[1:-1] > none.backward_s[1:-1]).all()
    assert full.backward_s[-1] == none.backward_s[-1]


def test_only_shapes_that_were_priced_are_there(asked: tuple[str, Problem]) -> None:
    _, problem = asked

    assert problem.groups[0].tps == (1, 2, 4, 8)
    assert len(problem.times) == len(list(problem.times)) == 4 * len(problem.micro_batches) * 2
    assert Shape("all", 16, 1) not in problem.times
    with pytest.raises(KeyError):
        problem.times[Shape("all", 1, 1, "selective")]


def test_unlike_groups_reduce_inside_and_then_between() -> None:
    network = network_of(mixed(link("a", "b", 1e9)))

    alone = [network.all_reduce_s(1e9, {(name, 2): 8}) for name in "ab"]

    assert network.all_reduce_s(1e9, {("a", 2): 1}) == 0.0
    assert network.all_reduce_s(1e9, {("a", 2): 8, ("b", 2): 8}) == pytest.approx(max(alone) + 1.0, rel=1e-3)


def test_shards_reduce_side_by_side() -> None:
    network = network_of(mixed(link("a", "b")))

    assert network.all_reduce_s(1e9, {("a", 8): 2}) < network.all_reduce_s(1e9, {("a", 1): 16})


def test_groups_that_no_link_joins_are_refused() -> None:
    with pytest.raises(BadValue) as caught:
        from_predict(job(), mixed(link("a", "b"), third=True))

    assert caught.value.code == "SP-MIX-050"
    assert "c" in str(caught.value)


def test_a_pair_without_a_link_of_its_own_is_out_of_reach() -> None:
    network = network_of(mixed(link("a", "b"), link("b", "c"), third=True))

    assert network.send_s(1.0, source="a", target="c") == math.inf
    assert network.all_reduce_s(1e6, {("a", 1): 1, ("c", 1): 1}) == math.inf
    assert network.all_reduce_s(1e6, {("a", 1): 1, ("b", 1): 1, ("c", 1): 1}) < 1.0


def test_a_link_of_unknown_bandwidth_is_named() -> None:
    with pytest.raises(MissingFact, match="`a` - `b`"):
        from_predict(job(), mixed(link("a", "b", None)))


def two_stages(**changes: object) -> Pipeline:
    stages = (Stage(group="a", first=0, last=17), Stage(group="b", first=17, last=34))
    return msgspec.structs.replace(Pipeline(stages=stages, micro_batch=1, micro_batches=16), **changes)


@pytest.fixture(scope="module")
def crossing() -> Problem:
    return from_predict(job(global_batch=BATCH), mixed(link("a", "b", 1e9)))


def test_pipelines_share_the_link_between_two_groups(crossing: Problem) -> None:
    one, eight = (score(crossing, (two_stages(copies=copies, micro_batches=64),)) for copies in (1, 32))
    sends_s = 32 * 64 * eight.pipelines[0].stages[0].send_s

    assert sends_s > eight.pipelines[0].time_s == one.pipelines[0].time_s
    assert eight.step_s - eight.reduce_s - eight.update_s == pytest.approx(sends_s, rel=0.05)


def test_a_transport_that_blocks_stops_both_ends(crossing: Problem) -> None:
    free, blocking, buffered = (
        score(dataclasses.replace(crossing, transport=transport), (two_stages(),)).pipelines[0].stages
        for transport in (Transport(), Transport(blocking=True), Transport(blocking=True, buffer_bytes=1e12))
    )
    send_s = free[0].send_s

    assert [stages[1].pace_s - stages[1].forward_s - stages[1].backward_s for stages in (free, blocking, buffered)] == pytest.approx(
        [0.0, 2 * send_s, 2 * send_s], abs=1e-9
    )
    assert Transport(blocking=True, buffer_bytes=4.0).waits(4.0) == (1.0, 2.0)
    assert Transport(blocking=True, buffer_bytes=4.0).waits(5.0) == (2.0, 2.0)


def test_copies_that_block_on_a_shared_link_send_at_once(crossing: Problem) -> None:
    blocking = dataclasses.replace(crossing, transport=Transport(blocking=True, shared=True))
    one, eight = (score(blocking, (two_stages(copies=copies),)).pipelines[0].stages[0].send_s for copies in (1, 8))

    assert eight == pytest.approx(8 * one)


def test_a_link_slower_than_the_passes_sets_the_pace() -> None:
    slow = from_predict(job(global_batch=BATCH), mixed(link("a", "b", 1e7)))
    stages = score(slow, (two_stages(),)).pipelines[0].stages

    assert stages[1].pace_s == stages[0].send_s
    # the first stage has two micro-batches in flight, and waits for the first to come back
    assert stages[0].pace_s == pytest.approx(sum(one.forward_s + one.backward_s + 2 * one.send_s for one in stages) / 2)


def test_a_copy_of_a_tied_embedding_is_held_with_the_head() -> None:
    tied = TrainJob(workload=from_config({**LLAMA, "tie_word_embeddings": True}, name="tied", where="test").workload(1024), global_batch=8)
    problem = from_predict(tied, mixed(link("a", "b")))
    one_stage = two_stages(stages=(Stage(group="a", first=0, last=34),))
    whole, split = (score(problem, (pipeline,)).pipelines[0].stages for pipeline in (one_stage, two_stages()))

    assert problem.tied and problem.held["a", 2].tied_params == LLAMA["vocab_size"] * LLAMA["hidden_size"] / 2
    assert sum(stage.states_bytes for stage in split) - whole[0].states_bytes == pytest.approx(
        problem.held["a", 1].tied_params * sum((problem.state.weight, problem.state.gradient, problem.state.optimizer))
    )


def test_a_small_batch_may_stay_together() -> None:
    problem = from_predict(job(global_batch=7), mixed(link("a", "b")))
    assert 7 in problem.micro_batches
    assert max(problem.micro_batches) == 7
    assert from_predict(job(global_batch=BATCH), mixed(link("a", "b"))).micro_batches == (1, 2, 4, 8, 16, 32)
