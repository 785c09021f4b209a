"""Shard: what one process holds of a tensor, and how any box of a tensor is put together from the shards of others.

Names of a state: a weight or buffer bears its fully qualified name in the model; ``optimizer:NAME:KEY`` is what an optimizer keeps
for the weight ``NAME``, ``rng:STREAM`` the state of a random number generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

OPTIMIZER = "optimizer:"
RNG = "rng:"


class Box(NamedTuple):
    """Where a shard lies in its tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    offset: tuple[int, ...]
    size: tuple[int, ...]
    flat: bool = False
    """Whether ``offset`` and ``size`` are a range of the elements in row-major order (ZeRO) and not a box of the dims (TP)."""

    @property
    def whole(self) -> bool:
        """Whether it is the whole tensor."""
        return math.prod(self.size) == math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """The values of one box, as one process holds them."""

    tensor: Any
    """Of ``box.size``."""
    box: Box


State = Mapping[str, Sequence[Shard]]
"""Name -> what is held of it, in boxes that do not overlap: one, or several of a weight whose shard lies in several places."""


class Source(Protocol):
    """Where a state can be had from, box by box: a checkpoint, or what other members sent."""

    @property
    def names(self) -> list[str]:
        """All tensors."""

    def like(self, name: str) -> tuple[tuple[int, ...], Any]:
        """Shape and dtype of the whole tensor ``name``."""

    def fill(self, state: State) -> None:
        """Copy the values of each shard of ``state`` into its tensor."""


class Pool:
    """Shards that came from several members; a :class:`Source`."""

    def __init__(self) -> None:
        self._shards: dict[str, dict[Box, Shard]] = {}

    @property
    def names(self) -> list[str]:
        """See :class:`Source`."""
        return list(self._shards)

    def add(self, state: State) -> None:
        """Take shards in; of a box that is there already the first stays."""
        for name, shards in state.items():
            for one in shards:
                self._shards.setdefault(name, {}).setdefault(one.box, one)

    def like(self, name: str) -> tuple[tuple[int, ...], Any]:
        """See :class:`Source`."""
        first = next(iter(self._shards[name].values()))
        return first.box.shape, first.tensor.dtype

    def fill(self, state: State) -> None:
        """See :class:`Source`; whoever asks knows that all of it is there."""
        with torch.no_grad():
            for name, shards in state.items():
                for one in shards:
                    filled = assemble(one.tensor, one.box, sources=self._shards[name].values())
                    assert filled >= math.prod(one.box.size), f"{name} was reported whole"


def weight_of(name: str) -> str:
    """The weight that an entry of a state is of."""
    return name[len(OPTIMIZER) :].rpartition(":")[0] if name.startswith(OPTIMIZER) else name


def whole(tensor: Any) -> Shard:
    """``tensor`` held whole."""
    shape = tuple(tensor.shape)
    return Shard(tensor, Box(shape, (0,) * len(shape), shape))


def part(tensor: Any, shape: Iterable[int], *, offset: Iterable[int], flat: bool = False) -> Shard:
    """``tensor`` as the box at ``offset`` of a tensor of ``shape``."""
    return Shard(tensor, Box(tuple(shape), tuple(offset), tuple(tensor.shape), flat))


def overlap(box: Box, other: Box) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Offset and size, in coordinates of the whole tensor, of what two boxes of one kind share; None: nothing."""
    low = tuple(map(max, box.offset, other.offset))
    ends = zip(box.offset, box.size, other.offset, other.size, strict=True)
    size = tuple(min(a + n, b + m) - start for start, (a, n, b, m) in zip(low, ends, strict=True))
    return (low, size) if all(length > 0 for length in size) else None


def covered(box: Box, sources: Iterable[Box]) -> bool:
    """Whether ``sources``, which do not overlap each other, hold all of ``box``."""
    have = list(sources)
    if any(one.flat != box.flat for one in have):
        return sum(math.prod(one.size) for one in have) >= math.prod(box.shape)
    found = [overlap(box, one) for one in have]
    return sum(math.prod(both[1]) for both in found if both is not None) >= math.prod(box.size)


def assemble(target: Any, box: Box, *, sources: Iterable[Shard]) -> int:
    """Fill ``target``, the values of ``box``, from ``sources``.

    Returns:
        Elements filled; fewer than ``target`` has where the sources do not cover it.
    """
    have = list(sources)
    if all(one.box.flat == box.flat for one in have):
        return sum(_copy(target, box, one) for one in have)
    # Ranges of elements on one side and boxes of dims on the other meet only in the whole tensor.
    dtype = have[0].tensor.dtype
    full = torch.empty(box.shape, dtype=dtype)
    filled = 0
    for one in have:
        flat = one.box.flat
        view, shape = (full.view(-1), (full.numel(),)) if flat else (full, box.shape)
        filled += _copy(view, Box(shape, (0,) * len(shape), shape, flat), one)
    if filled < full.numel():
        return 0
    view = full.view(-1) if box.flat else full
    target.copy_(view[_slices(box.offset, box.size)])
    return int(target.numel())


def _copy(target: Any, box: Box, source: Shard) -> int:
    both = overlap(box, source.box)
    if both is None:
        return 0
    start, size = both
    to = tuple(a - b for a, b in zip(start, box.offset, strict=True))
    of = tuple(a - b for a, b in zip(start, source.box.offset, strict=True))
    target[_slices(to, size)].copy_(source.tensor[_slices(of, size)])
    return math.prod(size)


def _slices(offset: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(offset, size, strict=True))
