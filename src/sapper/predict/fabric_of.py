"""From a group of a cluster to its :class:`~sapper.predict.fabric.Fabric`: nominal rates, measured shares, priors."""

from __future__ import annotations

from dataclasses import replace

from sapper.chips.schema import Chip
from sapper.clusters.cluster import Group, Link
from sapper.clusters.priors import SCALE_OUT, LinkPrior, link_prior
from sapper.clusters.torus import RANK, slice_dims, wraps
from sapper.errors import MissingFact
from sapper.evidence import Fact
from sapper.messages import Phrase
from sapper.predict.estimate import Used
from sapper.predict.fabric import Fabric, Tier, no_fabric
from sapper.predict.link_evidence import LinkEvidence, link_evidence, mean, with_evidence

_MOST_CARDS = 64
"""Greatest PCIe group that a measurement is read for."""


def fabric_of(group: Group, *, up_prior: LinkPrior | None = None, out_prior: LinkPrior | None = None) -> Fabric:
    """The network of a group: nominal rates of its links, and the shares of them that measurements show.

    Args:
        group: Of one chip.
        up_prior: Efficiencies of the scale-up link where the chip has no measurement; None: those of its topology.
        out_prior: The same of the network between domains.

    Raises:
        MissingFact: A link that the group needs has no known bandwidth or domain; the field is named.
    """
    if group.chips == 1:
        return no_fabric()
    up, used = group.scale_up, []
    evidence = LinkEvidence()
    tier = None
    if up is not None and up.topology != "none":
        if up.domain_size is None:
            raise _missing(group, "domain", "8")
        tier, evidence = _scale_up(group, up, up_prior or link_prior(up.topology))
        used.append(Used(key=f"{group.chip.id} scale-up link", fact=up.bandwidth_bytes_per_s))
        used.append(Used(key=f"{group.chip.id} scale-up hop", fact=up.latency_s))
    domain = tier.size if tier is not None else 1
    network = None
    if group.chips > domain:
        network = _scale_out(group, domain, out_prior or link_prior(SCALE_OUT), evidence)
        assert group.scale_out is not None
        used.append(Used(key=f"{group.chip.id} network", fact=group.scale_out.bandwidth_bytes_per_s))
    if tier is not None and not (evidence.reduce or evidence.gather):
        used.append(Used(key=f"{group.chip.id} share of the links", fact=(up_prior or link_prior(tier.topology)).efficiency_fact))
    if network is not None and not evidence.network:
        used.append(Used(key=f"{group.chip.id} share of the network", fact=(out_prior or link_prior(SCALE_OUT)).efficiency_fact))
    return Fabric(scale_up=tier, scale_out=network, domain_size=domain, used=(*used, *evidence.used))


def _scale_up(group: Group, link: Link, prior: LinkPrior) -> tuple[Tier, LinkEvidence]:
    assert link.domain_size is not None
    size = min(link.domain_size, group.chips)
    whole = link.domain_size if link.topology in ("full-mesh", "unknown") else size
    dims, wrap = _slice(link, size)
    bare = Tier(
        topology=link.topology, bandwidth_bytes_per_s=_number(group, link.bandwidth_bytes_per_s, "scale_up", "200GB/s"), size=size,
        hop_s=_or(link.latency_s, prior.hop_s), start_s=_or(link.start_s, prior.start_s), fill_s=prior.fill_s.number or 0.0,
        peers=link.peers or max(whole - 1, 1), dims=dims, wrap=wrap,
        p2p_bytes_per_s=link.p2p_bytes_per_s.number if link.p2p_bytes_per_s else None, node_size=group.chips_per_node,
    )
    evidence = link_evidence(group.chip, _as_measured(group.chip, bare))
    curve = tuple(sorted(prior.efficiency.items()))
    return with_evidence(bare, evidence, prior=curve, p2p=prior.p2p.number or 1.0), evidence


def _as_measured(chip: Chip, tier: Tier) -> Tier | None:
    """The catalogue's link, on which its measurements were taken; None where it is of another kind than ``tier``.

    A user may put another rate or size in its place, and the shares of the nominal rate still hold; on another topology
    they do not.
    """
    up = chip.scale_up
    rate = up.bandwidth_bytes_per_s.number if up is not None and up.bandwidth_bytes_per_s is not None else None
    if up is None or not rate or up.topology != tier.topology:
        return None
    size = _MOST_CARDS if up.topology == "pcie-tree" else max(up.domain_size or tier.size, 2)
    rank = RANK.get(up.topology)
    dims = slice_dims(size, rank) if rank else ()
    return replace(tier, bandwidth_bytes_per_s=rate, size=size, peers=size - 1, dims=dims, wrap=wraps(dims, size) if dims else ())


def _slice(link: Link, size: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Axes of a torus of ``size`` chips and which of them close: the link's where they fit, else by the rule of slices."""
    rank = RANK.get(link.topology)
    if rank is None:
        return (), ()
    product = 1
    for length in link.dims:
        product *= length
    if len(link.dims) == rank and len(link.wrap) == rank and product == size:
        return link.dims, link.wrap
    dims = slice_dims(size, rank)
    return dims, wraps(dims, link.domain_size or size)


def _scale_out(group: Group, domain: int, prior: LinkPrior, evidence: LinkEvidence) -> Tier:
    link = group.scale_out
    if link is None:
        raise _missing(group, "scale_out", "200Gb/s")
    rate = _number(group, link.bandwidth_bytes_per_s, "scale_out", "200Gb/s") / link.oversubscription
    share = mean(evidence.network) if evidence.network else prior.efficiency[max(prior.efficiency)]
    whole = ((1, share),)
    return Tier(
        topology="switch", bandwidth_bytes_per_s=rate, size=-(-group.chips // domain), hop_s=_or(link.latency_s, prior.hop_s),
        start_s=_or(link.start_s, prior.start_s), fill_s=prior.fill_s.number or 0.0, reduce_efficiency=whole, gather_efficiency=whole,
        p2p_efficiency=share,
    )


def _or(fact: Fact | None, prior: Fact) -> float:
    number = fact.number if fact is not None else None
    return float(number if number is not None else prior.number or 0.0)


def _number(group: Group, fact: Fact, key: str, example: str) -> float:
    if fact.number is None or not fact.number > 0:
        raise _missing(group, key, example)
    return float(fact.number)


def _missing(group: Group, key: str, example: str) -> MissingFact:
    what = Phrase(f"clusters.missing.{key}")
    return MissingFact("SP-CLUSTER-028", where=group.name, chip=group.chip.id, what=what, chips=group.chips, key=key, example=example)
