"""Measured links: bandwidth by message size inside a node and between nodes, as profilers of networks tabulate them.

Nodes of a group hold ``chips_per_node`` chips that share the node's way out; ``between`` says what a number of them reach together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Curve(Protocol):
    """Bandwidth by message size."""

    def bytes_per_s(self, size_bytes: float) -> float:
        """Achieved with messages of ``size_bytes``."""


@dataclass(frozen=True)
class Flat:
    """The same bandwidth for every size."""

    rate_bytes_per_s: float

    def bytes_per_s(self, size_bytes: float) -> float:
        """``rate_bytes_per_s``."""
        return self.rate_bytes_per_s


@dataclass(frozen=True)
class Polynomial:
    """A polynomial over log2 of the size in MB, in GB/s, up to a greatest rate (Sailor, profiling/networking/fit_func.py)."""

    coefficients: tuple[float, ...]
    """Highest power first."""
    most_bytes_per_s: float
    least_bytes_per_s: float = 1e6
    """Where the polynomial falls to nothing: below its first measured size."""

    def bytes_per_s(self, size_bytes: float) -> float:
        """The fit, between its bounds."""
        x = math.log2(max(size_bytes, 1.0) / 1e6)
        value = 0.0
        for coefficient in self.coefficients:
            value = value * x + coefficient
        return min(max(value * 1e9, self.least_bytes_per_s), self.most_bytes_per_s)


@dataclass(frozen=True)
class MeasuredNetwork:
    """The links of groups of nodes; a :class:`~sapper.mix.problem.Network`."""

    chips_per_node: Mapping[str, int]
    inside: Mapping[tuple[str, int], Curve]
    """(group, chips) -> bus bandwidth of a collective over so many chips of a node."""
    between: Mapping[tuple[str, str, int], Curve]
    """(from, to, chips) -> what so many chips of a node reach together to another node; a group with itself included."""
    nodes: Mapping[str, int]
    """Nodes of each group."""
    whole: bool = False
    """Each chip of a tensor parallel group sends the activation whole, as DeepSpeed's pipeline does, and not its part."""

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """One activation, over the links of ``tp`` chips; stages of one group lie in different nodes where it has several."""
        if source == target and self.nodes[source] == 1:
            return size_bytes / self._inside(source, 2).bytes_per_s(size_bytes)
        curve = self._between(source, target, 1 if self.whole else tp)
        return math.inf if curve is None else size_bytes / curve.bytes_per_s(size_bytes)

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """A ring of all sets for each shard, whose bytes leave each node once: 2 (n - 1) / n of the whole tensor.

        Inside a node every chip has a link of its own and moves its shard (Patarasu and Yuan 2009,
        doi:10.1016/j.jpdc.2008.09.002).
        """
        sets = sum(members.values())
        if sets <= 1:
            return 0.0
        share = 2.0 * (sets - 1) / sets
        spread = [name for (name, tp), count in members.items() for _ in range(math.ceil(count * tp / self.chips_per_node[name]))]
        if len(spread) == 1:
            ((name, tp),) = members
            return share * size_bytes / tp / self._inside(name, sets * tp).bytes_per_s(size_bytes / tp)
        shards = max(tp for _, tp in members)
        rates = []
        for source, target in zip(spread, [*spread[1:], spread[0]], strict=True):
            curve = self._between(source, target, shards)
            if curve is None:
                return math.inf
            rates.append(curve.bytes_per_s(size_bytes / shards))
        return share * size_bytes / min(rates)

    def _inside(self, group: str, chips: int) -> Curve:
        """Of the smallest measured number of chips that holds ``chips``, else of the greatest."""
        sizes = sorted(size for name, size in self.inside if name == group)
        return self.inside[group, next((size for size in sizes if size >= chips), sizes[-1])]

    def _between(self, source: str, target: str, chips: int) -> Curve | None:
        """Of the greatest measured number of chips up to ``chips``, in either direction."""
        for pair in ((source, target), (target, source)):
            sizes = sorted(size for *names, size in self.between if tuple(names) == pair)
            if sizes:
                return self.between[(*pair, max((size for size in sizes if size <= chips), default=sizes[0]))]
        return None
