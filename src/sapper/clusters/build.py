"""From a chip and a number of nodes to a Group: the links of the catalogue, the user's assumptions, the priors.

What nobody states stays unknown (a Fact whose value is None); only latencies have a prior, because no data sheet names
them and every message has one.

Chips of a node, where the user does not say it:

* a domain of 2 to 16 chips that is no PCIe tree is a node (HGX, OAM, Atlas 800T, Trn1);
* a greater domain (NVL72, CloudMatrix 384, a TPU pod) spans nodes; the node is assumed to have eight chips, which names
  nodes and changes no rate;
* PCIe cards, and chips whose domain nobody states, are assumed to stand eight to a server; a CPU is a node by itself.
"""

from __future__ import annotations

from typing import cast

import msgspec

from sapper.chips import Chip
from sapper.clusters.assume import Assumptions, with_assumed
from sapper.clusters.cluster import Group, Link, Topology
from sapper.clusters.latency import measured_latency
from sapper.clusters.priors import SCALE_OUT, link_prior, node_prior
from sapper.clusters.torus import RANK, slice_dims, wraps
from sapper.errors import BadValue
from sapper.evidence import Fact

NOT_THERE = "not in the catalogue"
MOST_CHIPS = 1_000_000
NODE_SIZED = 16
"""Greatest domain that is taken to be one node."""


