"""Cluster: groups of nodes of a chip, the links inside a node and between nodes."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.chips.schema import Chip
from sapper.evidence import Fact

Topology = Literal["switch", "full-mesh", "ring", "torus-2d", "torus-3d", "pcie-tree", "none", "unknown"]
TOPOLOGIES: tuple[Topology, ...] = ("switch", "full-mesh", "ring", "torus-2d", "torus-3d", "pcie-tree", "unknown")
"""What a user may write; ``none`` is a chip without links."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The links of one chip at one level of the network."""

    name: str
    topology: Topology
    bandwidth_bytes_per_s: Fact
    """Per chip and direction, all links of this level together. ``value`` None where unknown."""
    latency_s: Fact
    """Of one hop of one message."""
    domain_size: int | None
    """Chips that reach each other at this level; None where unknown."""
    start_s: Fact | None = None
    """To start one collective, besides its hops; None: the prior of the topology."""
    peers: int | None = None
    """Full mesh: peers that the bandwidth is divided among; None: all others of the domain. Unlike ``domain_size`` it
    does not shrink when a node is not full, because the wires stay where they are."""
    dims: tuple[int, ...] = ()
    """Torus: chips along each axis of the slice; empty elsewhere."""
    wrap: tuple[bool, ...] = ()
    """Torus: whether each axis closes to a ring."""
    p2p_bytes_per_s: Fact | None = None
    """Between one pair and direction, where stated."""
    oversubscription: float = 1.0
    """Network above the NIC: 2 means that half of the NICs' bandwidth crosses it when all send at once."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Like nodes of one chip."""

    name: str
    chip: Chip
    nodes: int
    chips_per_node: int
    scale_up: Link | None
    """Inside the scale-up domain (which may span nodes, as in NVL72 or a TPU pod). None: a chip alone."""
    scale_out: Link | None
    """Between scale-up domains. None where unknown."""
    node_size: Fact | None = None
    """Where ``chips_per_node`` comes from; None where the user gave it as part of a struct."""

    @property
    def chips(self) -> int:
        """Chips of the group."""
        return self.nodes * self.chips_per_node


class GroupLink(msgspec.Struct, frozen=True, kw_only=True):
    """What joins two groups of a mixed cluster."""

    from_group: str
    to_group: str
    bandwidth_bytes_per_s: Fact
    """All wires between the two groups together, per direction. ``value`` None where unknown."""
    latency_s: Fact
    """Of one message."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What a job runs on. One group: homogeneous; several unlike groups: mixed."""

    name: str
    groups: tuple[Group, ...]
    power_price: Fact | None = None
    """Money per joule."""
    pue: Fact | None = None
    """Power usage effectiveness of the site, 1 or more."""
    links: tuple[GroupLink, ...] = ()
    """Between groups; pairs that are not listed are unknown."""

    @property
    def chips(self) -> int:
        """Chips of all groups."""
        return sum(group.chips for group in self.groups)

    @property
    def homogeneous(self) -> bool:
        """Whether there is one group."""
        return len(self.groups) == 1
