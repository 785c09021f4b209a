"""The split of measured times: exact against enumeration, quick to follow a change, steady in noise."""

from __future__ import annotations

import itertools
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.mix.balance import Balancer, Lane, Measured, Smoothed, best_counts, best_cuts, parts_of
from sapper.mix.balance.balancer import gathered, spread
from sapper.mix.balance.recut import Tried, cuts_of
from sapper.mix.plan import MixPlan, Pipeline, Stage, seats
from sapper.mix.run.follow import Follower

times = st.floats(0.01, 5.0)


@st.composite
def lanes(draw: st.DrawFn) -> Lane:
    stages = draw(st.integers(1, 3))
    return Lane(
        passes_s=tuple(draw(times) for _ in range(stages)),
        replicas=tuple(draw(st.integers(1, 3)) for _ in range(stages)),
        fixed_s=draw(st.sampled_from([0.0, 0.7, 3.0])),
        sequences=draw(st.integers(1, 3)),
    )


@given(st.lists(lanes(), min_size=1, max_size=3), st.integers(1, 12))
def test_counts_are_the_best_of_all(given_lanes: list[Lane], sequences: int) -> None:
    ranges = [range(1, sequences // lane.sequences + 1) for lane in given_lanes]
    splits = [one for one in itertools.product(*ranges) if taken(given_lanes, one) == sequences]

    found = best_counts(given_lanes, sequences)

    if not splits:
        assert found is None
    else:
        assert found is not None and taken(given_lanes, found) == sequences
        assert end_s(given_lanes, found) == pytest.approx(min(end_s(given_lanes, one) for one in splits), rel=1e-12)


def taken(given_lanes: list[Lane], counts: tuple[int, ...]) -> int:
    return sum(count * lane.sequences for count, lane in zip(counts, given_lanes, strict=True))


def end_s(given_lanes: list[Lane], counts: tuple[int, ...]) -> float:
    return max(lane.time_s(count) for lane, count in zip(given_lanes, counts, strict=True))


@given(st.integers(0, 10_000))
def test_cuts_are_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages, micro_batches = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    layers = int(rng.integers(stages, 8))
    layers_s, weight, room = rng.uniform(0.1, 2, (stages, layers)), rng.uniform(0.1, 1, layers), rng.uniform(0.5, 3, stages)
    replicas = [int(one) for one in rng.integers(1, 3, stages)]

    def pipeline_s(ends: tuple[int, ...]) -> float:
        cuts = list(zip((0, *ends), ends, strict=False))
        if any(weight[a:b].sum() > room[s] for s, (a, b) in enumerate(cuts)):
            return float("inf")
        passes = [layers_s[s, a:b].sum() for s, (a, b) in enumerate(cuts)]
        return float(sum(passes) + max((-(-micro_batches // r) - 1) * one for r, one in zip(replicas, passes, strict=True)))

    best = min(pipeline_s((*inner, layers)) for inner in itertools.combinations(range(1, layers), stages - 1))

    found = best_cuts(layers_s, micro_batches, replicas=replicas, room=list(room), weight=weight)

    assert (float("inf") if found is None else pipeline_s(found)) == pytest.approx(best)


def even(chips: int, batch: int) -> MixPlan:
    counts = [batch // chips + (i < batch % chips) for i in range(chips)]
    pipelines = tuple(Pipeline(stages=(Stage(group="g", first=0, last=4),), micro_batch=1, micro_batches=one) for one in counts)
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=2, seq_len=1, global_batch=batch, pipelines=pipelines
    )


def counts_of(plan: MixPlan) -> list[int]:
    return [one.micro_batches for one in plan.pipelines]


def run(seed: int, *, noise: float, steps: int = 22, slows_at: int = 11) -> tuple[float, int]:
    """The worst distance to the best split from the third step after each change on, and how often the split changed.

    A chip slows down somewhere in the step ``slows_at``; each micro-batch has a noise of its own.
    """
    rng = random.Random(seed)
    chips = rng.randint(2, 4)
    plan = even(chips, rng.randint(10, 20) * chips)
    speeds = [rng.uniform(1.0, 4.5) for _ in range(chips)]
    slow, part = rng.randrange(chips), rng.random()
    balancer, worst, changes = Balancer(plan), 0.0, 0
    for step in range(steps):
        later = [one / (0.7 if step >= slows_at and rank == slow else 1.0) for rank, one in enumerate(speeds)]
        true = [Lane(passes_s=(one,)) for one in later]
        best = best_counts(true, plan.global_batch)
        assert best is not None
        if step % slows_at >= 2:
            worst = max(worst, end_s(true, tuple(counts_of(plan))) / end_s(true, best) - 1.0)
        measured = {}
        for rank, count in enumerate(counts_of(plan)):
            before = round(count * part) if step == slows_at else 0
            passes_s = [(speeds[rank] if at < before else later[rank]) * rng.lognormvariate(0, noise) for at in range(count)]
            measured[rank] = Measured(**vars(parts_of(passes_s)))
        decision = balancer.observe(measured)
        if decision is not None:
            plan, changes = decision.plan, changes + 1
    return worst, changes


def test_an_even_start_and_a_chip_that_slows_within_a_step_are_met_in_the_third() -> None:
    found = [run(seed, noise=0.03) for seed in range(20)]

    assert max(worst for worst, _ in found) <= 0.03
    assert max(changes for _, changes in found) <= 4


def test_without_noise_a_change_is_answered_at_once() -> None:
    assert {changes for _, changes in (run(seed, noise=0.0) for seed in range(10))} <= {1, 2, 3}


def test_a_step_is_told_before_and_after_its_shift() -> None:
    rng = random.Random(3)
    noisy = [one * rng.lognormvariate(0, 0.05) for one in [1.0] * 31 + [1.4] * 9]
    before, after = parts_of(noisy).parts_s

    assert before == pytest.approx(1.0, rel=0.02) and after == pytest.approx(1.4, rel=0.04)
    assert parts_of([1.0, 1.0, 1.2, 1.2]).parts_s == (1.0, pytest.approx(1.2))
    assert parts_of([2.0]).parts_s == (2.0,) and parts_of([]).parts_s == ()


def test_rare_slow_micro_batches_are_told_apart_and_those_of_a_quota_are_not() -> None:
    rng = random.Random(4)
    passes_s = [rng.lognormvariate(0, 0.05) for _ in range(24)]
    rare = parts_of([4.0 if at in (3, 15) else one for at, one in enumerate(passes_s)])
    quota = parts_of([4.0 if at % 3 == 2 else one for at, one in enumerate(passes_s)])

    assert sum(rare.parts_s) / 2 == pytest.approx(1.0, rel=0.05) and rare.hiccups == pytest.approx(0.25, rel=0.1)
    assert rare.error == pytest.approx(0.05 / 22**0.5, rel=0.5)
    assert sum(quota.parts_s) / 2 == pytest.approx(2.0, rel=0.05) and quota.hiccups == 0.0


def test_one_hiccup_moves_nothing() -> None:
    balancer = Balancer(even(2, 20))
    for _ in range(4):
        assert balancer.observe({0: Measured(parts_s=(1.0,)), 1: Measured(parts_s=(1.0,))}) is None

    assert balancer.observe({0: Measured(parts_s=(3.0,)), 1: Measured(parts_s=(1.0,))}) is None
    assert balancer.observe({0: Measured(parts_s=(1.0,)), 1: Measured(parts_s=(1.0,))}) is None


def test_nothing_is_decided_before_every_chip_has_times() -> None:
    balancer = Balancer(even(2, 20))
    assert balancer.observe({0: Measured(parts_s=(5.0,))}) is None

    decision = balancer.observe({1: Measured(parts_s=(1.0,))})
    assert decision is not None and counts_of(decision.plan) == [3, 17]
    assert decision.before_s == pytest.approx(50.0) and decision.after_s == pytest.approx(17.0)


def test_the_update_counts_too() -> None:
    decision = Balancer(even(2, 20)).observe({0: Measured(parts_s=(1.0,)), 1: Measured(parts_s=(1.0,), fixed_s=10.0)})

    assert decision is not None and counts_of(decision.plan) == [15, 5]


def test_each_copy_gets_a_count_of_its_own_and_ranks_stay() -> None:
    whole = even(1, 12)
    copies = msgspec.structs.replace(whole, pipelines=(msgspec.structs.replace(whole.pipelines[0], micro_batches=6, copies=2),))

    assert gathered(spread(copies)) == copies
    assert [one.rank for one in seats(spread(copies))] == [one.rank for one in seats(copies)]
    decision = Balancer(copies).observe({0: Measured(parts_s=(1.0,)), 1: Measured(parts_s=(2.0,))})
    assert decision is not None and counts_of(decision.plan) == [8, 4]


def test_the_mean_is_steadier_than_what_it_is_made_of() -> None:
    rng, kept = random.Random(1), Smoothed()
    errors = []
    for _ in range(200):
        kept.add(2.0 * rng.lognormvariate(0, 0.05))
        errors.append(abs(kept.value / 2.0 - 1.0))

    assert sum(errors[20:]) / 180 < 0.025
    assert kept.sd == pytest.approx(0.05, rel=0.4)


def test_a_shared_machine_is_known_by_its_first_steps_and_one_change_does_not_look_like_one() -> None:
    changed, found = Smoothed(), []
    for seed in range(20):
        rng, shared = random.Random(seed), Smoothed()
        for _ in range(6):
            shared.add(rng.lognormvariate(0, 0.3))
        found.append(shared.sd)
    for at in range(6):
        changed.add(1.0 if at < 3 else 1.43)

    assert sum(found) / 20 > 0.15
    assert changed.sd < 0.03 and changed.value == pytest.approx(1.43)


SPEEDS = (3.0, 1.0, 1.0)
"""Of the chips of a chain: seconds of a block."""
WEIGHTS = (0.2, *[1.0] * 8, 0.6)
"""Of the layers, in blocks."""


def chain(*ends: int) -> MixPlan:
    stages = tuple(Stage(group="g", first=first, last=last) for first, last in zip((0, *ends), ends, strict=False))
    pipelines = (Pipeline(stages=stages, micro_batch=1, micro_batches=6),)
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=8, seq_len=1, global_batch=6, pipelines=pipelines
    )


def passes(plan: MixPlan) -> list[float]:
    return [pace * sum(WEIGHTS[layer] for layer in one.layers) for pace, one in zip(SPEEDS, plan.pipelines[0].stages, strict=True)]


def steps_of(balancer: Balancer, times: list[list[float]], *, steps: int = 3) -> list[MixPlan]:
    """The plans that move layers, of some steps with the same times."""
    pairs = zip(SPEEDS, balancer.plan.pipelines[0].stages, strict=True)
    balancer.learn([{layer: pace * WEIGHTS[layer] for pace, one in pairs for layer in one.layers}])
    found = []
    for _ in range(steps):
        decision = balancer.observe({rank: Measured(parts_s=tuple(one)) for rank, one in enumerate(times)})
        if decision is not None and decision.moves:
            found.append(decision.plan)
    return found


def test_layers_move_to_where_they_are_fast_once_and_stay() -> None:
    start, tried = chain(4, 7, 10), Tried()
    first = steps_of(Balancer(start, tried=tried), [[one] for one in passes(start)], steps=2)

    truth = np.outer(SPEEDS, WEIGHTS)
    assert [cuts_of(one) for one in first] == [(best_cuts(truth, 6),)]
    assert steps_of(Balancer(first[0], tried=tried), [[one] for one in passes(first[0])]) == []


def test_a_stage_without_a_block_is_as_fast_as_the_others_of_its_group() -> None:
    start = chain(7, 9, 10)
    found = steps_of(Balancer(start, tried=Tried()), [[one] for one in passes(start)], steps=2)

    assert len(found) == 1 and cuts_of(found[0])[0][1] < 9


def test_cuts_that_do_not_hold_what_they_promised_are_left_again_and_not_tried_again() -> None:
    start, tried = chain(4, 7, 10), Tried()
    there = steps_of(Balancer(start, tried=tried), [[one] for one in passes(start)], steps=2)[0]
    back = steps_of(Balancer(there, tried=tried), [[3 * one] for one in passes(start)], steps=2)

    assert [cuts_of(one) for one in back] == [cuts_of(start)]
    assert cuts_of(there) not in [cuts_of(one) for one in steps_of(Balancer(start, tried=tried), [[one] for one in passes(start)])]


def run_on(plan: MixPlan, tried: Tried, *, slower: float = 1.0, steps: int = 6) -> MixPlan:
    """The plan of a run after the first move of its layers, or after ``steps``: all ranks tell and hear as in a real one."""
    ranks = [Follower(plan, rank=rank, share=0.02, tried=tried if rank == 0 else Tried()) for rank in range(len(SPEEDS))]
    for _ in range(steps):
        layers = [
            {layer: slower * pace * WEIGHTS[layer] for layer in one.layers}
            for pace, one in zip(SPEEDS, plan.pipelines[0].stages, strict=True)
        ]
        told = [one.tells([sum(own.values())] * 6, own) for one, own in zip(ranks, layers, strict=True)]
        decision, *_ = [one.hears([sum(values) for values in zip(*told, strict=True)], update_s=0.01) for one in ranks]
        if decision is not None and decision.moves:
            return decision.plan
    return plan


def test_a_run_goes_back_to_the_cuts_that_were_faster() -> None:
    start, tried = chain(4, 7, 10), Tried()
    there = run_on(start, tried)

    assert cuts_of(there) != cuts_of(start)
    assert cuts_of(run_on(there, tried, slower=3.0)) == cuts_of(start)
    assert cuts_of(run_on(start, tried)) != cuts_of(there)


def test_layers_do_not_follow_noise_and_follow_what_is_beyond_it() -> None:
    """A shared machine: each step of a chip is off by 20%, and the best cuts are those that run."""
    start = chain(2, 6, 10)
    moves = {1.0: 0, 2.5: 0}
    for slower, seed in itertools.product(moves, range(8)):
        rng, balancer = random.Random(seed), Balancer(start, tried=Tried(sds=dict.fromkeys(range(3), 0.2)))
        for _ in range(5):
            noisy = [[one * rng.lognormvariate(0, 0.2)] for one in passes(start)]
            noisy[1][0] *= slower
            moves[slower] += bool(steps_of(balancer, noisy, steps=1))

    assert moves[1.0] <= 1 and moves[2.5] >= 6


@pytest.mark.parametrize(("steps", "entered_s", "moved"), [(30, 60.0, 1), (3, 60.0, 0), (3, 1.0, 1), (None, 60.0, 1)])
def test_layers_move_only_where_that_pays_before_the_run_ends(steps: int | None, entered_s: float, moved: int) -> None:
    start = chain(4, 7, 10)
    balancer = Balancer(start, tried=Tried(), steps=steps)
    pairs = zip(SPEEDS, start.pipelines[0].stages, strict=True)
    balancer.learn([{layer: pace * WEIGHTS[layer] for pace, one in pairs for layer in one.layers}])
    told = {rank: Measured(parts_s=(one,), entered_s=entered_s) for rank, one in enumerate(passes(start))}
    found = [balancer.observe(told) for _ in range(2)]

    assert [one is not None and one.moves for one in found] == [False, bool(moved)]


def test_layers_move_no_further_than_memory_allows() -> None:
    start = chain(4, 7, 10)
    found = steps_of(Balancer(start, tried=Tried(), fits=lambda one: cuts_of(one)[0][0] > 2), [[one] for one in passes(start)], steps=2)

    assert len(found) == 1 and cuts_of(found[0])[0][0] == 3


def test_without_leave_to_move_weights_counts_alone_change() -> None:
    assert steps_of(Balancer(chain(4, 7, 10)), [[one] for one in passes(chain(4, 7, 10))]) == []
