"""Every pipeline that a plan faster than a given time could have, by extending partial pipelines from the last stage to the first.

A *partial* pipeline is the stages from one layer to the end. What it costs is known but for what its first stage exchanges with the
stage before it, so that no extension undoes a cost: a partial that is too slow, or too slow to leave the batch to the other chips, is
dropped with all that could be made of it.

What the micro-batches after the first add is the pace of each stage times the micro-batches of one of its replicas after its own first.
Stages of as many replicas differ in pace alone, so that a partial has one pace for each number of replicas, however large the batch is.

Legend: K = partials, G = groups, N = micro-batches of a step at most, R = numbers of replicas less than N, L = layers, P = pipelines of a
plan at most; arrays [L + 1, L + 1] are indexed [first, last].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sapper.mix.plan import Stage
from sapper.mix.problem import Supply
from sapper.mix.search.candidates import kinds_of
from sapper.mix.search.floors import Floors
from sapper.mix.search.segments import NO_WAY, Kind, Link, Table
from sapper.predict.arrays import Bools, Floats, Ints

LEADERS = 12
"""Of partials alike, those that the others are held against."""
BLOCK = 4096
"""Partials that are made longer at a time: the arrays of more, [K, L], leave the processor's caches."""
HAIR = 1e-12
"""Relative error of a time divided by a pace: counts err to more."""


class TooMany(Exception):
    """More partial pipelines than the caller allows."""


@dataclass(frozen=True)
class Partials:
    """Stages from ``first`` to the end, all of one size of micro-batch."""

    first: Ints
    """[K] layer."""
    used: Ints
    """[K, G] chips."""
    kind: Ints
    """[K] of the first stage, as an index."""
    behind: Ints
    """[K] replicas of all stages."""
    way_s: Floats
    """[K] one micro-batch through all stages and back."""
    open_s: Floats
    """[K] pace of the first stage but for what it exchanges with the stage before it."""
    paces_s: Floats
    """[K, R] slowest pace of the stages with so many replicas, by what is known of them; 0 where there are none."""
    limit: Ints
    """[K] micro-batches that fit in memory, N at most."""
    after_s: Floats
    """[K, P] reduction and update of the slowest stage at the least, in a plan of 1, 2, ... pipelines."""
    parent: Ints
    """[K] position of the stages behind the first, among the partials of one stage less."""
    last: Ints
    """[K] one past the last layer of the first stage."""

    def pick(self, keep: Ints | Bools | slice) -> Partials:
        """Some of them."""
        return Partials(*(getattr(self, one.name)[keep] for one in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Partials]) -> Partials:
        """All of ``parts``."""
        return Partials(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Partials)))


Reach = Callable[[int, Floats, Ints], Floats]
"""(number of other pipelines, what follows the last micro-batch [K], chips left [K, G]) -> most sequences that they take in time."""


