"""The numbers of clusters/data/links.toml against the catalogue that they are derived from."""

from __future__ import annotations

import pytest

from sapper.chips import Chip, catalogue
from sapper.clusters import cluster_of
from sapper.clusters.latency import measured_latency
from sapper.clusters.priors import SCALE_OUT, link_prior, node_prior
from sapper.evidence import GRADES
from sapper.predict.fabric_of import _as_measured, _scale_up
from sapper.predict.link_evidence import LinkEvidence, curve, link_evidence, mean

KINDS = ("switch", "full-mesh", "ring", "torus-2d", "torus-3d", "pcie-tree", "unknown", SCALE_OUT)
OUTLIERS = {"nvidia-l40s"}
"""A server whose PCIe tree is not one of the usual; links.toml says so."""


def measured_chips(topology: str) -> list[Chip]:
    linked = [chip for chip in catalogue().chips.values() if chip.scale_up and chip.scale_up.topology == topology]
    return [chip for chip in linked if any(m.metric.startswith("all_") for m in chip.measured)]


def evidence(chip: Chip) -> LinkEvidence:
    group = cluster_of(chip, 8, per_node=8).groups[0]
    assert group.scale_up is not None
    tier, _ = _scale_up(group, group.scale_up, link_prior(group.scale_up.topology))
    return link_evidence(chip, _as_measured(chip, tier))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_numbers_with_a_source(kind: str) -> None:
    prior = link_prior(kind)

    for fact in (prior.hop_s, prior.start_s, prior.fill_s, prior.efficiency_fact, prior.p2p):
        assert fact.number is not None and fact.number > 0
        assert len(fact.source) > 5 and fact.grade in GRADES
    assert all(0 < share <= 1 for share in prior.efficiency.values())


def test_the_node_of_last_resort_is_assumed() -> None:
    assert (node_prior().number, node_prior().grade) == (8, "assumed")


@pytest.mark.parametrize(("topology", "pick"), [("switch", 0), ("switch", 1), ("pcie-tree", 0), ("pcie-tree", 1)])
def test_latency_priors_are_the_mean_of_the_fits(topology: str, pick: int) -> None:
    prior = link_prior(topology)
    fits = [measured_latency(chip, prior)[pick] for chip in measured_chips(topology)]
    values = [fact.number for fact in fits if fact.note and fact.number]

    assert len(values) >= 3
    assert (prior.hop_s, prior.start_s)[pick].number == pytest.approx(mean(values), rel=0.05)


@pytest.mark.parametrize("topology", ["switch", "full-mesh", "pcie-tree"])
def test_efficiency_priors_are_the_mean_of_the_measurements(topology: str) -> None:
    found: dict[int, list[float]] = {}
    for chip in measured_chips(topology):
        if chip.id in OUTLIERS:
            continue
        own = evidence(chip)
        for table in (own.reduce, own.gather) if topology == "full-mesh" else (own.reduce,):
            for size, share in curve(table) or ():
                found.setdefault(size, []).append(share)

    for size, share in link_prior(topology).efficiency.items():
        assert share == pytest.approx(mean(found[size]), rel=0.07), size
