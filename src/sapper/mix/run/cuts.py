"""How a weight is cut over the chips of a tensor parallel group; arithmetic alone, so that each rank knows what every other holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """What one shard holds of one weight."""

    dim: int
    """Along which it is cut."""
    ranges: tuple[tuple[int, int], ...]
    """Half-open ranges of the whole along ``dim``, in the order in which the shard holds them."""
    shape: tuple[int, ...]
    """Of the whole."""

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Of the shard."""
        size = sum(stop - start for start, stop in self.ranges)
        return (*self.shape[: self.dim], size, *self.shape[self.dim + 1 :])


def deal(units: int, shards: int, *, weights: Sequence[float] | None = None) -> list[int]:
    """Whole ``units`` for each shard: as even as can be, or in the proportion of ``weights``, at least one each.

    The largest remainders are rounded up (Hamilton's method), so that the counts are within one of their proportion where
    none is held up to one.
    """
    if weights is None:
        return [units // shards + (shard < units % shards) for shard in range(shards)]
    exact = [units * weight / sum(weights) for weight in weights]
    counts = [max(int(one), 1) for one in exact]
    while (left := units - sum(counts)) != 0:
        step = 1 if left > 0 else -1
        open_ = [at for at in range(shards) if step > 0 or counts[at] > 1]
        at = max(open_, key=lambda one: step * (exact[one] - counts[one]))
        counts[at] += step
    return counts


def ends(size: int, counts: Sequence[int]) -> list[int]:
    """Where each shard begins along ``size`` elements that hold ``sum(counts)`` units of equal length, and the end of all."""
    units, found, at = sum(counts), [0], 0
    for count in counts:
        at += count
        found.append(at * size // units)
    return found


@dataclass(frozen=True)
class Rule:
    """How a weight may be cut, whatever the number of shards."""

    dim: int
    """Along which."""
    units: int
    """What stays whole, such as heads; all of one length."""
    shape: tuple[int, ...]
    """Of the whole."""
    packed: int = 1
    """Weights that lie behind one another along ``dim`` and are each cut alike, such as gate and up."""

    def cut(self, shards: int, shard: int, *, weights: Sequence[float] | None = None) -> Cut:
        """What shard number ``shard`` of ``shards`` holds; see :func:`deal` for ``weights``."""
        size = self.shape[self.dim] // self.packed
        at = ends(size, deal(self.units, shards, weights=weights))
        ranges = tuple((block * size + at[shard], block * size + at[shard + 1]) for block in range(self.packed))
        return Cut(self.dim, ranges, self.shape)