def group_of(
    chip: Chip, chips: int | None = None, *, nodes: int | None = None, per_node: int | None = None,
    assumed: Assumptions | None = None, name: str | None = None,
) -> Group:
    """A group of ``chips`` chips, or of ``nodes`` nodes of ``per_node`` chips.

    Args:
        chip: From the catalogue.
        chips: All chips of the group; or None with ``per_node`` and ``nodes`` given.
        nodes: Nodes; None: as many as the chips fill.
        per_node: Chips of a node; None: by the rule of this module.
        assumed: Fills what the catalogue does not know.
        name: Of the group; None: the chip's id.

    Raises:
        BadValue: The chips do not fill whole nodes.
    """
    assumed = assumed or Assumptions()
    chip = with_assumed(chip, assumed)
    size = Fact(value=float(per_node), unit="", source="given by the user", grade="assumed") if per_node else _node_size(chip, assumed)
    if nodes is None:
        total = chips if chips is not None else int(size.number or 1)
        nodes, per_node = _split(chip, total, int(size.number or 1), exact=per_node is not None)
    elif per_node is None:
        total = chips if chips is not None else nodes * int(size.number or 1)
        if total % nodes:
            raise BadValue("SP-CLUSTER-003", chips=total, nodes=nodes, size=total // nodes, rest=total % nodes, chip=chip.id)
        per_node = total // nodes
    return Group(
        name=name or chip.id, chip=chip, nodes=nodes, chips_per_node=per_node, node_size=size,
        scale_up=scale_up_of(chip, nodes * per_node, per_node=per_node, assumed=assumed), scale_out=scale_out_of(chip, assumed=assumed),
    )


def _domain(chip: Chip, assumed: Assumptions) -> Fact | None:
    """Chips of the scale-up domain: the catalogue's, else the user's assumption."""
    known = chip.scale_up.domain_size if chip.scale_up else None
    if known is not None:
        return Fact(value=float(known), unit="", source=f"catalogue, {chip.id} scale_up.domain_size", grade="vendor-claimed")
    return assumed.fact("domain", chip.id)


def _node_size(chip: Chip, assumed: Assumptions) -> Fact:
    domain = _domain(chip, assumed)
    size = int(domain.number or 1) if domain else None
    if chip.arch_class == "cpu":
        return domain or Fact(value=1.0, unit="", source="a CPU is a node by itself", grade="assumed")
    if domain is not None and size is not None and 1 < size <= NODE_SIZED and _topology(chip, assumed) != "pcie-tree":
        return domain
    return assumed.fact("node", chip.id) or node_prior()


def _split(chip: Chip, total: int, size: int, *, exact: bool) -> tuple[int, int]:
    """(nodes, chips per node) of ``total`` chips: whole nodes, else equal ones at least half full, else one partial node."""
    if total <= size:
        return 1, total
    if total % size == 0:
        return total // size, size
    if not exact:
        for part in range(size, size // 2, -1):
            if total % part == 0:
                return total // part, part
    raise BadValue("SP-CLUSTER-003", chips=total, nodes=total // size, size=size, rest=total % size, chip=chip.id)


def _topology(chip: Chip, assumed: Assumptions) -> Topology:
    stated = chip.scale_up.topology if chip.scale_up else None
    if stated in (None, "unknown"):
        word = assumed.text("topology", chip.id)
        if word is not None:
            return cast(Topology, word)
    if stated is None:
        return "pcie-tree" if _on_host_link(chip, assumed) else "unknown"
    return cast(Topology, stated)


def _on_host_link(chip: Chip, assumed: Assumptions) -> bool:
    """Whether the host link is all that joins the chips of a node: nobody states or assumes a scale-up link."""
    host = chip.host_link_bytes_per_s
    return chip.scale_up is None and host is not None and host.number is not None and (chip.id, "scale_up") not in assumed.entries and (
        (None, "scale_up") not in assumed.entries
    )


def scale_up_of(chip: Chip, chips: int, per_node: int | None = None, *, assumed: Assumptions | None = None) -> Link | None:
    """The links inside the domain of a group of ``chips`` chips in nodes of ``per_node``; None for a chip without any.

    Args:
        chip: From the catalogue; one whose ``scale_up`` is None is joined by its host link.
        chips: All chips of the group.
        per_node: Chips of a node; None: all stand in one.
        assumed: Fills what the catalogue does not know.
    """
    per_node = per_node or chips
    assumed = assumed or Assumptions()
    topology = _topology(chip, assumed)
    prior = link_prior(topology)
    bandwidth, name = _scale_up_bandwidth(chip, assumed)
    domain = _domain(chip, assumed)
    wired = int(domain.number or 1) if domain else None
    if topology == "pcie-tree":
        wired = per_node
    if chip.arch_class == "cpu" and chip.scale_up is None:
        return None
    hop, start = measured_latency(chip, prior)
    stated = assumed.fact("scale_up_latency", chip.id) or assumed.fact("latency", chip.id) if hop is prior.hop_s else None
    spans = wired is not None and wired > NODE_SIZED
    reach = None if wired is None else min(wired, chips if spans else per_node)
    dims = slice_dims(reach, RANK[topology]) if topology in RANK and reach else ()
    return Link(
        name=name, topology=topology, bandwidth_bytes_per_s=bandwidth, latency_s=stated or hop, start_s=start,
        domain_size=reach, peers=wired - 1 if topology in ("full-mesh", "unknown") and wired and wired > 1 else None,
        dims=dims, wrap=wraps(dims, wired) if dims and wired else (),
        p2p_bytes_per_s=chip.scale_up.p2p_bytes_per_s if chip.scale_up else None,
    )


def _scale_up_bandwidth(chip: Chip, assumed: Assumptions) -> tuple[Fact, str]:
    """(bandwidth per chip and direction, name) of the scale-up link: catalogue, assumption, host link, unknown."""
    known = chip.scale_up.bandwidth_bytes_per_s if chip.scale_up else None
    name = chip.scale_up.name if chip.scale_up else ""
    if known is not None and known.number is not None:
        return known, name
    taken = assumed.fact("scale_up", chip.id)
    if taken is not None:
        return taken, name or "scale-up link"
    host = chip.host_link_bytes_per_s
    if chip.scale_up is None and host is not None and host.number is not None:
        note = "the catalogue names no scale-up link, so that the chips of a node meet over the host link"
        return msgspec.structs.replace(host, note="; ".join(filter(None, (host.note, note)))), chip.host_link or "host link"
    return known or unknown(), name or "scale-up link"


def scale_out_of(chip: Chip, *, assumed: Assumptions | None = None) -> Link:
    """The network between domains, as the vendor's reference server has it."""
    assumed = assumed or Assumptions()
    prior = link_prior(SCALE_OUT)
    known = chip.scale_out.bandwidth_bytes_per_s if chip.scale_out else None
    if known is None or known.number is None:
        known = assumed.fact("scale_out", chip.id) or known or unknown()
    text = chip.scale_out.text.value if chip.scale_out else None
    stated = assumed.fact("scale_out_latency", chip.id) or assumed.fact("latency", chip.id)
    return Link(
        name=str(text) if text else "network", topology="switch", bandwidth_bytes_per_s=known, latency_s=stated or prior.hop_s,
        start_s=prior.start_s, domain_size=None,
    )


def unknown(unit: str = "bytes/s") -> Fact:
    """A value that nobody whom we read states."""
    return Fact(value=None, unit=unit, source=NOT_THERE, grade="assumed", status="unknown")
