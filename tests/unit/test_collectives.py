from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapper.clusters import parse_cluster
from sapper.errors import MissingFact
from sapper.predict import collectives
from sapper.predict.collectives import (
    ALGORITHMS,
    LIMITS,
    Fabric,
    Tier,
    all_gather_s,
    all_reduce_lines,
    all_reduce_s,
    all_to_all_s,
    broadcast_s,
    cost,
    fabric_of,
    half_performance_bytes,
    no_fabric,
    reduce_scatter_s,
    send_s,
)

V = 1e9
B = 100e9
NIC = 25e9
OPERATIONS = (all_reduce_s, reduce_scatter_s, all_gather_s, all_to_all_s, broadcast_s)


def tier(topology: str = "switch", size: int = 8, **more: object) -> Tier:
    return Tier(topology=topology, bandwidth_bytes_per_s=B, size=size, hop_s=0.0, **more)  # type: ignore[arg-type]


def fabric(topology: str = "switch", size: int = 8, **more: object) -> Fabric:
    out = Tier(topology="switch", bandwidth_bytes_per_s=NIC, size=64, hop_s=0.0)
    return Fabric(scale_up=tier(topology, size, **more), scale_out=out, domain_size=size)


# -- formulas on ideal links, against hand arithmetic


@pytest.mark.parametrize(
    ("function", "factor"),
    [(all_reduce_s, 2 * 7 / 8), (reduce_scatter_s, 7 / 8), (all_gather_s, 7 / 8), (all_to_all_s, 7 / 8), (broadcast_s, 1.0)],
)
def test_a_switch_gives_any_group_its_full_rate(function: collectives.Operation, factor: float) -> None:
    assert function(V, 8, 1, fabric()) == pytest.approx(factor * V / B)  # type: ignore[operator]


@pytest.mark.parametrize(("n", "links"), [(2, 1), (4, 3), (8, 7)])
def test_a_mesh_gives_a_group_its_own_links(n: int, links: int) -> None:
    rate = B * links / 7

    assert all_gather_s(V, n, 1, fabric("full-mesh")) == pytest.approx((n - 1) / n * V / rate)
    assert all_to_all_s(V, n, 1, fabric("full-mesh")) == pytest.approx((n - 1) / n * V / rate)


def test_a_partial_node_of_a_mesh_has_no_more_links_than_in_a_full_one() -> None:
    part = Fabric(scale_up=tier("full-mesh", 2, peers=7), scale_out=None, domain_size=2)

    assert all_reduce_s(V, 2, 1, part) == pytest.approx(V / (B / 7))


def test_an_unknown_topology_is_priced_as_a_mesh() -> None:
    for function in OPERATIONS:
        assert function(V, 4, 1, fabric("unknown")) == function(V, 4, 1, fabric("full-mesh"))
    assert all_gather_s(V, 8, 1, fabric("unknown")) == pytest.approx(all_gather_s(V, 8, 1, fabric("switch")))


def test_a_ring_gives_half_to_a_part_of_it() -> None:
    assert all_gather_s(V, 8, 1, fabric("ring")) == pytest.approx(7 / 8 * V / B)
    assert all_gather_s(V, 4, 1, fabric("ring")) == pytest.approx(3 / 4 * V / (B / 2))


def test_a_torus_gives_the_ports_of_the_axes_that_the_group_fills() -> None:
    closed = {"dims": (16, 16), "wrap": (True, True)}
    port = B / 4

    assert all_gather_s(V, 256, 1, fabric("torus-2d", 256, **closed)) == pytest.approx(255 / 256 * V / B)
    assert all_gather_s(V, 16, 1, fabric("torus-2d", 256, **closed)) == pytest.approx(15 / 16 * V / (2 * port))
    assert all_gather_s(V, 4, 1, fabric("torus-2d", 256, **closed)) == pytest.approx(3 / 4 * V / port)
    assert all_gather_s(V, 256, 1, fabric("torus-2d", 256, dims=(16, 16), wrap=(False, False))) == pytest.approx(255 / 256 * V / (2 * port))


def test_a_torus_pays_for_distance_in_all_to_all() -> None:
    # V/2 of each of 16 chips of a row crosses its middle, over two links one way: 16/2 * V/2 / (2 ports)
    assert all_to_all_s(V, 256, 1, fabric("torus-2d", 256, dims=(16, 16), wrap=(True, True))) == pytest.approx(4 * V / (2 * B / 4))


