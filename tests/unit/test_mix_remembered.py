"""What a search remembers changes no plan."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import pytest

from sapper.mix.search import planner
from sapper.mix.search.remembered import Remembered
from support import ROOT


class Counted:
    """A network that counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        self.asked += 1
        return size_bytes * (1 + len(source) + 2 * len(target)) / tp

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        self.asked += 1
        return size_bytes * sum(tp * sets for (_, tp), sets in members.items())


def test_each_question_is_answered_as_the_network_would_and_asked_once() -> None:
    plain, counted = Counted(), Counted()
    known = Remembered(counted)
    sends = [(8.0, "a", "bb", 1), (8.0, "bb", "a", 1), (8.0, "a", "bb", 2), (9.0, "a", "bb", 1)]
    sums = [(8.0, {("a", 1): 2}), (8.0, {("a", 2): 1}), (8.0, {("a", 1): 2, ("bb", 1): 1}), (9.0, {("a", 1): 2})]

    for _ in range(2):
        for size, source, target, tp in sends:
            assert known.send_s(size, source=source, target=target, tp=tp) == plain.send_s(size, source=source, target=target, tp=tp)
        for size, members in sums:
            assert known.all_reduce_s(size, members) == plain.all_reduce_s(size, members)

    assert counted.asked == len(sends) + len(sums)


@pytest.mark.parametrize("seed", range(4))
def test_plans_are_the_same_with_and_without_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "mix"))
    instances = importlib.import_module("instances")
    problem = instances.instance(np.random.default_rng(seed), chips=12 + 6 * seed, layers=8, batch=24, groups=2 + seed % 2)
    found = planner.search(problem)
    monkeypatch.setattr(planner, "Remembered", lambda network: network)
    asked = planner.search(problem)

    assert (found.best, found.score, found.bound_s) == (asked.best, asked.score, asked.bound_s)
