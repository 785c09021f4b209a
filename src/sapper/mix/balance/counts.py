"""The exact best integer micro-batch counts of unlike pipelines that share one global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_CLOSE = 1e-6


@dataclass(frozen=True)
class Lane:
    """A pipeline as a split sees it: its time as a function of its micro-batches, by the closed form of :mod:`sapper.mix.objective`."""

    passes_s: tuple[float, ...]
    """Forward and backward of one micro-batch, by stage; greater than 0."""
    replicas: tuple[int, ...] = (1,)
    """Of each stage."""
    fixed_s: float = 0.0
    """Once a step, however many micro-batches: sends of the first, the update."""
    sequences: int = 1
    """Of one micro-batch."""

    def time_s(self, count: int) -> float:
        """A step of ``count`` micro-batches; 0 micro-batches take the fixed part."""
        if count < 1:
            return self.fixed_s
        rest = max((-(-count // wide) - 1) * one for one, wide in zip(self.passes_s, self.replicas, strict=True))
        return self.fixed_s + sum(self.passes_s) + rest

    def most_within(self, limit_s: float) -> int:
        """The most micro-batches that end within ``limit_s``."""
        left_s = limit_s - self.fixed_s - sum(self.passes_s)
        count = min(max(0, wide * (math.floor(left_s / one) + 1)) for one, wide in zip(self.passes_s, self.replicas, strict=True))
        while self.time_s(count + 1) <= limit_s:  # what rounding of the division lost
            count += 1
        while count and self.time_s(count) > limit_s:
            count -= 1
        return count


def best_counts(lanes: Sequence[Lane], sequences: int, *, least: int = 1) -> tuple[int, ...] | None:
    """Micro-batch counts, each at least ``least``, that take exactly ``sequences`` and whose slowest lane ends earliest.

    The time of a lane grows with its count, so a limit can be kept exactly when the counts that fit in it can be cut down to the
    batch: bisection comes near the smallest such limit, and then the split is improved until nothing below its own end can be kept,
    which proves it. Among equal splits, one that leaves the other lanes done earliest.

    Returns:
        None where no counts add up to the batch.
    """
    if not lanes or sum(least * lane.sequences for lane in lanes) > sequences:
        return None
    low_s, high_s = 0.0, max(lane.time_s(sequences // lane.sequences) for lane in lanes)
    if not _fits(lanes, sequences, high_s, least):
        return None
    while high_s - low_s > _CLOSE * high_s:
        middle_s = (low_s + high_s) / 2.0
        if _fits(lanes, sequences, middle_s, least):
            high_s = middle_s
        else:
            low_s = middle_s
    found: tuple[int, ...] = ()
    while _fits(lanes, sequences, high_s, least):
        most = _most(lanes, sequences, high_s)
        alike = len({lane.sequences for lane in lanes}) == 1
        found = (_cut_down if alike else _subset)(lanes, sequences, most, least)
        end_s = max(lane.time_s(count) for lane, count in zip(lanes, found, strict=True))
        high_s = math.nextafter(end_s, 0.0)
    return found


def _most(lanes: Sequence[Lane], sequences: int, limit_s: float) -> list[int]:
    return [min(lane.most_within(limit_s), sequences // lane.sequences) for lane in lanes]


def _fits(lanes: Sequence[Lane], sequences: int, limit_s: float, least: int) -> bool:
    """Whether some counts within ``limit_s`` take exactly ``sequences``."""
    most = _most(lanes, sequences, limit_s)
    if any(count < least for count in most) or sum(m * lane.sequences for m, lane in zip(most, lanes, strict=True)) < sequences:
        return False
    if len({lane.sequences for lane in lanes}) == 1:
        return sequences % lanes[0].sequences == 0
    return bool(_sums(lanes, sequences, most, least)[-1] >> sequences & 1)


def _cut_down(lanes: Sequence[Lane], sequences: int, most: list[int], least: int) -> tuple[int, ...]:
    """Lanes of one micro-batch size: give back what is too much, each from the lane that ends last."""
    for _ in range(sum(most) - sequences // lanes[0].sequences):
        last = max((i for i in range(len(lanes)) if most[i] > least), key=lambda i: lanes[i].time_s(most[i]))
        most[last] -= 1
    return tuple(most)


def _sums(lanes: Sequence[Lane], sequences: int, most: list[int], least: int) -> list[int]:
    """At place k: the sums that the last k lanes can take, as the bits of an integer."""
    found = [1]
    for lane, count in zip(reversed(lanes), reversed(most), strict=True):
        reach, left, step = found[-1] << (least * lane.sequences), count - least, 1
        while left > 0:  # binary splitting: 1, 2, 4, ... further micro-batches
            taken = min(step, left)
            reach |= reach << (taken * lane.sequences)
            left, step = left - taken, step * 2
        found.append(reach & (1 << (sequences + 1)) - 1)
    return found


def _subset(lanes: Sequence[Lane], sequences: int, most: list[int], least: int) -> tuple[int, ...]:
    """Lanes of unlike micro-batch sizes: a bounded subset sum, near each lane's fair part."""
    after, found, due = _sums(lanes, sequences, most, least), [], sequences
    for index, lane in enumerate(lanes):
        rest = after[len(lanes) - 1 - index]
        fair = due * most[index] / sum(m * one.sequences for m, one in zip(most[index:], lanes[index:], strict=True))
        fits = (n for n in range(least, most[index] + 1) if due >= n * lane.sequences and rest >> (due - n * lane.sequences) & 1)
        found.append(min(fits, key=lambda n: abs(n - fair)))
        due -= found[-1] * lane.sequences
    return tuple(found)