def test_a_pcie_tree_shares_its_root_in_all_to_all() -> None:
    assert all_to_all_s(V, 8, 1, fabric("pcie-tree")) == pytest.approx(4 * V / 2 / B)
    assert all_to_all_s(V, 8, 1, fabric("pcie-tree")) > all_to_all_s(V, 8, 1, fabric())


def test_rings_over_domains_leave_by_every_nic() -> None:
    # eight rings of 32 chips, each with an eighth of the buffer: the NICs bind below 12.5 GB/s, the links above
    moved = 2 * 31 / 32 * V
    slow = replace(fabric(), scale_out=Tier(topology="switch", bandwidth_bytes_per_s=10e9, size=4, hop_s=0.0))

    assert all_reduce_s(V, 8, 4, fabric()) == pytest.approx(moved / B)
    assert all_reduce_s(V, 8, 4, slow) == pytest.approx(moved / (8 * 10e9))


def test_one_member_per_domain_uses_the_network_alone() -> None:
    found = cost("all_reduce", V, inner=1, outer=4, fabric=fabric())

    assert found.time_s == pytest.approx(2 * 3 / 4 * V / NIC)
    assert (float(found.scale_up_bytes), float(found.scale_out_bytes)) == (0.0, pytest.approx(1.5 * V))
    assert LIMITS[int(found.limit)] == "scale-out"


def test_a_slow_network_takes_the_hierarchical_way_or_the_rings() -> None:
    found = cost("all_gather", V, inner=8, outer=8, fabric=fabric())

    assert ALGORITHMS[int(found.algorithm)] in ("ring", "hierarchical")
    assert float(found.scale_out_bytes) == pytest.approx(V / 8 * 7 / 8, rel=0.2)


def test_the_switch_reduces_in_flight() -> None:
    quick = fabric(in_switch=1.0)
    found = cost("all_reduce", V, inner=8, outer=1, fabric=quick)

    assert found.time_s == pytest.approx(9 / 8 * V / B)
    assert ALGORITHMS[int(found.algorithm)] == "in-switch"
    assert all_reduce_s(V, 2, 1, quick) == pytest.approx(V / B)
    assert all_gather_s(V, 8, 1, quick) == pytest.approx(7 / 8 * V / B)


def test_in_switch_reduction_needs_a_switch() -> None:
    assert all_reduce_s(V, 8, 1, fabric("full-mesh", in_switch=1.0)) == pytest.approx(2 * 7 / 8 * V / B)


def test_oversubscription_divides_the_network() -> None:
    plain = parse_cluster("64x h100-sxm-80gb").groups[0]
    assert plain.scale_out is not None
    thin = msgspec.structs.replace(plain, scale_out=msgspec.structs.replace(plain.scale_out, oversubscription=4.0))

    assert send_s(V, fabric_of(thin), True) == pytest.approx(4 * send_s(V, fabric_of(plain), True), rel=1e-3)


def test_a_message_between_two_chips_has_one_link_of_a_mesh() -> None:
    assert send_s(V, fabric("full-mesh"), False) == pytest.approx(V / (B / 7))
    assert send_s(V, fabric("full-mesh", p2p_bytes_per_s=20e9), False) == pytest.approx(V / 20e9)
    assert send_s(V, fabric("torus-3d", 64, dims=(4, 4, 4), wrap=(True,) * 3), False) == pytest.approx(V / (B / 6))
    assert send_s(V, fabric(), [False, True]) == pytest.approx([V / B, V / NIC])


def test_latency_counts_hops() -> None:
    slow = Fabric(scale_up=replace(tier(), hop_s=1e-6, start_s=5e-6), scale_out=None, domain_size=8)

    assert all_reduce_s(1.0, 8, 1, slow) == pytest.approx(5e-6 + 14e-6, rel=1e-3)
    assert all_gather_s(1.0, 8, 1, slow) == pytest.approx(5e-6 + 7e-6, rel=1e-3)
    assert send_s(1.0, slow, False) == pytest.approx(6e-6, rel=1e-3)


