"""What joins unlike groups: the links that are stated, and those that the user assumes for the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from sapper.clusters.assume import Assumptions
from sapper.clusters.cluster import Group, GroupLink
from sapper.clusters.priors import SCALE_OUT, link_prior


def joined(groups: Sequence[Group], stated: Iterable[GroupLink], assumed: Assumptions) -> tuple[GroupLink, ...]:
    """Links between ``groups``: as ``stated``, then ``--assume link=`` for pairs whose bandwidth nobody states.

    Without the assumption such a pair stays as it was: not listed, or of unknown bandwidth.
    """
    links = list(stated)
    bandwidth = assumed.fact("link") if _gaps(groups, links) else None
    if bandwidth is None:
        return tuple(links)
    latency = assumed.fact("link_latency") or link_prior(SCALE_OUT).hop_s
    known = {frozenset((one.from_group, one.to_group)) for one in links}
    filled = [
        msgspec.structs.replace(one, bandwidth_bytes_per_s=bandwidth) if one.bandwidth_bytes_per_s.number is None else one for one in links
    ]
    added = [
        GroupLink(from_group=one, to_group=other, bandwidth_bytes_per_s=bandwidth, latency_s=latency)
        for one, other in _pairs(groups)
        if frozenset((one, other)) not in known
    ]
    return (*filled, *added)


def _pairs(groups: Sequence[Group]) -> list[tuple[str, str]]:
    return list(itertools.combinations([group.name for group in groups], 2))


def _gaps(groups: Sequence[Group], links: Sequence[GroupLink]) -> bool:
    """Whether any pair's bandwidth is not known."""
    known = {frozenset((one.from_group, one.to_group)) for one in links if one.bandwidth_bytes_per_s.number is not None}
    return any(frozenset(pair) not in known for pair in _pairs(groups))
