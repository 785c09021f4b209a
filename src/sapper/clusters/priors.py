"""What is taken for a link that nobody states: data/links.toml, by topology.

The time model is Hockney's (1994, doi:10.1016/S0167-8191(06)80021-9): a message of m bytes takes alpha + m beta. Its
alpha is split as measurements show it: once per collective (``start_s``) and once per hop (``hop_s``).
"""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any

import msgspec

from sapper import units
from sapper.evidence import Fact

SCALE_OUT = "scale-out"


class LinkPrior(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies and efficiencies of a kind of link."""

    hop_s: Fact
    start_s: Fact
    fill_s: Fact
    """Added per hop once a message is large."""
    efficiency: dict[int, float]
    """Group size -> achieved share of the nominal rate on large messages."""
    efficiency_fact: Fact
    """What vouches for ``efficiency``; its value is that of the largest group."""
    p2p: Fact


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("data", "links.toml").read_text("utf-8"))


@functools.cache
def link_prior(kind: str) -> LinkPrior:
    """The prior of a topology, or of the network between domains (``scale-out``)."""
    entry = _table()["unknown" if kind == "none" else kind]
    curve = {int(size): float(share) for size, share in entry["efficiency"]["by_group"].items()}
    return LinkPrior(
        hop_s=_fact(entry["hop"], "s"), start_s=_fact(entry["start"], "s"), fill_s=_fact(entry["fill"], "s"),
        efficiency=curve, efficiency_fact=_fact(entry["efficiency"] | {"value": curve[max(curve)]}, "1"), p2p=_fact(entry["p2p"], "1"),
    )


@functools.cache
def node_prior() -> Fact:
    """Chips of a node where nobody states it."""
    return _fact(_table()["node"]["size"], "1")


def _fact(entry: dict[str, Any], dimension: str) -> Fact:
    value = units.parse(entry["value"], dimension)
    return Fact(value=value, unit="" if dimension == "1" else dimension, source=entry["source"], grade=entry["grade"])