def test_many_nodes_take_the_tree_for_small_messages_and_the_ring_for_large_ones() -> None:
    network = Tier(topology="switch", bandwidth_bytes_per_s=NIC, size=64, hop_s=5e-6)
    far = Fabric(scale_up=replace(tier(), hop_s=1e-6), scale_out=network, domain_size=8)
    small, large = (cost("all_reduce", size, inner=8, outer=64, fabric=far) for size in (1e3, 1e11))

    assert small.time_s == pytest.approx(2 * (7 * 1e-6 + 6 * 5e-6), rel=0.01)
    assert ALGORITHMS[int(small.algorithm)] in ("tree", "hierarchical")
    assert LIMITS[int(small.limit)] == "latency"
    assert ALGORITHMS[int(large.algorithm)] == "ring"


def test_half_performance_size_follows_from_latency() -> None:
    one = Fabric(scale_up=replace(tier(), hop_s=1e-6, start_s=0.0), scale_out=None, domain_size=8)

    # time = 7 us + 7/8 V/b reaches half its greatest rate where both terms are equal
    assert half_performance_bytes("all_gather", one, inner=8, outer=1) == pytest.approx(7e-6 * B * 8 / 7, rel=0.01)
    assert half_performance_bytes("all_gather", one, inner=1, outer=1) == 0.0


def test_no_network_is_named_and_not_guessed() -> None:
    alone = Fabric(scale_up=tier(), scale_out=None, domain_size=8)
    for function in OPERATIONS:
        with pytest.raises(MissingFact):
            function(V, 8, 2, alone)
    with pytest.raises(MissingFact):
        send_s(V, alone, True)


@pytest.mark.parametrize(
    ("text", "key"),
    [("64x mtt-s4000", "scale_out"), ("8x metax-c500-oam", "scale_up"), ("64x metax-c550", "domain"), ("8192x tpu-v6e", "scale_out")],
)
def test_an_unknown_link_is_a_missing_fact_with_its_name(text: str, key: str) -> None:
    with pytest.raises(MissingFact) as caught:
        fabric_of(parse_cluster(text).groups[0])

    assert caught.value.values["key"] == key
    assert f".{key}=" in caught.value.render("en")


def test_what_is_not_needed_may_be_unknown() -> None:
    assert fabric_of(parse_cluster("8x mtt-s4000").groups[0]).scale_out is None
    assert fabric_of(parse_cluster("1x metax-c550").groups[0]) == no_fabric()


# -- invariants


FABRICS = {
    "switch": fabric(), "in-switch": fabric(in_switch=0.7), "mesh": fabric("full-mesh"), "ring": fabric("ring"),
    "pcie": fabric("pcie-tree"), "torus": fabric("torus-3d", 64, dims=(4, 4, 4), wrap=(True,) * 3),
    "open torus": fabric("torus-2d", 32, dims=(8, 4), wrap=(False, False)),
    "h100": fabric_of(parse_cluster("512x h100-sxm-80gb").groups[0]), "mi300x": fabric_of(parse_cluster("512x mi300x").groups[0]),
    "910b3": fabric_of(parse_cluster("512x 910b3").groups[0]), "v5p": fabric_of(parse_cluster("64x tpu-v5p").groups[0]),
}
names = st.sampled_from(sorted(FABRICS))
sizes = st.floats(0, 1e13)


def outer_of(chosen: Fabric, outer: int) -> int:
    return outer if chosen.scale_out is not None else 1


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(name=names, size=sizes)
def test_a_group_of_one_takes_no_time(name: str, size: float) -> None:
    for function in OPERATIONS:
        assert function(size, 1, 1, FABRICS[name]) == 0.0


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(name=names, one=sizes, other=sizes, inner=st.integers(1, 8), outer=st.integers(1, 64))
def test_a_larger_message_never_takes_less(name: str, one: float, other: float, inner: int, outer: int) -> None:
    chosen = FABRICS[name]
    small, large = sorted((one, other))
    for function in OPERATIONS:
        times = function([small, large], inner, outer_of(chosen, outer), chosen)
        assert times[0] <= times[1] * (1 + 1e-12)
    low, high = send_s([small, large], chosen, False)
    assert low <= high


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(name=names, size=st.floats(1, 1e13), inner=st.integers(1, 8), outer=st.integers(1, 64))
def test_nothing_is_faster_than_its_bytes_over_the_links(name: str, size: float, inner: int, outer: int) -> None:
    chosen = FABRICS[name]
    outer = outer_of(chosen, outer)
    n = inner * outer
    assert chosen.scale_up is not None
    b, nic = chosen.scale_up.bandwidth_bytes_per_s, chosen.scale_out.bandwidth_bytes_per_s if chosen.scale_out else 0.0
    # what must leave a chip, or a domain by all its NICs, whatever the algorithm
    least_in = size / b * (1 - 1 / inner) if outer == 1 else 0.0
    least_out = size * (1 - 1 / outer) / (inner * nic) if outer > 1 else 0.0
    for operation, function in (("all_reduce", all_reduce_s), ("all_gather", all_gather_s), ("reduce_scatter", reduce_scatter_s)):
        found = cost(operation, size, inner=inner, outer=outer, fabric=chosen)  # type: ignore[arg-type]
        assert function(size, inner, outer, chosen) == pytest.approx(float(found.time_s))
        assert found.time_s >= max(least_in, least_out) * (1 - 1e-9)
        wire = max(float(found.scale_up_bytes) / b, float(found.scale_out_bytes) / nic if nic else 0.0)
        assert found.time_s >= wire * (1 - 1e-9), (operation, n)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(name=names, size=st.floats(1, 1e13), inner=st.integers(2, 8))
