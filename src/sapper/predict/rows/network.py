"""Network between nodes where the row states it: ``8x ConnectX-7 IB NDR 400Gb/s``, ``1600 Gb/s`` of a section's title.

Only figures of the compute network count. Words without a figure (``InfiniBand``), management and storage ports, and
PCIe bandwidths leave the catalogue's network in place.
"""

from __future__ import annotations

import re

import msgspec

from sapper.clusters.build import scale_out_of
from sapper.clusters.cluster import Cluster
from sapper.evidence import Fact
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row
from sapper.predict.rows.rules import SourceRule

_RATE = r"(\d+(?:\.\d+)?)\s*(?:gb|gbit|gbps|gbe)\s*(?:/s(?:ec)?|ps)?"
_PORTS = re.compile(rf"(\d+)\s*x\s*[^,;+]*?{_RATE}(?![a-z])", re.IGNORECASE)
_TOTAL = re.compile(rf"{_RATE}(?![a-z])", re.IGNORECASE)
_OTHER_USE = re.compile(r"storage|management|frontend|gpu-pcie|pcie-nic", re.IGNORECASE)
_NIC = re.compile(r"connect-?x|mellanox|bluefield|\bib\b|infiniband|ethernet|gbe|roce|nic|efa|slingshot|hdr|ndr|xdr", re.IGNORECASE)
_SCALE_UP = re.compile(r"nvlink|nvswitch|xgmi|infinity fabric", re.IGNORECASE)
USUAL_BYTES_PER_S = 50e9
LEAST_GBIT = 50.0
"""A slower port per node is not what gradients travel over."""


def node_rate_bytes_per_s(row: Row, rule: SourceRule) -> tuple[float, str] | None:
    """Bytes per second and direction that leave one node, with the words that say so; None where nothing does."""
    if rule.scale_out is not None:
        found = _TOTAL.search(rule.scale_out)
        return (float(found[1]) * 1e9 / 8, rule.scale_out) if found else None
    for key in ("host_network", "interconnect"):
        words = row.extra.get(key)
        if isinstance(words, str):
            found_rate = _compute_ports(words)
            if found_rate is not None:
                return found_rate, words
    return None


def _compute_ports(words: str) -> float | None:
    """Rate of the compute ports in a submitter's words; None where none has a figure."""
    clauses = [clause.strip() for clause in re.split(r"[,;+](?!\s*\d+\s*x?\s*\d*gb)|(?<=NIC)\s", words) if clause.strip()]
    compute = [clause for clause in clauses if re.match(r"compute", clause, re.IGNORECASE)] or clauses
    for clause in compute:
        if _OTHER_USE.search(clause) or _SCALE_UP.search(clause) or not _NIC.search(clause):
            continue
        ports = _PORTS.search(clause)
        if ports is None:
            continue
        gbit = float(ports[1]) * float(ports[2])
        return gbit * 1e9 / 8 if gbit >= LEAST_GBIT else None
    return None


def with_stated_network(cluster: Cluster, row: Row, rule: SourceRule) -> tuple[Cluster, tuple[Assumption, ...]]:
    """``cluster`` with the row's network between its nodes, where the row states one and the cluster has several nodes."""
    stated = node_rate_bytes_per_s(row, rule)
    if len(cluster.groups) != 1 or cluster.groups[0].nodes < 2:
        return cluster, ()
    if stated is None or _integrated_network(row):
        return _usual_network(cluster)
    group = cluster.groups[0]
    rate = stated[0] / group.chips_per_node
    fact = Fact(value=rate, unit="bytes/s", source=row.url or row.source, grade="measured-elsewhere", note=stated[1])
    usual = scale_out_of(group.chip) if group.scale_out is None else group.scale_out
    link = msgspec.structs.replace(usual, name=stated[1], bandwidth_bytes_per_s=fact)
    changed = msgspec.structs.replace(cluster, groups=(msgspec.structs.replace(group, scale_out=link),))
    return changed, (Assumption(field="network", value=f"{rate / 1e9:.4g} GB/s", code="assume.network", values={"words": stated[1]}),)


def _usual_network(cluster: Cluster) -> tuple[Cluster, tuple[Assumption, ...]]:
    """``cluster`` with one 400 Gb/s port per chip between its domains, where neither the row nor the catalogue knows better.

    A published run did have a network; 400 Gb/s per chip is what reference servers of 2022 and later carry (HGX H100, MI300X
    OAM servers). Only rows are helped out so: a user's question without a network is refused.
    """
    group = cluster.groups[0]
    domain = group.scale_up.domain_size if group.scale_up else 1
    known = group.scale_out is not None and group.scale_out.bandwidth_bytes_per_s.number is not None
    if known or (domain is not None and group.chips <= domain):
        return cluster, ()
    usual = scale_out_of(group.chip) if group.scale_out is None else group.scale_out
    source = "one 400 Gb/s port per chip, as reference servers since 2022 have"
    fact = Fact(value=USUAL_BYTES_PER_S, unit="bytes/s", source=source, grade="assumed")
    link = msgspec.structs.replace(usual, bandwidth_bytes_per_s=fact)
    changed = msgspec.structs.replace(cluster, groups=(msgspec.structs.replace(group, scale_out=link),))
    return changed, (Assumption(field="network", value="50 GB/s", code="assume.network.usual"),)


def _integrated_network(row: Row) -> bool:
    """Gaudi's Ethernet ports are on the chip, so that the host's cards carry no gradients; the catalogue knows them."""
    return "gaudi" in f"{row.chip} {row.chip_id}".lower()
