"""Network: times of messages inside the groups of a cluster and between them.

Inside a group predict's collectives answer (collectives.py); between groups a link is what a
:class:`~sapper.clusters.cluster.GroupLink` says: a latency and the bandwidth of all its wires together.

A reduction over several groups goes inside each, between them, and inside each again. Between G groups whole tensors of V bytes
go round a ring of single representatives, 2 (G - 1) / G V bytes over each link and direction (Patarasu and Yuan 2009,
doi:10.1016/j.jpdc.2008.09.002), which for two groups is one exchange of V.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadValue, MissingFact
from sapper.predict import collectives
from sapper.predict.collectives import Fabric, Line
from sapper.predict.engine import fabric_for, require_links
from sapper.predict.features import domain_split


@dataclass(frozen=True)
class Wire:
    """Between two groups."""

    latency_s: float
    bytes_per_s: float
    """Per direction, all wires together."""


@dataclass(frozen=True)
class ClusterNetwork:
    """The links of a cluster as predict prices them; a :class:`~sapper.mix.problem.Network`."""

    fabrics: Mapping[str, Fabric]
    shares: Mapping[str, float]
    """Group -> achieved share of a link's rate beside what the collective's formula knows (``Constants.link``)."""
    wires: Mapping[frozenset[str], Wire]
    _lines: dict[tuple[str, int, int], tuple[Line, ...]] = field(default_factory=dict, repr=False)
    """Algorithms by (group, tp, sets): a search asks few of them many times."""

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """One activation from a chip of ``source`` to one of ``target``; infinite where no link joins the groups.

        The chips of a tensor parallel group hold the activation whole: ``tp`` makes its message no shorter. Stages of one group are
        taken to lie in different scale-up domains where it has several.
        """
        if source == target:
            fabric = self.fabrics[source]
            return float(collectives.send_s(size_bytes, fabric, fabric.scale_out is not None)) / self.shares[source]
        wire = self.wires.get(frozenset((source, target)))
        if wire is None:
            return math.inf
        return wire.latency_s + size_bytes / (wire.bytes_per_s * min(self.shares[source], self.shares[target]))

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """Gradients of ``size_bytes`` (whole, all shards together) over sets of tp chips by (group, tp)."""
        inside = max((self._inside_s(size_bytes / tp, name, tp, count) for (name, tp), count in members.items()), default=0.0)
        groups = {name for name, _ in members}
        return inside + (self._between_s(size_bytes, groups) if len(groups) > 1 else 0.0)

    def _inside_s(self, size_bytes: float, name: str, tp: int, count: int) -> float:
        if count == 1:
            return 0.0
        key = (name, tp, count)
        if key not in self._lines:
            fabric = self.fabrics[name]
            inner, outer = domain_split(np.array(count), stride=np.array(tp), fabric=fabric)
            self._lines[key] = collectives.all_reduce_lines(int(inner), int(outer), fabric)
        return min(line.time_s(size_bytes) for line in self._lines[key]) / self.shares[name]

    def _between_s(self, size_bytes: float, groups: set[str]) -> float:
        tree = self._tree(groups)
        if tree is None:
            return math.inf
        rate = min(wire.bytes_per_s for wire in tree) * min(self.shares[name] for name in groups)
        hops = 2.0 * (len(groups) - 1)
        return hops * max(wire.latency_s for wire in tree) + hops / len(groups) * size_bytes / rate

    def _tree(self, groups: set[str]) -> list[Wire] | None:
        """The widest links that join ``groups``; None where they do not (Prim's algorithm)."""
        joined, found = {min(groups)}, []
        while joined < groups:
            leaving = [
                (wire.bytes_per_s, sorted(pair - joined), wire)
                for pair, wire in self.wires.items() if pair <= groups and len(pair & joined) == 1
            ]
            if not leaving:
                return None
            _, new, wire = max(leaving, key=lambda one: one[:2])
            joined.update(new)
            found.append(wire)
        return found


def network_of(cluster: Cluster, *, link_shares: Mapping[str, float] | None = None) -> ClusterNetwork:
    """The network of ``cluster``.

    Args:
        cluster: One group or several.
        link_shares: Group -> achieved share of link rates; None: 1.

    Raises:
        BadValue: Groups that no link joins, not even by way of others.
        MissingFact: A link's bandwidth is unknown.
    """
    unknown = [f"`{link.from_group}` - `{link.to_group}`" for link in cluster.links if not link.bandwidth_bytes_per_s.number]
    if unknown:
        raise MissingFact("SP-MIX-051", where=cluster.name, pairs=", ".join(unknown))
    wires = {
        frozenset((link.from_group, link.to_group)): Wire(link.latency_s.number or 0.0, link.bandwidth_bytes_per_s.number or 0.0)
        for link in cluster.links
    }
    _check_joined(cluster, set(wires))
    require_links(cluster.groups)
    shares = link_shares or {group.name: 1.0 for group in cluster.groups}
    return ClusterNetwork(fabrics={group.name: fabric_for(group) for group in cluster.groups}, shares=shares, wires=wires)


def _check_joined(cluster: Cluster, pairs: set[frozenset[str]]) -> None:
    names = [group.name for group in cluster.groups]
    joined = {names[0]}
    while more := {name for pair in pairs if pair & joined for name in pair} - joined:
        joined |= more
    apart: list[Group] = [group for group in cluster.groups if group.name not in joined]
    if apart:
        raise BadValue("SP-MIX-050", where=cluster.name, joined=", ".join(sorted(joined)), apart=", ".join(one.name for one in apart))
