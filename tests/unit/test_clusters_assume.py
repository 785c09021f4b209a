from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.clusters import Assumptions, parse_cluster, parse_groups, read_flags
from sapper.errors import BadValue, SapperError, UnknownName
from support import ROOT


def test_an_assumption_fills_what_is_unknown_and_is_marked() -> None:
    group = parse_cluster("64x mtt-s4000", assumptions={"scale_out": "200Gb/s", "topology": "full-mesh"}).groups[0]
    assert group.scale_out is not None and group.scale_up is not None
    fact = group.scale_out.bandwidth_bytes_per_s

    assert (fact.number, fact.grade, fact.source) == (25e9, "assumed", "assumed by the user (--assume scale_out=200Gb/s)")
    assert group.scale_up.topology == "full-mesh"


def test_an_assumption_never_replaces_what_is_known() -> None:
    assumed = Assumptions.of({"scale_out": "1 Gb/s", "scale_up": "1 GB/s", "domain": "2", "tdp": "1 W", "topology": "ring"})
    group = parse_cluster("64x 910b3", assumptions=assumed).groups[0]
    assert group.scale_out is not None and group.scale_up is not None and group.chip.tdp_w is not None

    assert group.scale_out.bandwidth_bytes_per_s.number == 25e9
    assert (group.scale_up.bandwidth_bytes_per_s.number, group.scale_up.topology, group.scale_up.domain_size) == (196e9, "full-mesh", 8)
    assert group.chip.tdp_w.number == 350
    assert {entry.key for entry in assumed.unused()} == {"scale_out", "scale_up", "domain", "tdp", "topology"}


def test_an_assumption_for_one_chip_goes_before_the_general_one() -> None:
    clusters = parse_groups("64x mtt-s4000, kunlun-p800", assumptions={"scale_out": "100Gb/s", "mtt-s4000.scale_out": "200Gb/s"})
    rates = [cluster.groups[0].scale_out.bandwidth_bytes_per_s.number for cluster in clusters]  # type: ignore[union-attr]

    assert rates == [25e9, 12.5e9]


def test_power_memory_and_peaks_can_be_assumed() -> None:
    chip = parse_cluster("8x enflame-s60", assumptions={"peak_bf16": "200 TFLOP/s", "tdp": "300 W", "s60.memory": "48 GiB"}).groups[0].chip

    assert chip.peak_flops_per_s["bf16"].number == 200e12
    assert chip.tdp_w is not None and chip.tdp_w.number == 300
    assert chip.memory.capacity_bytes is not None and chip.memory.capacity_bytes.grade != "assumed"


def test_a_scale_up_link_can_be_assumed_where_the_catalogue_has_none() -> None:
    link = parse_cluster("64x metax-c550", assumptions={"scale_up": "200 GB/s", "domain": "8", "topology": "switch"}).groups[0].scale_up
    assert link is not None

    assert (link.topology, link.domain_size, link.bandwidth_bytes_per_s.number) == ("switch", 8, 200e9)


def test_nodes_can_be_assumed_where_the_catalogue_names_none() -> None:
    group = parse_cluster("64x l40s", assumptions={"node": "4"}).groups[0]

    assert (group.nodes, group.chips_per_node) == (16, 4)


def test_latency_can_be_assumed_where_nobody_measured_it() -> None:
    unmeasured = parse_cluster("64x 910b3", assumptions={"latency": "3 us"}).groups[0]
    measured = parse_cluster("64x h100-sxm-80gb", assumptions={"latency": "3 us"}).groups[0]
    assert unmeasured.scale_up and unmeasured.scale_out and measured.scale_up

    assert (unmeasured.scale_up.latency_s.number, unmeasured.scale_out.latency_s.number) == (3e-6, 3e-6)
    assert measured.scale_up.latency_s.number == pytest.approx(0.78e-6, rel=0.01)


