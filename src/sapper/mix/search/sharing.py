"""What follows the last micro-batch of a set of pipelines: who holds which layer follows from all of them, and is priced once.

Legend: C = pipelines, L = layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sapper.mix.objective import exposed_s
from sapper.mix.plan import Stage
from sapper.mix.problem import Holders, Problem
from sapper.mix.states import update_s
from sapper.predict.arrays import Ints


class Sharing:
    """Reductions and updates of sets of some pipelines."""

    def __init__(self, problem: Problem, pipelines: Sequence[tuple[Stage, ...]], sizes: Ints) -> None:
        """Of ``pipelines``, whose micro-batches have ``sizes`` sequences."""
        self.problem = problem
        self._stages = list(dict.fromkeys((stage, int(size)) for stages, size in zip(pipelines, sizes, strict=True) for stage in stages))
        """Distinct, with the sequences of a micro-batch."""
        place = {one: at for at, one in enumerate(self._stages)}
        self._of = [[place[stage, int(size)] for stage in stages] for stages, size in zip(pipelines, sizes, strict=True)]
        self._shapes = sorted({(stage.group, stage.tp) for stages in pipelines for stage in stages})
        self._base = 1 + sum(group.chips for group in problem.groups)
        self._held = np.zeros((len(pipelines), problem.layers), np.int64)
        """[C, L] sets of chips of each shape, as the digits of one number: those of a set of pipelines add up."""
        for index, stages in enumerate(pipelines):
            for stage in stages:
                self._held[index, stage.first : stage.last] = stage.replicas * self._base ** self._shapes.index((stage.group, stage.tp))
        self._holders: dict[int, Holders] = {}
        self._known: dict[tuple[int, int, tuple[int, ...]], float] = {}

    def after_s(self, chosen: tuple[int, ...]) -> float:
        """Of the stage that is done last, each at the ZeRO stage that is fastest, up to its own."""
        codes = self._held[list(chosen)].sum(axis=0).tolist()
        places = [place for index in chosen for place in self._of[index]]
        return max(self._closing_s(place, places, codes) for place in set(places))

    def _closing_s(self, place: int, places: list[int], codes: list[int]) -> float:
        stage, size = self._stages[place]
        mates = self._mates(stage, places) if stage.zero else 1
        key = (place, mates, tuple(codes[stage.first : stage.last]))
        if key not in self._known:
            holders = [self._members(code) for code in codes]
            levels = [msgspec.structs.replace(stage, zero=zero) for zero in {0, *self.problem.zeros} if zero <= stage.zero]
            self._known[key] = min(self._after_s(one, size, holders, shards=mates if one.zero else 1) for one in levels)
        return self._known[key]

    def _after_s(self, stage: Stage, size: int, holders: list[Holders], *, shards: int) -> float:
        reduce_s = exposed_s(self.problem, stage, micro_batch=size, holders=holders, shards=shards)
        return reduce_s + update_s(self.problem, stage, shards=shards)

    def _mates(self, stage: Stage, places: list[int]) -> int:
        """Sets of chips that share the states of ``stage``."""
        return sum(other.replicas for other, _ in map(self._stages.__getitem__, places) if other.sharing == stage.sharing)

    def _members(self, code: int) -> Holders:
        if code not in self._holders:
            digits = [code // self._base**place % self._base for place in range(len(self._shapes))]
            self._holders[code] = {shape: count for shape, count in zip(self._shapes, digits, strict=True) if count}
        return self._holders[code]
