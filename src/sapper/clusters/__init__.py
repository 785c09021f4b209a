"""Clusters: what a job runs on."""

from __future__ import annotations

from sapper.clusters.assume import Assumptions, read_flags
from sapper.clusters.cluster import Cluster, Group, GroupLink, Link
from sapper.clusters.file import check_cluster, read_cluster
from sapper.clusters.spec import cluster_of, parse_cluster, parse_groups

__all__ = [
    "Assumptions", "Cluster", "Group", "GroupLink", "Link", "check_cluster", "cluster_of", "parse_cluster", "parse_groups", "read_cluster",
    "read_flags",
]