def test_a_link_between_groups_can_be_assumed_where_nobody_states_one(tmp_path: Path) -> None:
    given_ = {"link": "400Gb/s", "link_latency": "20us"}
    three = parse_cluster("8x h100-sxm-80gb + 8x ascend-910b3 + 8x mi300x", assumptions=given_)
    file = tmp_path / "c.toml"
    shutil.copy(ROOT / "examples" / "clusters" / "mixed.toml", file)
    assumed = Assumptions.of({"link": "1 Gb/s"})

    assert [(link.from_group, link.to_group) for link in three.links] == list(itertools.combinations([g.name for g in three.groups], 2))
    for link in three.links:
        assert (link.bandwidth_bytes_per_s.number, link.latency_s.grade) == (50e9, "assumed")
        assert link.latency_s.number == pytest.approx(20e-6)
    assert [link.bandwidth_bytes_per_s.grade for link in parse_cluster(str(file), assumptions=assumed).links] == ["measured-here"]
    assert [entry.key for entry in assumed.unused()] == ["link"]
    file.write_text(re.sub(r"bandwidth = .*", "", file.read_text("utf-8")), "utf-8")
    (link,) = parse_cluster(str(file), assumptions={"link": "1 Gb/s"}).links
    assert (link.bandwidth_bytes_per_s.number, link.latency_s.number) == (125e6, pytest.approx(20e-6))


def test_flags_become_a_mapping() -> None:
    assert read_flags(["scale_out=200Gb/s", " mtt-s4000.tdp = 450 W "]) == {"scale_out": "200Gb/s", "mtt-s4000.tdp": "450 W"}


@pytest.mark.parametrize(
    ("given_", "error", "code"),
    [
        ({"scale-out-bandwith": "1GB/s"}, UnknownName, "SP-CLUSTER-006"),
        ({"scaleout": "1GB/s"}, UnknownName, "SP-CLUSTER-006"),
        ({"scale_out": "200 W"}, BadValue, "SP-UNIT-003"),
        ({"scale_out": "fast"}, BadValue, "SP-UNIT-001"),
        ({"scale_out": "0 GB/s"}, BadValue, "SP-CLUSTER-009"),
        ({"scale_out": "-1 GB/s"}, BadValue, "SP-CLUSTER-009"),
        ({"scale_out": "1e30 GB/s"}, BadValue, "SP-CLUSTER-009"),
        ({"scale_out": "25"}, BadValue, "SP-CLUSTER-009"),
        ({"domain": "2.5"}, BadValue, "SP-CLUSTER-009"),
        ({"domain": "0"}, BadValue, "SP-CLUSTER-009"),
        ({"topology": "star"}, UnknownName, "SP-CLUSTER-012"),
        ({"pue": "0.5"}, BadValue, "SP-CLUSTER-009"),
        ({"power_price": "3 apples"}, BadValue, "SP-CLUSTER-009"),
        ({"910b3.pue": "1.2"}, BadValue, "SP-CLUSTER-008"),
        ({"nosuchchip.tdp": "3 W"}, UnknownName, "SP-CHIP-005"),
        ({"a100-sxm-80gb.tdp": "3 W"}, UnknownName, "SP-CLUSTER-011"),
    ],
)
def test_bad_assumptions_are_refused(given_: dict[str, str], error: type[SapperError], code: str) -> None:
    with pytest.raises(error) as caught:
        parse_cluster("8x 910b3", assumptions=given_)
    assert caught.value.code == code


def test_an_unknown_key_names_near_and_accepted_ones() -> None:
    with pytest.raises(UnknownName) as near:
        parse_cluster("8x 910b3", assumptions={"scale_outt": "1GB/s"})
    with pytest.raises(UnknownName) as far:
        parse_cluster("8x 910b3", assumptions={"zzz": "1GB/s"})

    assert "`scale_out`" in near.value.render("en")
    assert all(f"`{key}`" in far.value.render("en") for key in ("scale_up", "tdp", "latency", "domain"))


@pytest.mark.parametrize("flags", [["scale_out"], ["=3"], ["scale_out="], [""], ["tdp=1 W", "tdp=2 W"]])
def test_bad_flags_are_refused(flags: list[str]) -> None:
    with pytest.raises(BadValue):
        read_flags(flags)


def test_an_electricity_price_is_money_per_joule() -> None:
    fact = Assumptions.of({"power_price": "0.72CNY/kWh"}).fact("power_price")

    assert fact is not None and fact.number == pytest.approx(2e-7) and fact.unit == "CNY/J"


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_any_assumption_is_taken_or_refused_by_us(given_: dict[str, str]) -> None:
    try:
        Assumptions.of(given_)
    except SapperError as error:
        error.render("zh")
