"""A step time that no plan goes below, whatever it does with the chips.

Every sequence passes every layer on some chip, and a chip of a step of T seconds works for T seconds at most. With a price on each
group's chips (any price: the bound holds for all, and the best is near the dual optimum of the linear program), the cheapest way to
run each layer gives

    T sum_g price_g chips_g >= batch sum_l min_(g, tp, micro-batch) price_g tp pass_l / micro-batch

Beside that, no step is shorter than the pass of one micro-batch through all layers, each on the shape that is fastest at it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sapper.mix.problem import Supply
from sapper.mix.search.candidates import kinds_of
from sapper.mix.search.segments import Table
from sapper.predict.arrays import Floats

ROUNDS = 60


def bound_s(table: Table, groups: Iterable[Supply]) -> float:
    """Of all plans on ``groups`` or a part of them."""
    problem, groups = table.problem, tuple(groups)
    work = np.full((len(groups), problem.layers), np.inf)
    once = np.full(problem.layers, np.inf)
    for g, supply in enumerate(groups):
        for kind in kinds_of(problem, supply):
            for micro_batch in problem.micro_batches:
                segments = table.segments(kind, micro_batch)
                if segments is None or micro_batch > problem.global_batch:
                    continue
                passes = segments.times.forward_s + segments.times.backward_s
                work[g] = np.minimum(work[g], passes * kind.tp / micro_batch)
                once = np.minimum(once, passes)
    usable = np.isfinite(work).all(axis=1)
    if not usable.any():
        return float("inf")
    chips = np.array([supply.chips for supply, kept in zip(groups, usable, strict=True) if kept], float)
    return max(problem.global_batch * _dual(work[usable], chips), float(once.sum()))


def _dual(work: Floats, chips: Floats) -> float:
    """Seconds for one sequence: the best of the prices that a multiplicative ascent visits, each of which is a bound."""
    prices = 1.0 / work.sum(axis=1)
    best = 0.0
    step = 0.5
    for _ in range(ROUNDS):
        prices = prices / float(prices @ chips)
        cheapest = (prices[:, None] * work).argmin(axis=0)
        layers = np.arange(work.shape[1])
        best = max(best, float((prices[cheapest] * work[cheapest, layers]).sum()))
        busy = np.array([work[g, cheapest == g].sum() for g in range(len(chips))]) / chips
        if len(chips) == 1 or busy.sum() == 0.0:
            break
        # A group that is asked for more than its share becomes dearer.
        prices = prices * np.exp(step * (busy / busy.max() - busy.mean() / busy.max()))
        step *= 0.93
    return best
