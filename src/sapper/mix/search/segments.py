"""What a run of layers costs as one stage, for every run at once.

Legend: L = layers; arrays [L + 1, L + 1] are indexed [first, last] as a stage is, and hold no way (or no room) below the diagonal.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sapper.mix.problem import Problem, Shape, Times
from sapper.predict.arrays import Floats, Ints
from sapper.predict.plan import Recompute

NEVER = np.iinfo(np.int64).max // 4
NO_WAY = 1e30
"""Seconds that stand for what cannot be; finite, so that nought micro-batches of it take no time."""


class Kind(NamedTuple):
    """How a stage works, whatever its layers; a tuple, since a search looks things up by it a hundred thousand times."""

    group: str
    tp: int
    recompute: Recompute = "none"
    zero: int = 0
    replicas: int = 1

    @property
    def chips(self) -> int:
        """Of one stage."""
        return self.tp * self.replicas


def _ahead(values: Floats) -> Floats:
    """[L + 1] sum of ``values`` before each layer, and of all."""
    return np.concatenate(([0.0], np.cumsum(values)))


def _sums(values: Floats) -> Floats:
    """[first, last] -> sum of ``values`` between."""
    run = _ahead(values)
    return np.asarray(run[None, :] - run[:, None], float)


def _greatest(values: Floats) -> Floats:
    """[first, last] -> greatest of ``values`` between; 0 for an empty run."""
    size = len(values)
    found = np.zeros((size + 1, size + 1))
    for first in range(size):
        found[first, first + 1 :] = np.maximum.accumulate(values[first:])
    return found


@dataclass(frozen=True)
class Segments:
    """Every run of layers as a stage of one shape."""

    problem: Problem
    shape: Shape
    times: Times

    @cached_property
    def pass_s(self) -> Floats:
        """Forward and backward of one micro-batch; ``NO_WAY`` for an empty run."""
        found = _sums(self.times.forward_s + self.times.backward_s)
        found[np.tril_indices(len(found))] = NO_WAY
        return found

    @cached_property
    def backward_s(self) -> Floats:
        """Backward of one micro-batch."""
        return _sums(self.times.backward_s)

    @cached_property
    def params(self) -> Floats:
        """Weights on one chip."""
        return _sums(self.problem.held[self.shape.group, self.shape.tp].params)

    @cached_property
    def update_s(self) -> Floats:
        """Optimizer, not sharded."""
        return _sums(self.problem.held[self.shape.group, self.shape.tp].update_s)

    @cached_property
    def saved(self) -> Floats:
        """Activations of one micro-batch in flight."""
        return _sums(self.times.saved_bytes)

    @cached_property
    def working(self) -> Floats:
        """Taken while a stage computes."""
        return _greatest(self.times.working_bytes)

    @cached_property
    def ahead(self) -> tuple[Floats, Floats, Floats]:
        """[L + 1] both passes, weights and activations of all layers before each."""
        params = self.problem.held[self.shape.group, self.shape.tp].params
        return _ahead(self.times.forward_s + self.times.backward_s), _ahead(params), _ahead(self.times.saved_bytes)

    def each_bytes(self, *, zero: int, shards: int) -> float:
        """States for each weight."""
        state = self.problem.state
        return sum(
            size / (shards if zero >= level else 1) for size, level in ((state.weight, 3), (state.gradient, 2), (state.optimizer, 1))
        )

    @cached_property
    def room_bytes(self) -> float:
        """For states and activations."""
        supply = self.problem.group(self.shape.group)
        return supply.capacity_bytes - supply.overhead_bytes

    def room(self, *, zero: int, shards: int) -> Ints:
        """Micro-batches in flight that fit beside the states; 0: the run does not fit."""
        left = self.room_bytes - self.params * self.each_bytes(zero=zero, shards=shards) - self.working
        with np.errstate(divide="ignore", invalid="ignore"):
            # A hair of tolerance: the score adds the same terms in another order.
            fits = np.where(self.saved > 0.0, left / self.saved * (1.0 - 1e-12), np.inf)
        found = np.where(left < 0.0, 0.0, np.minimum(np.floor(fits), NEVER)).astype(np.int64)
        found[np.tril_indices(len(found))] = 0
        return found


@dataclass(frozen=True)
class Link:
    """What crosses each cut of the layers, [L + 1]; 0 at both ends."""

    send_s: Floats
    """One activation."""
    before_s: Floats
    """What the stage before the cut waits for, each micro-batch."""
    after_s: Floats


class Table:
    """Segments by shape, made when first asked for."""

    def __init__(self, problem: Problem) -> None:
        """Of ``problem``."""
        self.problem = problem
        self._segments: dict[tuple[str, int, int, Recompute], Segments | None] = {}
        """By the fields of a shape."""
        self._closing: dict[tuple[tuple[Kind, ...], tuple[int, ...]], list[tuple[Kind, float, float]]] = {}
        self._rooms: dict[tuple[Shape, int, int], Ints] = {}
        self._links: dict[tuple[str, str, int, int], Link] = {}

    def segments(self, kind: Kind, micro_batch: int) -> Segments | None:
        """None where the problem has no times for the shape."""
        key = kind.group, kind.tp, micro_batch, kind.recompute
        if key not in self._segments:
            shape = Shape(*key)
            try:
                found: Segments | None = Segments(self.problem, shape, self.problem.times[shape])
            except KeyError:
                found = None
            self._segments[key] = found
        return self._segments[key]

    def closing(self, kinds: tuple[Kind, ...], cuts: tuple[int, ...], micro_batch: int) -> list[tuple[Kind, float, float]]:
        """Each kind of a chain with the most weights on a chip that a stage of it holds, and its longest update, not sharded."""
        key = kinds, cuts
        if key not in self._closing:
            runs: dict[Kind, tuple[list[int], list[int]]] = {}
            for kind, first, last in zip(kinds, cuts, cuts[1:], strict=False):
                firsts, lasts = runs.setdefault(kind, ([], []))
                firsts.append(first)
                lasts.append(last)
            self._closing[key] = [
                (kind, float(own.params[run].max()), float(own.update_s[run].max()))
                for kind, run in runs.items()
                if (own := self.segments(kind, micro_batch)) is not None
            ]
        return self._closing[key]

    def room(self, kind: Kind, micro_batch: int, *, shards: int) -> Ints:
        """See :meth:`Segments.room`."""
        segments = self.segments(kind, micro_batch)
        if segments is None:
            raise KeyError(kind)
        key = (segments.shape, kind.zero, shards if kind.zero else 1)
        if key not in self._rooms:
            self._rooms[key] = segments.room(zero=kind.zero, shards=key[2])
        return self._rooms[key]

    @cached_property
    def even(self) -> bool:
        """Whether what is sent is the same wherever the layers are cut."""
        sizes = self.problem.boundary_bytes[:-1]
        return bool((sizes == sizes[0]).all()) if len(sizes) else True

    def reaches(self, kinds: tuple[Kind, ...], micro_batch: int) -> bool:
        """Whether each stage of a chain can send to the next."""
        pairs = set(itertools.pairwise(kinds))
        return all(math.isfinite(float(self.link(*pair, micro_batch).send_s[1])) for pair in pairs)

    def link(self, kind: Kind, after: Kind, micro_batch: int) -> Link:
        """Between a stage of ``kind`` and one of ``after``."""
        key = (kind.group, after.group, min(kind.tp, after.tp), micro_batch)
        if key not in self._links:
            self._links[key] = self._link(kind.group, after.group, shards=key[2], micro_batch=micro_batch)
        return self._links[key]

    def _link(self, source: str, target: str, *, shards: int, micro_batch: int) -> Link:
        problem = self.problem
        sends, before, after = np.zeros((3, problem.layers + 1))
        known: dict[float, tuple[float, tuple[float, float]]] = {}
        for cut in range(1, problem.layers):
            size = float(problem.boundary_bytes[cut - 1]) * micro_batch
            if size not in known:
                known[size] = problem.network.send_s(size, source=source, target=target, tp=shards), problem.transport.waits(size / shards)
            sends[cut], waits = known[size]
            before[cut], after[cut] = (sends[cut] * count if count else 0.0 for count in waits)
        return Link(sends, before, after)
