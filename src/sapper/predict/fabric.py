"""Fabric: the two levels of a cluster's network as the collective formulas need them.

A :class:`Tier` turns topology, bandwidth and measured efficiencies into tables by group size, once, so that pricing a
hundred thousand plans is indexing. Symbols: N = chips of the domain, n = chips of a group inside it, b = bandwidth of one
chip per direction.

Rate of a ring collective over n chips, in bus bandwidth (NVIDIA/nccl-tests, doc/PERFORMANCE.md), before the efficiency:

* switch: b for any group.
* full mesh of N: b (n-1)/(N-1), since a group can use only the links among its own members.
* ring of N: b for all of it (two rings in opposite directions at b/2 each); b/2 for a part, where the ring is laid on a
  line and its closing edge goes back the other way.
* torus of d axes: each axis has two ports of b/(2d). A group lies along whole axes, longest first; an axis that closes
  gives both ports, one that does not gives one (TPU v4, arXiv:2304.01433; jax-ml/scaling-book, sharding.md).
* PCIe tree: b, since a ring ordered like the tree loads each link once per direction; what the root complex costs is in
  the measured efficiency.

Seconds per byte of an all-to-all, where each of n chips sends n-1 parts of its buffer to the others, are the bytes that
cross the busiest cut over the cut's rate.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sapper.clusters.cluster import Topology
from sapper.clusters.torus import RANK
from sapper.predict.arrays import Floats
from sapper.predict.estimate import Used

Curve = tuple[tuple[int, float], ...]
"""Group size and achieved share, ascending; between sizes it is straight over log2 of the size, beyond the ends level."""
WHOLE: Curve = ((1, 1.0),)


@dataclass(frozen=True)
class Tier:
    """One level of the network, as one chip sees it."""

    topology: Topology
    bandwidth_bytes_per_s: float
    """Nominal, per chip and direction; after oversubscription."""
    size: int
    """Chips of the slice (scale-up), or domains (scale-out), that a group may have here."""
    hop_s: float
    start_s: float = 0.0
    fill_s: float = 0.0
    """Added per hop for messages too large for the low-latency protocol."""
    peers: int = 0
    """Full mesh: peers that the bandwidth is divided among; 0: size - 1."""
    dims: tuple[int, ...] = ()
    wrap: tuple[bool, ...] = ()
    reduce_efficiency: Curve = WHOLE
    """Achieved share of the ring rate, all-reduce and reduce-scatter."""
    gather_efficiency: Curve = WHOLE
    """The same, all-gather, all-to-all and broadcast."""
    in_switch: float | None = None
    """Achieved share of the in-switch reduction's bound; None: the switch does not reduce, or nobody shows that it does."""
    p2p_efficiency: float = 1.0
    p2p_bytes_per_s: float | None = None
    """Between one pair, where stated."""
    node_size: int = 8
    """Chips of a node: a tree runs as a chain inside and branches between nodes (NVIDIA/nccl, graph/tuning.cc)."""

    @functools.cached_property
    def ring_bytes_per_s(self) -> Floats:
        """Nominal ring rate by group size, index 0 to ``size``; infinite for groups of one."""
        n = np.arange(self.size + 1, dtype=float)
        b = self.bandwidth_bytes_per_s
        if self.topology in ("full-mesh", "unknown"):
            # An unknown topology is priced as a mesh: for a whole domain all agree, for a part none does worse.
            rate = b * np.minimum((n - 1.0) / max(self.peers or self.size - 1, 1), 1.0)
        elif self.topology in RANK:
            rate = self._torus_rate(n)
        else:
            rate = np.full_like(n, b)
        rate[:2] = np.inf
        return np.asarray(rate, float)

    @functools.cached_property
    def reduce_bytes_per_s(self) -> Floats:
        """Achieved ring rate of an all-reduce or reduce-scatter by group size."""
        return self.ring_bytes_per_s * self._share(self.reduce_efficiency)

    @functools.cached_property
    def gather_bytes_per_s(self) -> Floats:
        """Achieved ring rate of an all-gather or broadcast by group size."""
        return self.ring_bytes_per_s * self._share(self.gather_efficiency)

    @functools.cached_property
    def in_switch_bytes_per_s(self) -> Floats:
        """Achieved rate of the in-switch all-reduce by group size; 0 where there is none."""
        share = self.in_switch if self.in_switch is not None and self.topology == "switch" else 0.0
        return np.full(self.size + 1, self.bandwidth_bytes_per_s * share)

    @functools.cached_property
    def all_to_all_s_per_byte(self) -> Floats:
        """Seconds per byte of one chip's send buffer by group size."""
        n = np.maximum(np.arange(self.size + 1, dtype=float), 1.0)
        b = self.bandwidth_bytes_per_s
        half = np.floor(n * n / 4.0) / n
        if self.topology in ("full-mesh", "unknown"):
            cost = np.maximum(self.peers or self.size - 1, n - 1.0) / (n * b)
        elif self.topology in RANK:
            cost = self._torus_all_to_all(n)
        elif self.topology == "pcie-tree":
            # half of the group may hang under one port of the root complex, and all its traffic to the others crosses that
            cost = half / b
        else:
            cost = (n - 1.0) / n / b
        cost[:2] = 0.0
        return np.asarray(cost / self._share(self.gather_efficiency), float)

    @functools.cached_property
    def pair_bytes_per_s(self) -> float:
        """Achieved rate of one message between two chips."""
        b = self.bandwidth_bytes_per_s
        if self.p2p_bytes_per_s is not None:
            b = min(b, self.p2p_bytes_per_s)
        elif self.topology in ("full-mesh", "unknown"):
            b = b / max(self.peers or self.size - 1, 1)
        elif self.topology in RANK:
            b = b / (2.0 * RANK[self.topology])
        return b * self.p2p_efficiency

    @functools.cached_property
    def ring_hops(self) -> Floats:
        """Messages in sequence of a ring all-gather by group size: n-1; on a torus those of each axis, both ways at once."""
        n = np.arange(self.size + 1, dtype=float)
        if self.topology not in RANK:
            return np.maximum(n - 1.0, 0.0)
        hops = np.zeros_like(n)
        for length, full in self._axes(n):
            hops += np.where(full, np.floor(length / 2.0), length - 1.0)
        return hops

    @functools.cached_property
    def tree_hops(self) -> Floats:
        """Messages in sequence from the leaves of a tree to its root by group size: a chain in the node, a tree between nodes."""
        n = np.maximum(np.arange(self.size + 1, dtype=float), 1.0)
        node = max(self.node_size, 1)
        return np.asarray(np.minimum(n, node) - 1.0 + np.ceil(np.log2(np.ceil(n / node))), float)

    def _share(self, curve: Curve) -> Floats:
        sizes = np.log2([size for size, _ in curve])
        return np.asarray(np.interp(np.log2(np.maximum(np.arange(self.size + 1), 1)), sizes, [share for _, share in curve]), float)

    def _axes(self, n: Floats) -> list[tuple[Floats, np.ndarray]]:
        """For each axis, how much of it a group of n takes, and whether that closes to a ring."""
        dims, wrap = (self.dims, self.wrap) if self.dims else ((self.size,), (True,))
        order = sorted(range(len(dims)), key=lambda axis: -dims[axis])
        rest = np.maximum(n, 1.0)
        found = []
        for axis in order:
            length = np.minimum(rest, dims[axis])
            found.append((length, (length == dims[axis]) & wrap[axis] & (length > 1)))
            rest = np.ceil(rest / length)
        return found

    def _torus_rate(self, n: Floats) -> Floats:
        rank = RANK[self.topology]
        port = self.bandwidth_bytes_per_s / (2.0 * rank)
        rate = np.zeros_like(n)
        for length, full in self._axes(n):
            rate += np.where(length > 1, np.where(full, 2.0 * port, port), 0.0)
        return np.maximum(rate, port)

    def _torus_all_to_all(self, n: Floats) -> Floats:
        rank = RANK[self.topology]
        port = self.bandwidth_bytes_per_s / (2.0 * rank)
        cost = np.zeros_like(n)
        for length, full in self._axes(n):
            # a cut across the axis: floor(k^2/4)/k of each chip's bytes, over one link where the axis is open, two where it closes
            crossing = np.floor(length * length / 4.0) / length
            cost = np.maximum(cost, crossing / np.where(full, 2.0 * port, port))
        return cost


@dataclass(frozen=True)
class Fabric:
    """The network of one group of like chips."""

    scale_up: Tier | None
    """Inside the domain; None for chips without links."""
    scale_out: Tier | None
    """Between domains; None where the group is one domain."""
    domain_size: int
    """Chips of one domain that the group has; 1 without scale-up links."""
    used: tuple[Used, ...] = ()
    """What vouches for the numbers."""

    @property
    def nominal(self) -> Fabric:
        """The same links without any loss: each at its nominal rate, no reduction in the switch, no latency."""
        return Fabric(
            scale_up=_nominal(self.scale_up), scale_out=_nominal(self.scale_out), domain_size=self.domain_size, used=self.used
        )


def _nominal(tier: Tier | None) -> Tier | None:
    if tier is None:
        return None
    return Tier(
        topology=tier.topology, bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s, size=tier.size, hop_s=0.0, peers=tier.peers,
        dims=tier.dims, wrap=tier.wrap, p2p_bytes_per_s=tier.p2p_bytes_per_s, node_size=tier.node_size,
    )


def no_fabric() -> Fabric:
    """The network of a single chip."""
    return Fabric(scale_up=None, scale_out=None, domain_size=1)
