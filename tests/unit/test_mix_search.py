"""The search over plans for unlike chips, on problems of made-up chips."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sapper.mix.objective import score, score_plan
from sapper.mix.plan import Pipeline, Stage, check
from sapper.mix.problem import Held, Problem, Shape, StateBytes, Supply, Times, Transport
from sapper.mix.result import Planned
from sapper.mix.search import search
from sapper.mix.search.candidates import columns
from sapper.mix.search.exact import Proved, proved
from sapper.mix.search.floors import Floors
from sapper.mix.search.lighten import binds, lightened
from sapper.mix.search.partial import Ask, Extension, enumerated
from sapper.mix.search.segments import Table
from sapper.mix.search.spread import spread


class Ring:
    """One link speed everywhere."""

    def __init__(self, bytes_per_s: float = 1e10, *, apart: frozenset[str] = frozenset()) -> None:
        """``apart``: groups that reach nobody else."""
        self.bytes_per_s, self.apart = bytes_per_s, apart

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        if source != target and {source, target} & self.apart:
            return float("inf")
        return 1e-5 + size_bytes / self.bytes_per_s

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        sets, groups = sum(members.values()), {group for group, _ in members}
        if len(groups) > 1 and groups & self.apart:
            return float("inf")
        shard_bytes = size_bytes / min(tp for _, tp in members)
        return 0.0 if sets < 2 else 2 * (sets - 1) * (1e-5 + shard_bytes / sets / self.bytes_per_s)


def problem(
    chips: Sequence[int] = (4, 4),
    *,
    layers: int = 8,
    batch: int = 32,
    speeds: Sequence[float] = (1.0, 0.4, 0.6, 0.2),
    capacities: Sequence[float] = (40e9, 16e9, 24e9, 12e9),
    network: Ring | None = None,
) -> Problem:
    """Blocks of one size between a light embedding and a heavy head."""
    work = np.ones(layers)
    work[0], work[-1] = 0.1, 1.3
    times, held, groups = {}, {}, []
    for name, count, speed, capacity in zip("abcd", chips, speeds, capacities, strict=False):
        groups.append(Supply(name, count, 4, capacity, overhead_bytes=1e9, tps=(1, 2)))
        for tp in (1, 2):
            held[name, tp] = Held(work * 1e8 / tp, work * 1e-3 / tp)
            for micro_batch in (1, 2, 4):
                forward = work * 3e-3 * (micro_batch + 0.3) / speed / (1.0 if tp == 1 else 1.7)
                size = np.full(layers, 4e8 * micro_batch / tp)
                times[Shape(name, tp, micro_batch)] = Times(forward, 2 * forward, size, size / 10)
    return Problem(
        model="made up", layers=layers, seq_len=128, global_batch=batch, groups=tuple(groups), times=times, held=held,
        boundary_bytes=np.full(layers, 4e6), state=StateBytes(2.0, 4.0, 12.0, 4.0), network=network or Ring(), micro_batches=(1, 2, 4)
    )  # fmt: skip


def assert_whole(asked: Problem, found: Planned) -> None:
    """The plan can be meant, fits, and costs what the answer says."""
    assert found.best is not None and found.score is not None and found.bound_s is not None
    check(found.best, supply={one.name: one.chips for one in asked.groups})
    again = score_plan(asked, found.best)
    assert again.fits
    assert again.step_s == pytest.approx(found.score.step_s)
    assert found.bound_s <= found.score.step_s
    assert all(one.step_s is None or one.step_s >= found.score.step_s for one in found.subfleets)


@pytest.mark.slow
def test_unlike_groups_share_the_batch_by_their_speed() -> None:
    asked = problem((2, 2), layers=6)

    found = search(asked)

    assert_whole(asked, found)
    assert found.best is not None and set(found.best.chips) == {"a", "b"}
    assert found.gain is not None and found.gain > 0.1


@pytest.mark.slow
def test_groups_that_cannot_reach_each_other_are_not_mixed() -> None:
    asked = problem((2, 2), layers=6, network=Ring(apart=frozenset("b")))

    found = search(asked)

    assert_whole(asked, found)
    assert found.best is not None and found.best.chips == {"a": 2}
    assert found.best.idle == {"b": 2}
    assert found.verdict is not None and found.verdict.code == "mix.verdict.alone"


def test_a_model_that_no_group_holds_alone_is_cut_over_both() -> None:
    asked = problem((2, 2), layers=12, capacities=(9e9, 9e9))

    found = search(asked)

    assert_whole(asked, found)
    assert found.alone_s == {"a": None, "b": None}
    assert found.verdict is not None and found.verdict.code == "mix.verdict.only"


def test_what_fits_nowhere_says_how_much_is_missing() -> None:
    found = search(problem((1, 1), capacities=(3e9, 3e9)))

    assert found.best is None
    assert [one.values["group"] for one in found.why_none] == ["a", "b"]


@pytest.mark.slow
def test_chains_over_three_groups_take_sizes_between_where_those_that_look_fastest_do_not_fit() -> None:
    asked = problem((3, 3, 3), layers=9, batch=256, capacities=(7e9, 7e9, 7e9), speeds=(1.0, 0.8, 0.9))
    times = dict(asked.times)
    for shape, one in asked.times.items():
        if shape.micro_batch == 4:
            for times_4 in (2, 4):  # larger ones take no longer, so that they look fastest
                forward = one.forward_s
                wider = Shape(shape.group, shape.tp, 4 * times_4)
                times[wider] = Times(forward, 2 * forward, one.saved_bytes * times_4, one.working_bytes * times_4)
    asked = replace(asked, times=times, micro_batches=(1, 2, 4, 8, 16))
    sizes = {one.micro_batch for one in columns(Table(asked), asked.groups)}
    assert 2 in sizes and 16 not in sizes


@pytest.mark.parametrize("time_s", [0.0, pytest.param(30.0, marks=pytest.mark.thorough)])
def test_a_cluster_is_never_slower_than_a_part_of_it(time_s: float) -> None:
    draw = np.random.default_rng(3)
    counts = [int(one) for one in draw.integers(2, 4, 3)]
    speeds, capacities = draw.uniform(0.1, 1.0, 3), draw.uniform(9e9, 40e9, 3)
    asked = problem(counts, layers=4, batch=int(draw.integers(8, 17)), speeds=speeds, capacities=capacities)
    found = search(asked, time_s=time_s)
    assert_whole(asked, found)
    assert found.score is not None
    for one in asked.groups:
        alone = search(replace(asked, groups=(one,))).score
        assert alone is None or found.score.step_s <= alone.step_s * (1 + 1e-9)


@pytest.mark.slow
def test_the_bound_is_never_above_the_optimum_and_the_plan_is_near_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "mix"))
    for name in ("exhaustive", "instances"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from exhaustive import TooLarge, optimum
    from instances import instance

    draw, held = np.random.default_rng(17), 0
    while held < 6:
        chips = int(draw.integers(2, 4))
        asked = instance(draw, chips=chips, layers=int(draw.integers(3, 6)), batch=int(draw.integers(2, 7)), groups=2)
        found = search(asked)
        if found.score is None or found.bound_s is None:
            continue
        try:
            best = optimum(asked, within_s=found.score.step_s)
        except TooLarge:
            continue
        held += 1
        assert found.bound_s <= best * (1 + 1e-9)
        assert best >= 0.97 * found.score.step_s


def test_a_small_problem_is_solved_whole_and_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pipelines that cross from group to group: chains of like stages alone reach 0.941 of it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "mix"))
    monkeypatch.delitem(sys.modules, "instances", raising=False)
    from instances import instance

    draw = np.random.default_rng(21)
    for _ in range(7):
        chips, layers = int(draw.integers(2, 6)), int(draw.integers(3, 7))
        asked = instance(draw, chips=chips, layers=layers, batch=int(draw.integers(2, 17)), groups=int(draw.integers(1, min(3, chips) + 1)))

    asked = replace(asked, transport=Transport(overlapped=False))
    found = search(asked)

    assert_whole(asked, found)
    assert found.score is not None and found.gap is not None and found.best is not None
    assert found.score.step_s == pytest.approx(0.5042312779703977)
    assert found.gap < 1e-6
    assert all(len({stage.group for stage in one.stages}) == 2 for one in found.best.pipelines)


def test_few_chips_of_a_larger_job_are_searched_whole_only_where_they_might_be_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[str, ...]] = []

    def recorded(table: Table, groups: Sequence[Supply], *, below_s: float | None, least_s: float) -> Proved:
        searched.append(tuple(one.name for one in groups))
        return proved(table, groups, below_s=below_s, least_s=least_s)

    monkeypatch.setattr("sapper.mix.search.planner.proved", recorded)

    slow_beside_many = search(problem((16, 4), layers=4, batch=16, speeds=(1.0, 0.05)))

    assert searched == []
    assert slow_beside_many.score is not None
    assert all(one.step_s is not None for one in slow_beside_many.subfleets), "what each group gives alone is told all the same"

    cut_off = problem((12, 4), layers=4, batch=8, speeds=(0.02, 1.0), network=Ring(apart=frozenset("ab")))
    found = search(cut_off)

    assert searched == [("b",)]
    alone = search(replace(cut_off, groups=cut_off.groups[1:]))
    assert found.score is not None and alone.score is not None
    assert found.score.step_s == pytest.approx(alone.score.step_s)


def test_a_group_that_is_fastest_alone_gains_nothing_over_itself() -> None:
    """Its best plan is found when all plans are looked at; what the steps before find on it is 15% slower."""
    draw = np.random.default_rng(1)
    groups = int(draw.integers(2, 4))
    chips = [int(one) for one in draw.integers(1, 4, groups)]
    speeds, capacities = draw.uniform(0.03, 1.0, groups), draw.uniform(4e9, 16e9, groups)
    asked = problem(
        chips, layers=int(draw.integers(3, 7)), batch=int(draw.integers(2, 9)), speeds=speeds, capacities=capacities,
        network=Ring(float(draw.choice([1e9, 1e10])), apart=frozenset(draw.choice(["", "b"]))),
    )  # fmt: skip
    found = search(asked)

    assert found.best is not None and found.score is not None
    assert list(found.best.chips) == ["b"]
    assert found.gain == 0.0
    assert found.alone_s["b"] == pytest.approx(found.score.step_s)


def test_partial_pipelines_count_the_micro_batches_that_their_times_allow() -> None:
    asked = problem((3, 3), layers=5, batch=16, capacities=(11e9, 7e9))
    extension = Extension(Table(asked), asked.groups, 2, Floors(Table(asked), asked.groups))
    found = enumerated(extension, Ask(1.0, range(1, 7), None), most=100_000).levels[2]
    whole = found.pick(found.first == 0)
    rest_s, left_s = extension.rest_s(whole), np.linspace(0.0, 1.0, len(whole.first))

    assert len(whole.first) > 20
    assert len(np.unique(np.isfinite(rest_s).sum(axis=1))) > 1, "memory limits some of them"
    assert (extension.counts(whole, within_s=left_s + whole.way_s) == (rest_s <= left_s[:, None]).sum(axis=1)).all()


def test_weights_and_gradients_are_shared_only_where_memory_asks_for_it() -> None:
    """Four copies of a model of 13 GB of states: with room for all, for sharded optimizer states, and for sharded weights alone."""

    def copies(asked: Problem, zero: int) -> tuple[Pipeline, ...]:
        return (Pipeline(stages=(Stage(group="a", first=0, last=8, zero=zero),), micro_batch=1, micro_batches=2, copies=4),)

    roomy, tight = (problem((4,), batch=8, capacities=(size,)) for size in (80e9, 8.8e9))
    whole, shared = (score(roomy, copies(roomy, zero)) for zero in (0, 3))

    assert lightened(roomy, copies(roomy, 3))[0].stages[0].zero <= 1
    assert lightened(tight, copies(tight, 3))[0].stages[0].zero == 3
    assert not score(tight, copies(tight, 1)).fits and score(tight, copies(tight, 3)).fits
    assert shared.pipelines[0].time_s > whole.pipelines[0].time_s, "weights that come in each pass take time"
    assert shared.pipelines[0].stages[0].states_bytes < 0.5 * whole.pipelines[0].stages[0].states_bytes
    assert shared.reduce_s == 0.0, "who shares gradients has summed them in the passes"
    assert binds(tight) and not binds(roomy)


def test_no_choice_of_zero_0_and_1_by_stage_is_faster_than_the_one_that_is_made() -> None:
    """Three stages of unlike size: the update of the largest is worth sharing, that of the smallest follows nobody."""
    asked = problem((12,), batch=8, capacities=(80e9,))
    cuts = ((0, 5), (5, 7), (7, 8))

    def with_zeros(zeros: Sequence[int]) -> tuple[Pipeline, ...]:
        stages = tuple(Stage(group="a", first=first, last=last, zero=zero) for (first, last), zero in zip(cuts, zeros, strict=True))
        return (Pipeline(stages=stages, micro_batch=1, micro_batches=2, copies=4),)

    found = lightened(asked, with_zeros((3, 3, 3)))

    every = {zeros: score(asked, with_zeros(zeros)).step_s for zeros in itertools.product((0, 1), repeat=3)}
    assert score(asked, found).step_s == min(every.values())
    chosen = tuple(stage.zero for stage in found[0].stages)
    assert all(every[zeros] > every[chosen] for zeros in every if sum(zeros) < sum(chosen)), "no more ZeRO than it takes"


def test_a_backward_pass_hides_all_but_the_last_bucket_of_gradients() -> None:
    at_once, in_buckets = Transport(overlapped=False), Transport(bucket_bytes=10.0)

    assert at_once.exposed_s(3.0, backward_s=9.0, size_bytes=100.0) == 3.0
    assert in_buckets.exposed_s(3.0, backward_s=9.0, size_bytes=100.0) == pytest.approx(0.3)
    assert in_buckets.exposed_s(30.0, backward_s=10.0, size_bytes=100.0) == pytest.approx(21.0)
    assert in_buckets.exposed_s(3.0, backward_s=9.0, size_bytes=10.0) == 3.0


def test_stages_are_as_wide_as_their_work_asks_for_and_a_judge_without_windows_prefers_them() -> None:
    """Twelve fast chips and eight slow ones in one pipeline: whole, within the chips, and of balanced stages."""
    asked = replace(problem((12, 8), layers=10, batch=96), transport=Transport(windowed=False))

    found = [pipelines[0] for pipelines in spread(Table(asked), asked.groups, below_s=np.inf)]

    assert any(len({stage.replicas for stage in one.stages}) > 1 for one in found)
    for one in found:
        assert [stage.first for stage in one.stages] == [0, *(stage.last for stage in one.stages[:-1])]
        assert one.stages[-1].last == asked.layers and one.sequences == asked.global_batch
        for supply in asked.groups:
            assert sum(stage.chips for stage in one.stages if stage.group == supply.name) <= supply.chips
    best = min(found, key=lambda one: score(asked, (one,)).step_s)
    priced = score(asked, (best,)).pipelines[0]
    rests = sorted((-(-best.micro_batches // s.replicas) - 1) * c.pace_s for s, c in zip(best.stages, priced.stages, strict=True))
    assert rests[-2] > 0.8 * rests[-1]
    windowed = replace(asked, transport=Transport())
    assert score(windowed, (best,)).step_s >= score(asked, (best,)).step_s
