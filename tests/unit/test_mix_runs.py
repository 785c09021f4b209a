"""Cuts of chains of one or two runs of like stages, held against the dynamic program that cuts any chain."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sapper.mix.problem import Problem
from sapper.mix.search.chains import Chain, Column
from sapper.mix.search.cuts import cut
from sapper.mix.search.runs import runs_of
from sapper.mix.search.segments import Kind, Table


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """Made-up problems of two groups, of which memory limits some stages."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "mix"))
    monkeypatch.delitem(sys.modules, "instances", raising=False)
    from instances import instance

    draw = np.random.default_rng(11)
    return [instance(draw, chips=24, layers=layers, batch=24, groups=2) for layers in (7, 12, 18, 26) for _ in range(2)]


def chains(asked: Problem) -> list[Chain]:
    """Of one run and of two, with few and with many micro-batches."""
    first, second = ([Kind(one.name, tp, recompute) for tp in one.tps for recompute in asked.recomputes] for one in asked.groups)
    alike = [(kind,) * depth for kind in (*first, *second) for depth in (1, 2, 3, 6)]
    crossing = [(a,) * m + (b,) * n for a in first for b in second for m, n in ((1, 1), (2, 1), (1, 3), (3, 4))]
    return [
        Chain(kinds, size, count, (1,) * len(kinds))
        for kinds in (*alike, *crossing)
        for size in asked.micro_batches
        for count in (1, 4, 40)
        if len(kinds) <= asked.layers
    ]


def time_s(column: Column | None, count: int) -> float | None:
    return None if column is None else column.time_s(count)


def test_runs_of_like_stages_are_cut_as_well_as_by_the_dynamic_program(drawn: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(one, chains(one)) for one in drawn]

    found = [cut(Table(one), each) for one, each in asked]
    monkeypatch.setattr(Table, "even", False)
    due = [cut(Table(one), each) for one, each in asked]

    times = [[time_s(c, chain.count) for c, chain in zip(cs, each, strict=True)] for cs, (_, each) in zip(found, asked, strict=True)]
    times_due = [[time_s(c, chain.count) for c, chain in zip(cs, each, strict=True)] for cs, (_, each) in zip(due, asked, strict=True)]
    assert any(one is None for each in times_due for one in each) and any(one is not None for each in times_due for one in each)
    for each, each_due in zip(times, times_due, strict=True):
        assert [one is None for one in each] == [one is None for one in each_due]
        assert [one for one in each if one is not None] == pytest.approx([one for one in each_due if one is not None], rel=1e-9)


def test_a_layer_that_one_stage_alone_may_hold_does_not_leave_another_without_layers(drawn: list[Problem]) -> None:
    """Half of all work is in the second layer: stages are cut about it, each with a layer of its own."""
    one = next(each for each in drawn if each.layers == 12)
    heavy = np.where(np.arange(12) == 1, 12.0, 1.0)
    times = {shape: replace(each, forward_s=each.forward_s * heavy) for shape, each in one.times.items()}
    asked = replace(one, times=times, groups=tuple(replace(group, capacity_bytes=1e15) for group in one.groups))
    kind = Kind(asked.groups[0].name, 1)

    found = cut(Table(asked), [Chain((kind,) * depth, 1, 1, (1,) * depth, 1) for depth in (2, 4, 6)])

    for column in found:
        assert column is not None
        assert all(first < last for first, last in zip(column.cuts, column.cuts[1:], strict=False))


def test_of_cuts_that_take_the_same_time_the_layers_are_shared_out_evenly(drawn: list[Problem]) -> None:
    """The last stage has the heavy layer and sets the pace: the others could hold its time in layers, and hold their share instead."""
    one = next(each for each in drawn if each.layers == 18)
    heavy = np.where(np.arange(18) == 17, 6.0, 1.0)
    times = {shape: replace(each, forward_s=heavy, backward_s=heavy) for shape, each in one.times.items()}
    asked = replace(one, times=times, groups=tuple(replace(group, capacity_bytes=1e15) for group in one.groups))
    kind = Kind(asked.groups[0].name, 1)

    (column,) = cut(Table(asked), [Chain((kind,) * 5, 1, 40, (1,) * 5)])

    assert column is not None
    held = [last - first for first, last in itertools.pairwise(column.cuts)]
    assert held == [4, 4, 4, 5, 1]


def test_chains_that_turn_twice_or_hold_unlike_shares_are_for_the_dynamic_program() -> None:
    a, b = Kind("a", 1), Kind("b", 1)

    assert runs_of(Chain((a, b, b), 1, 4, (1, 1, 1))) is not None
    assert runs_of(Chain((a, b, a), 1, 4, (1, 1, 1))) is None
    assert runs_of(Chain((a, a), 1, 4, (1, 2))) is None