def test_an_all_reduce_takes_at_least_its_all_gather_without_a_reducing_switch(name: str, size: float, inner: int) -> None:
    chosen = FABRICS[name]
    assert chosen.scale_up is not None
    if chosen.scale_up.in_switch is None:
        plain = replace(chosen, scale_up=replace(chosen.scale_up, gather_efficiency=chosen.scale_up.reduce_efficiency))
        assert all_reduce_s(size, inner, 1, plain) >= all_gather_s(size, inner, 1, plain) * (1 - 1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(name=names, size=sizes, inner=st.integers(1, 8), outer=st.integers(1, 64))
def test_nominal_links_bound_the_achieved_ones(name: str, size: float, inner: int, outer: int) -> None:
    chosen = FABRICS[name]
    if chosen.scale_up is not None and chosen.scale_up.in_switch is not None:
        return
    for function in OPERATIONS:
        group = (inner, outer_of(chosen, outer))
        assert function(size, *group, chosen.nominal) <= function(size, *group, chosen) * (1 + 1e-9)


def test_arrays_and_numbers_agree_whatever_the_shape() -> None:
    chosen = FABRICS["h100"]
    rng = np.random.default_rng(1)
    v, inner, outer = rng.uniform(1, 1e9, (3, 5)), 2.0 ** rng.integers(0, 4, (3, 5)), 2.0 ** rng.integers(0, 6, (1, 5))
    for function in OPERATIONS:
        found = function(v, inner, outer, chosen)
        assert found.shape == (3, 5)
        for index in np.ndindex(3, 5):
            assert found[index] == pytest.approx(float(function(v[index], inner[index], outer[0, index[1]], chosen)))


def test_groups_that_are_no_whole_numbers_are_priced_too() -> None:
    times = all_reduce_s(V, [6.0, 6.5, 7.0], [1.0, 1.0, 1.5], FABRICS["h100"])

    assert np.isfinite(times).all() and times[2] > times[0]


def test_no_plans_take_no_time() -> None:
    assert all_reduce_s(np.empty(0), np.empty(0), np.empty(0), FABRICS["h100"]).shape == (0,)


def test_a_hundred_thousand_plans_are_priced_in_milliseconds() -> None:
    chosen = FABRICS["h100"]
    rng = np.random.default_rng(0)
    v, inner, outer = rng.uniform(1e3, 1e9, 100_000), 2.0 ** rng.integers(0, 4, 100_000), 2.0 ** rng.integers(0, 6, 100_000)
    spent = []
    for _ in range(5):
        before = time.thread_time()
        all_reduce_s(v, inner, outer, chosen)
        spent.append(time.thread_time() - before)

    assert min(spent) < 0.05


@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (2, 1), (8, 1), (8, 3), (1, 4), (4, 2)])
@pytest.mark.parametrize("topology", ["switch", "full-mesh", "ring"])
def test_the_lines_of_a_group_are_its_all_reduce(topology: str, inner: int, outer: int) -> None:
    network = Tier(topology="switch", bandwidth_bytes_per_s=NIC, size=64, hop_s=8e-6, start_s=2e-5, fill_s=3e-6)
    one = Fabric(scale_up=tier(topology, in_switch=0.7, fill_s=1e-6, start_s=1e-5), scale_out=network, domain_size=8)
    lines = all_reduce_lines(inner, outer, one)

    for size in (1.0, 1e4, 1e7, 1e10):
        assert min(line.time_s(size) for line in lines) == pytest.approx(float(all_reduce_s(size, inner, outer, one)))