class Extension:
    """The step from partial pipelines to those of one more stage, at one size of micro-batch."""

    def __init__(self, table: Table, groups: Sequence[Supply], micro_batch: int, floors: Floors) -> None:
        """On ``groups``."""
        self.table, self.groups, self.micro_batch, self.floors = table, tuple(groups), micro_batch, floors
        problem = table.problem
        self.most = problem.global_batch // micro_batch
        self.kinds = [
            kind._replace(replicas=replicas)
            for supply in groups
            for kind in kinds_of(problem, supply)
            if table.segments(kind, micro_batch) is not None
            for replicas in range(1, supply.chips // kind.tp + 1)
        ]
        self._group = np.array([[one.name for one in groups].index(kind.group) for kind in self.kinds], np.int64)
        self._replicas = np.array([kind.replicas for kind in self.kinds], np.int64)
        self._shapes = list(dict.fromkeys((kind.group, kind.tp) for kind in self.kinds))
        # what is behind the last stage is the kind, and the shape, of index -1
        self._shape = np.array([*(self._shapes.index((kind.group, kind.tp)) for kind in self.kinds), -1], np.int64)
        numbers = sorted({kind.replicas for kind in self.kinds if kind.replicas < self.most})
        # a replica that has one micro-batch at most has no pace, nor has what is behind the last stage
        self._column = np.array([*(numbers.index(kind.replicas) if kind.replicas < self.most else -1 for kind in self.kinds), -1], np.int64)
        self._numbers = np.array(numbers, np.int64)
        """[R]"""
        counts = np.arange(1, self.most + 1)
        self._turns = np.array([-(-counts // number) - 1 for number in numbers], float).reshape(len(numbers), self.most)
        """[R, N] micro-batches of one replica after its first."""
        later = self._turns > 0.0
        shares = np.where(later, self._turns[:, None] / np.where(later, self._turns, 1.0), np.inf)
        self._hides = shares.min(axis=2, initial=np.inf)
        """[R, R] how many times as fast a stage of the second number may be as one of the first that is nowhere waited for less."""
        self._supply = np.array([supply.chips for supply in groups], np.int64)
        self._links = [self._links_of(shape) for shape in self._shapes]
        self._least_s = self._least()

    def _least(self) -> Floats:
        """[L + 1] no pipeline passes the layers before one faster."""
        best = np.full(self.table.problem.layers, np.inf)
        for kind in self.kinds:
            segments = self.table.segments(kind, self.micro_batch)
            assert segments is not None
            best = np.minimum(best, segments.times.forward_s + segments.times.backward_s)
        return np.concatenate(([0.0], np.cumsum(best)))

    def start(self) -> Partials:
        """No stage yet."""
        none = np.zeros(1, np.int64)
        zero = np.zeros(1)
        return Partials(
            first=none + self.table.problem.layers, used=np.zeros((1, len(self.groups)), np.int64), kind=none - 1, behind=none, way_s=zero,
            open_s=zero, paces_s=np.zeros((1, len(self._numbers))), limit=none + self.most, after_s=np.zeros((1, self.floors.pipelines)),
            parent=none, last=none,
        )  # fmt: skip

    def longer(self, partials: Partials, ask: Ask, *, most: int) -> Partials:
        """All that are one stage longer and may still be part of what is asked for.

        Raises:
            TooMany: More than ``most``.
        """
        found, total = [partials.pick(slice(0))], partials.used.sum(axis=1)
        for q, kind in enumerate(self.kinds):
            left = self._supply[self._group[q]] - partials.used[:, self._group[q]]
            able = np.flatnonzero((kind.chips <= left) & (total + kind.chips <= ask.chips[-1]))
            for start in range(0, len(able), BLOCK):
                found.append(self._with(partials, q, ask, able[start : start + BLOCK]))
                most -= len(found[-1].first)
                if most < 0:
                    raise TooMany
        return Partials.joined(found)

    def _with(self, partials: Partials, q: int, ask: Ask, able: Ints) -> Partials:
        """Those ``able`` with one more stage, of kind ``q``, for which the chips suffice."""
        kind, group, part = self.kinds[q], self._group[q], partials.pick(able)
        segments = self.table.segments(kind, self.micro_batch)
        assert segments is not None, "kinds without times are left out"
        room = self.table.room(kind, self.micro_batch, shards=max(1, self.groups[group].chips // kind.tp))
        floors = np.moveaxis(self.floors.after_s(kind, self.micro_batch), 0, -1)
        link = self._link(part, q)
        firsts, ends = np.arange(self.table.problem.layers)[None, :], part.first[:, None]
        ways = part.way_s[:, None] + segments.pass_s[firsts, ends] + 2.0 * link.send_s[:, None]
        total = part.used.sum(axis=1)[:, None] + kind.chips
        asked = np.where(firsts == 0, total >= ask.chips[0], total < ask.chips[-1])
        k, first = np.nonzero((firsts < ends) & (room[firsts, ends] > 0) & (ways + self._least_s[firsts] < ask.below_s) & asked)
        after_s = np.maximum(part.after_s[k], floors[first, part.first[k]])
        soon = np.flatnonzero(ways[k, first] + self._least_s[first] + after_s.min(axis=1) < ask.below_s)
        k, first, after_s = k[soon], first[soon], after_s[soon]
        way, end, behind = ways[k, first], part.first[k], part.behind[k] + kind.replicas
        # who is before the stage after the cut is known now, and so is what it waits for
        paces_s = self._paced(part.paces_s, self._column[part.kind], np.maximum(part.open_s + link.after_s, link.send_s))
        open_s = np.maximum(segments.pass_s[first, end] + link.before_s[k], link.send_s[k])
        if self.table.problem.transport.windowed:
            open_s = np.maximum(open_s, way / (behind // kind.replicas))
        # a replica holds as many micro-batches as the stages behind leave it, each of its own
        fit = np.where(-(-behind // kind.replicas) > room[first, end], kind.replicas * room[first, end], self.most)
        made = Partials(
            first=first, used=part.used[k], kind=np.full(len(k), q, np.int64), behind=behind, way_s=way, open_s=open_s,
            paces_s=self._paced(paces_s[k], np.full(len(k), self._column[q]), open_s), limit=np.minimum(part.limit[k], fit),
            after_s=after_s, parent=able[k], last=end,
        )  # fmt: skip
        made.used[:, group] += kind.chips
        return made.pick(self._useful(made, ask))

    @staticmethod
    def _paced(paces_s: Floats, column: Ints, pace_s: Floats) -> Floats:
        """[K, R] with a stage of ``pace_s`` more each, whose replicas are of ``column`` [K]; -1: there is no pace to wait for."""
        found, of = paces_s.copy(), np.flatnonzero(column >= 0)
        found[of, column[of]] = np.maximum(found[of, column[of]], pace_s[of])
        return found

    def _link(self, part: Partials, q: int) -> Link:
        """[K] between a stage of kind ``q`` and the first one of each partial, at its cut; nothing behind the last stage."""
        links = self._links[self._shape[q]]
        at = self._shape[part.kind], part.first
        return Link(links.send_s[at], links.before_s[at], links.after_s[at])

    def _links_of(self, shape: tuple[str, int]) -> Link:
        """[shapes + 1, L + 1] from a stage of ``shape`` to one of each other; the last row is of none."""
        found = [self.table.link(Kind(*shape), Kind(*other), self.micro_batch) for other in self._shapes]
        found.append(Link(*np.zeros((3, self.table.problem.layers + 1))))
        return Link(*(np.minimum(np.stack([getattr(one, each.name) for one in found]), NO_WAY) for each in fields(Link)))

    def rest_s(self, partials: Partials) -> Floats:
        """[K, N] what the micro-batches after the first add, for 1, 2, ... of them; infinite where they do not fit in memory."""
        found = np.zeros((len(partials.first), self.most))
        for column, turns in enumerate(self._turns):
            np.maximum(found, partials.paces_s[:, column, None] * turns, out=found)
        found[np.arange(1, self.most + 1) > partials.limit[:, None]] = np.inf
        return found

    def counts(self, partials: Partials, *, within_s: Floats) -> Ints:
        """[K] micro-batches at most, each partial with the fastest stages before it in ``within_s`` of its own."""
        left = within_s - partials.way_s - self._least_s[partials.first]
        with np.errstate(divide="ignore", invalid="ignore"):
            turns = np.floor(np.maximum(left, 0.0)[:, None] / partials.paces_s * (1.0 + HAIR))
        # no stage of such a number: nothing to wait for
        taken = np.where(partials.paces_s > 0.0, self._numbers * (turns + 1.0), self.most).min(axis=1, initial=self.most)
        return np.asarray(np.minimum(taken, partials.limit) * (left >= 0.0), np.int64)

    def _useful(self, partials: Partials, ask: Ask) -> Bools:
        """[K] whether a plan with them may be done in time."""
        batch, left = self.table.problem.global_batch, self._supply - partials.used
        found = np.zeros(len(partials.first), bool)
        # with several others there is more to reduce than with one
        for others in range(self.floors.pipelines) if ask.reach is not None else range(1, min(2, self.floors.pipelines)):
            asked = np.flatnonzero(~found & (left.sum(axis=1) >= others))
            after_s = partials.after_s[asked, others]
            takes = self.counts(partials.pick(asked), within_s=ask.below_s - after_s) * self.micro_batch
            more = ask.reach(others, after_s, left[asked]) if ask.reach is not None and others else np.where(others, batch, 0)
            found[asked] = (takes > 0) & (takes + more >= batch)
        return found

    def undominated(self, partials: Partials) -> Partials:
        """Without most of those that another of the same first layer, chips and neighbours is no worse than, whatever comes before."""
        codes = partials.used @ np.array([int((self._supply[g + 1 :] + 1).prod()) for g in range(len(self.groups))], np.int64)
        keys = np.stack([partials.first, codes, partials.behind, self._shape[partials.kind], self._replicas[partials.kind]])
        costs = [np.stack([partials.way_s, partials.open_s, -partials.limit], axis=1), partials.after_s[:, 1:]]
        worth = np.concatenate([*costs, partials.paces_s], axis=1)
        # a pace that slower stages of fewer replicas hide is as good as one that they just hide
        hidden = (partials.paces_s[:, :, None] * self._hides).max(axis=1, initial=0.0)
        worst = np.concatenate([*costs, hidden], axis=1)
        rows = np.lexsort((partials.way_s, *keys))
        for leading in range(LEADERS):
            # the next of each class that is left stands against those behind it
            changes = (np.diff(keys[:, rows], axis=1) != 0).any(axis=0)
            of_class = np.concatenate(([0], np.cumsum(changes)))
            place = np.concatenate(([0], np.flatnonzero(changes) + 1))[of_class] + leading
            behind = np.flatnonzero(place < np.arange(len(rows)))
            if not len(behind):
                break
            worse = (worst[rows[behind]] >= worth[rows[place[behind]]]).all(axis=1)
            rows = np.delete(rows, behind[worse])
        return partials.pick(rows)


@dataclass(frozen=True)
class Enumerated:
    """Partials of one size of micro-batch by number of stages; those that begin with layer 0 are whole pipelines."""

    extension: Extension
    levels: tuple[Partials, ...]

    def __len__(self) -> int:
        return sum(len(level.first) for level in self.levels)

    def whole(self) -> Iterator[tuple[int, Ints]]:
        """Number of stages, and which of the partials of so many are whole pipelines."""
        for depth, level in enumerate(self.levels):
            yield depth, np.flatnonzero(level.first == 0)

    def stages(self, depth: int, index: int) -> tuple[Stage, ...]:
        """Of one partial, the first stage first."""
        found = []
        for level in reversed(self.levels[1 : depth + 1]):
            kind = self.extension.kinds[int(level.kind[index])]
            found.append(
                Stage(
                    group=kind.group, first=int(level.first[index]), last=int(level.last[index]), tp=kind.tp, replicas=kind.replicas,
                    zero=kind.zero, recompute=kind.recompute,
                )
            )  # fmt: skip
            index = int(level.parent[index])
        return tuple(found)


@dataclass(frozen=True)
class Ask:
    """Which pipelines are wanted."""

    below_s: float
    """Of plans that are done before this."""
    chips: range
    """Of so many chips."""
    reach: Reach | None
    """What the chips that a pipeline leaves can take; None: not known yet, and of pipelines that differ only in who holds which layer
    the best are kept, which is enough to know what pipelines of a plan of two or more can take."""


def enumerated(extension: Extension, ask: Ask, *, most: int) -> Enumerated:
    """The partials that a plan may have.

    Args:
        extension: How they grow.
        ask: What the plan is to be.
        most: Partials at most.

    Raises:
        TooMany: More than ``most``.
    """
    levels, total = [extension.start()], 0
    while len(levels[-1].first):
        longer = extension.longer(levels[-1], ask, most=most - total)
        levels.append(longer if ask.reach is not None else extension.undominated(longer))
        total += len(levels[-1].first)
    return Enumerated(extension, tuple(levels))
