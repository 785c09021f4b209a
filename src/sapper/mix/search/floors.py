"""What follows the last micro-batch at the least: the reduction of a stage's gradients and its update, whoever else holds its layers.

Legend: L = layers; arrays [..., L + 1, L + 1] are indexed [first, last], M = sets of holders that the chips suffice for, P = pipelines
of a plan at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sapper.mix.problem import Supply
from sapper.mix.search.segments import Kind, Table
from sapper.predict.arrays import Bools, Floats

Members = dict[tuple[str, int], int]


class Floors:
    """Least times of all stages on a few chips; no property of the network is taken for granted, all holders are asked for."""

    def __init__(self, table: Table, groups: Sequence[Supply]) -> None:
        """On ``groups``, whose chips are few."""
        self.table = table
        self._holders = list(_holders(groups))
        self._reduce: dict[float, Floats] = {}
        self._known: dict[tuple[Kind, int], Floats] = {}
        self.pipelines = min(sum(supply.chips for supply in groups), table.problem.global_batch)
        """P: each has a chip and a sequence."""
        self._supply = {supply.name: supply.chips for supply in groups}

    def after_s(self, kind: Kind, micro_batch: int) -> Floats:
        """[P, L + 1, L + 1] of a stage of ``kind``, in a plan of 1, 2, ... pipelines: each of the others holds every layer once or more."""
        key = (kind, micro_batch)
        if key not in self._known:
            segments = self.table.segments(kind, micro_batch)
            assert segments is not None
            problem = self.table.problem
            update = segments.update_s / (max(1, self._supply[kind.group] // kind.tp) if kind.zero else 1)
            sizes = segments.params * kind.tp * problem.state.wire
            # replicas beside each other hold the same layers and no others
            own = np.array([one == {(kind.group, kind.tp): kind.replicas} for one in self._holders])
            among = [self._least(sizes, self._more(kind, others)) for others in range(1, self.pipelines)]
            reduce = np.stack([self._least(sizes, own), *among])
            reduce[1:] = _closed(reduce[1:])
            if kind.zero >= 2:  # those who share states sum their gradients in the passes
                reduce = np.zeros(reduce.shape)
            held = segments.params * problem.state.gradient
            self._known[key] = problem.transport.exposed_s(reduce, backward_s=segments.backward_s, size_bytes=held) + update
        return self._known[key]

    def _more(self, kind: Kind, others: int) -> Bools:
        """[M] whether a stage of ``kind`` and ``others`` pipelines may be these holders."""
        shape = (kind.group, kind.tp)
        return np.array(
            [one.get(shape, 0) >= kind.replicas and sum(one.values()) >= kind.replicas + others for one in self._holders], bool
        )

    def _least(self, sizes: Floats, among: Bools) -> Floats:
        """Of ``sizes``, over the holders where ``among``."""
        if not among.any():
            return np.where(sizes > 0.0, np.inf, 0.0)
        distinct, at = np.unique(sizes, return_inverse=True)
        least = np.array([self._times(float(size))[among].min() if size > 0.0 else 0.0 for size in distinct])
        return np.asarray(least[at.reshape(sizes.shape)], float)

    def _times(self, size: float) -> Floats:
        """[M] of the holders."""
        if size not in self._reduce:
            network = self.table.problem.network
            self._reduce[size] = np.array([network.all_reduce_s(size, members) for members in self._holders])
        return self._reduce[size]


def _holders(groups: Sequence[Supply]) -> Iterator[Members]:
    """Every number of sets of every tensor degree that the chips of ``groups`` suffice for, but none at all."""
    by_group = [[dict(one) for one in _of_group(supply)] for supply in groups]
    for product in itertools.product(*by_group):
        members = {key: count for one in product for key, count in one.items() if count}
        if members:
            yield members


def _of_group(supply: Supply) -> Iterator[dict[tuple[str, int], int]]:
    ranges = [range(supply.chips // tp + 1) for tp in supply.tps]
    for counts in itertools.product(*ranges):
        if sum(count * tp for count, tp in zip(counts, supply.tps, strict=True)) <= supply.chips:
            yield {(supply.name, tp): count for count, tp in zip(counts, supply.tps, strict=True)}


def _closed(least: Floats) -> Floats:
    """[..., L + 1, L + 1] the least over all ways to reduce a run of layers in parts, each with holders of its own."""
    found = least.copy()
    size = found.shape[-1]
    for length in range(2, size):
        for first in range(size - length):
            last = first + length
            inner = slice(first + 1, last)
            parted = (found[..., first, inner] + found[..., inner, last]).min(axis=-1, initial=np.inf)
            found[..., first, last] = np.minimum(found[..., first, last], parted)
    return found
