"""Which shape of pipeline each group should have, all groups together: what they share is the reduction of gradients.

A *shape* is a chain of like stages with its best cut for every size of micro-batch. How many sequences a group takes in a given time
follows from its shape alone, and the reduction from the shapes of all; so that all products of shapes are priced as arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sapper.mix.problem import Problem, Supply
from sapper.mix.search.chains import Column
from sapper.mix.search.segments import Kind, Table
from sapper.predict.arrays import Floats, Ints

SHAPES = 40
"""Of one group that products are made of."""
PRODUCTS = 1024
"""At most; with more groups, each has fewer shapes."""
HALVINGS = 16


@dataclass(frozen=True)
class Shaped:
    """A chain on one group."""

    kinds: tuple[Kind, ...]
    copies: int
    columns: tuple[Column, ...]
    """By size of micro-batch."""
    heaviest: int
    """The stage with most to reduce on one chip."""
    middle: int
    """A layer of it."""
    whole_params: float
    """Its weights, all shards together."""
    update_s: float

    @cached_property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """Who holds each layer, as members of a reduction are told apart."""
        runs = zip(self.kinds, itertools.pairwise(self.columns[0].cuts), strict=True)
        return tuple((kind.group, kind.tp) for kind, (first, last) in runs for _ in range(first, last))


class Rates:
    """What shapes of one group take in a given time. Legend: S = shapes, C = sizes of micro-batch of the shape that has most."""

    def __init__(self, found: Sequence[Shaped]) -> None:
        """Of ``found``."""
        size = max(len(one.columns) for one in found)
        self._fill_s, self._limit, self._sequences = np.zeros((3, len(found), size))
        self._pace_s = np.ones((len(found), size))
        for s, one in enumerate(found):
            for c, column in enumerate(one.columns):
                self._fill_s[s, c], self._pace_s[s, c], self._limit[s, c] = column.fill_s, max(column.paces_s), column.limit
                self._sequences[s, c] = column.micro_batch * one.copies

    def takes(self, time_s: Floats, shapes: Ints) -> Floats:
        """Sequences of all copies of each of ``shapes`` in each of ``time_s``; both have one length."""
        fill_s, most = self._fill_s[shapes], self._limit[shapes]
        spent_s = np.maximum(time_s[:, None] - fill_s, 0.0)
        turns = np.minimum(np.floor(spent_s / self._pace_s[shapes] + 1e-9) + 1.0, most)
        return np.asarray(np.where(time_s[:, None] >= fill_s, turns * self._sequences[shapes], 0.0).max(axis=1), float)


def shapes(table: Table, supply: Supply, pool: Sequence[Column]) -> list[Shaped]:
    """Those of ``pool`` that are on ``supply`` alone."""
    by_chain: dict[tuple[Kind, ...], list[Column]] = {}
    for one in pool:
        if {kind.group for kind in one.kinds} == {supply.name}:
            by_chain.setdefault(one.kinds, []).append(one)
    return [_shaped(table, supply, kinds, columns) for kinds, columns in by_chain.items()]


def _shaped(table: Table, supply: Supply, kinds: tuple[Kind, ...], columns: list[Column]) -> Shaped:
    copies = supply.chips // sum(kind.chips for kind in kinds)
    first = columns[0]
    runs = list(itertools.pairwise(first.cuts))
    held, updates = [], []
    for kind, run in zip(kinds, runs, strict=True):
        segments = table.segments(kind, first.micro_batch)
        assert segments is not None, "a column has times"
        held.append(float(segments.params[run]))
        updates.append(float(segments.update_s[run]) / (copies if kind.zero else 1))
    heaviest = int(np.argmax(held))
    return Shaped(
        kinds=kinds,
        copies=copies,
        columns=tuple(columns),
        heaviest=heaviest,
        middle=sum(runs[heaviest]) // 2,
        whole_params=held[heaviest] * kinds[heaviest].tp,
        update_s=max(updates),
    )


def blends(table: Table, groups: Sequence[Supply], pool: Sequence[Column], *, most: int) -> Iterator[tuple[tuple[Shaped, ...], float]]:
    """The ``most`` fastest products of shapes, one for each of ``groups``, with the time of each."""
    problem = table.problem
    each = max(2, min(SHAPES, int(PRODUCTS ** (1.0 / len(groups)))))
    choices = [_promising(problem, shapes(table, supply, pool), each) for supply in groups]
    if not all(choices):
        return
    products = list(itertools.product(*choices))
    after = np.array([_after_s(problem, one) for one in products])
    times = _times(problem, choices, products)
    order = np.argsort(times + after, kind="stable")
    for index in order[:most]:
        if np.isfinite(times[index] + after[index]):
            yield products[index], float(times[index] + after[index])


def _promising(problem: Problem, found: list[Shaped], most: int) -> list[Shaped]:
    """Shapes that no other beats both in pace and in what it has to reduce; then the next best."""
    able = np.arange(len(found))
    taken = Rates(found).takes(np.full(len(found), 1e6), able) if found else able
    rate = {id(one): float(most) for one, most in zip(found, taken, strict=True)}
    found = sorted((one for one in found if rate[id(one)] > 0.0), key=lambda one: -rate[id(one)])
    kept, lightest = [], np.inf
    for one in found:
        weight = one.whole_params / one.kinds[one.heaviest].tp
        if weight < lightest:
            lightest = weight
            kept.append(one)
    rest = [one for one in found if one not in kept]
    return (
        (kept + rest)[:most] if len(kept) <= most else [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, most).round().astype(int))]
    )


def _after_s(problem: Problem, product: tuple[Shaped, ...]) -> float:
    """Reduction and update of the slowest stage of any of them."""
    worst = 0.0
    for one in product:
        members: dict[tuple[str, int], int] = {}
        for other in product:
            key = other.keys[one.middle]
            members[key] = members.get(key, 0) + other.copies
        worst = max(worst, problem.network.all_reduce_s(one.whole_params * problem.state.wire, members) + one.update_s)
    return worst


def _times(problem: Problem, choices: list[list[Shaped]], products: list[tuple[Shaped, ...]]) -> Floats:
    """Least time in which each product takes the global batch."""
    rank = [{id(one): index for index, one in enumerate(shaped)} for shaped in choices]
    index = np.array([[rank[g][id(one)] for g, one in enumerate(product)] for product in products])
    rates = [Rates(shaped) for shaped in choices]
    slowest = max(one.time_s(-(-problem.global_batch // one.micro_batch)) for shaped in choices for kind in shaped for one in kind.columns)
    low, high = np.zeros(len(products)), np.full(len(products), slowest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        taken = np.zeros(len(products))
        for g, one in enumerate(rates):
            taken += one.takes(middle, index[:, g])
        enough = taken >= problem.global_batch
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    return high
