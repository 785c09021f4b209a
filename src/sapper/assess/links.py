"""Links as the tables show them."""

from __future__ import annotations

from typing import Literal

from sapper.assess.assessment import LinkView
from sapper.clusters.cluster import Cluster, Link


def link_view(level: Literal["scale-up", "scale-out"], link: Link) -> LinkView:
    """A cluster's link in the form of the Assessment."""
    return LinkView(
        level=level,
        name=link.name,
        topology=link.topology,
        bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
        latency_s=link.latency_s,
        domain_size=link.domain_size,
    )


def cluster_links(cluster: Cluster) -> tuple[LinkView, ...]:
    """Both levels of the first group's network; a level that nobody states is left out."""
    group = cluster.groups[0]
    found = []
    if group.scale_up is not None:
        found.append(link_view("scale-up", group.scale_up))
    if group.scale_out is not None:
        found.append(link_view("scale-out", group.scale_out))
    return tuple(found)
