"""Published measurements of collectives against the formulas with the efficiencies of the catalogue.

Bus bandwidths in GB/s as nccl-tests defines them (doc/PERFORMANCE.md); sources beside each table.
"""

from __future__ import annotations

import msgspec
import pytest

from sapper.chips import catalogue
from sapper.clusters import parse_cluster
from sapper.predict.collectives import ALGORITHMS, Fabric, all_gather_s, all_reduce_s, cost, fabric_of, send_s

MIB, GIB = 2.0**20, 2.0**30


def fabric(text: str, **assumptions: str) -> Fabric:
    return fabric_of(parse_cluster(text, assumptions=assumptions).groups[0])


def bus(chosen: Fabric, size: float, n: int, operation: str = "all_reduce") -> float:
    inner = min(n, chosen.domain_size)
    twice = 2.0 if operation == "all_reduce" else 1.0
    return twice * (n - 1) / n * size / float(cost(operation, size, inner=inner, outer=n // inner, fabric=chosen).time_s) / 1e9  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chip", "n", "size", "measured", "tolerance"),
    [
        # aiconfigurator comm tables @095f58a5; ml-engineering @744d01e network/README.md
        ("h100-sxm-80gb", 2, 512 * MIB, 320.2, 0.02), ("h100-sxm-80gb", 4, 512 * MIB, 350.2, 0.02),
        ("h100-sxm-80gb", 8, 512 * MIB, 445.0, 0.02), ("a100-sxm-80gb", 2, 512 * MIB, 193.0, 0.02),
        ("a100-sxm-80gb", 4, 512 * MIB, 216.7, 0.02), ("a100-sxm-80gb", 8, 512 * MIB, 222.3, 0.03),
        ("a100-sxm-80gb", 8, 16 * GIB, 234.89, 0.03), ("h200-sxm-141gb", 8, 16 * GIB, 482.26, 0.02),
        ("b200-sxm", 2, 512 * MIB, 535.4, 0.02), ("b200-sxm", 4, 512 * MIB, 635.6, 0.02),
        # one server reduces in the switch and the other does not; their mean stands between
        ("b200-sxm", 8, 512 * MIB, 704.0, 0.08), ("b200-sxm", 8, 8 * GIB, 838.0, 0.08),
        ("b300-sxm", 8, 512 * MIB, 703.6, 0.02), ("arc-pro-b60", 4, 512 * MIB, 18.3, 0.02),
        ("rtx-pro-6000-blackwell", 8, 512 * MIB, 24.7, 0.02),
        ("mi300x", 2, 4 * GIB, 47.67, 0.02), ("mi300x", 8, 4 * GIB, 312.9, 0.1), ("mi300x", 8, 64e6, 230.0, 0.1),
    ],
)
def test_all_reduce_of_measured_chips(chip: str, n: int, size: float, measured: float, tolerance: float) -> None:
    assert bus(fabric(f"8x {chip}"), size, n) == pytest.approx(measured, rel=tolerance)


@pytest.mark.parametrize(("n", "gather", "reduce"), [(2, 38, 18), (4, 64, 30), (8, 149, 72)])
def test_collectives_of_the_910b_mesh(n: int, gather: float, reduce: float) -> None:
    """limulidae (bench_collective.py) prints buffer over time, an algorithm bandwidth, and both collectives then agree on the mesh."""
    chosen, size = fabric("8x ascend-910b2"), 4e9

    assert size / float(all_gather_s(size, n, 1, chosen)) / 1e9 == pytest.approx(gather, rel=0.05)
    assert size / float(all_reduce_s(size, n, 1, chosen)) / 1e9 == pytest.approx(reduce, rel=0.05)


@pytest.mark.parametrize(("n", "gather", "reduce"), [(2, 230, 143), (4, 190, 104), (8, 173, 89)])
def test_collectives_of_the_a800(n: int, gather: float, reduce: float) -> None:
    chosen, size = fabric("8x a800-sxm-80gb"), 4e9

    assert size / float(all_gather_s(size, n, 1, chosen)) / 1e9 == pytest.approx(gather, rel=0.02)
    assert size / float(all_reduce_s(size, n, 1, chosen)) / 1e9 == pytest.approx(reduce, rel=0.02)


@pytest.mark.parametrize(("n", "measured"), [(4, 363.3), (5, 414.2), (6, 435.6), (7, 460.0), (8, 473.1)])
def test_the_in_switch_formula_explains_every_group_size_with_one_efficiency(n: int, measured: float) -> None:
    """8x H200, 8 GiB (ml-engineering @744d01e network/README.md)."""
    assert bus(fabric("8x h200-sxm-141gb"), 8 * GIB, n) == pytest.approx(measured, rel=0.03)


def test_only_all_reduce_gains_from_the_switch() -> None:
    """8x H200, 16 GiB: all-gather 361.4 and reduce-scatter 362.9 (ml-engineering @744d01e network/README.md)."""
    chosen = fabric("8x h200-sxm-141gb")

    assert bus(chosen, 16 * GIB, 8, "all_gather") == pytest.approx(361.4, rel=0.03)
    assert bus(chosen, 16 * GIB, 8, "reduce_scatter") == pytest.approx(362.9, rel=0.03)


def test_without_evidence_no_switch_reduces() -> None:
    for chip in ("a100-sxm-80gb", "h20-96gb", "h800-sxm-80gb", "b300-sxm"):
        chosen = fabric(f"8x {chip}")
        assert chosen.scale_up is not None and chosen.scale_up.in_switch is None


@pytest.mark.parametrize(
    ("mib", "measured"),
    [
        (1, 39.93), (2, 64.53), (4, 107.16), (8, 155.53), (16, 219.89), (32, 275.84), (64, 346.51), (128, 401.93), (256, 436.15),
        (512, 450.29), (1024, 463.58),
    ],
)
def test_the_ramp_from_small_to_large_messages(mib: int, measured: float) -> None:
    """8x H200 by torch (ml-engineering @744d01e network/README.md), less the 24 us that its 40 us floor exceeds nccl-tests' 16 us."""
    host_s = 24e-6
    measured_s = 1.75 * mib * MIB / (measured * 1e9) - host_s

    assert float(all_reduce_s(mib * MIB, 8, 1, fabric("8x h200-sxm-141gb"))) == pytest.approx(measured_s, rel=0.2)


@pytest.mark.parametrize(("text", "assumed", "size", "measured"), [
    ("32x h200-sxm-141gb", {}, 4 * GIB, 364.87),
    ("32x b200-sxm", {"scale_out": "400 Gb/s"}, 16 * GIB, 381.8),
])
def test_four_nodes_are_bound_by_all_their_nics(text: str, assumed: dict[str, str], size: float, measured: float) -> None:
    """All-reduce over 4 nodes with eight 400 Gb/s NICs each (ml-engineering @744d01e network/README.md)."""
    chosen = fabric(text, **assumed)
    found = cost("all_reduce", size, inner=8, outer=4, fabric=chosen)

    assert bus(chosen, size, 32) == pytest.approx(measured, rel=0.06)
    assert ALGORITHMS[int(found.algorithm)] == "ring"


def test_an_axis_of_a_torus_that_does_not_close() -> None:
    """All-gather of 34 MB over 4 TPU v5e of an open axis: 680 us (jax-ml/scaling-book @0819a7d sharding.md)."""
    chosen = fabric("16x tpu-v5e")

    assert float(all_gather_s(34e6, 4, 1, chosen)) == pytest.approx(680e-6, rel=0.15)


def test_pairs_and_networks_that_were_measured() -> None:
    """GB/s: 910B HCCS pair 25.74 and RDMA 22.6 (HIXL notes), MI300X link 48 (ROCm blog), A100 network 19.33 (FlagPerf)."""
    b2, mi, a100 = fabric("16x ascend-910b2"), fabric("16x mi300x"), fabric("16x a100-sxm-40gb")

    assert 4e9 / float(send_s(4e9, b2, False)) / 1e9 == pytest.approx(25.74, rel=0.01)
    assert 4e9 / float(send_s(4e9, b2, True)) / 1e9 == pytest.approx(22.6, rel=0.01)
    assert 4e9 / float(send_s(4e9, mi, False)) / 1e9 == pytest.approx(48, rel=0.01)
    assert 4e9 / float(send_s(4e9, a100, True)) / 1e9 == pytest.approx(19.33, rel=0.01)


@pytest.mark.parametrize(("chip", "left_out"), [("mi300x", 2), ("mi300x", 8), ("ascend-910b2", 2), ("ascend-910b2", 8)])
def test_the_mesh_rule_predicts_a_group_size_from_the_others(chip: str, left_out: int) -> None:
    """Efficiencies of the other sizes alone: (n-1)/(N-1) of the links carries from 2 to 8 chips, a factor of seven."""
    full = catalogue().resolve(chip)
    records = []
    for record in full.measured:
        kept = {size: value for size, value in record.by_devices.items() if int(size) != left_out}
        if record.metric.startswith("all_") and record.by_devices:
            records.append(msgspec.structs.replace(record, by_devices=kept, fraction=None))
        elif not record.metric.startswith("all_"):
            records.append(record)
    group = parse_cluster(f"8x {chip}").groups[0]
    blind = fabric_of(msgspec.structs.replace(group, chip=msgspec.structs.replace(full, measured=tuple(records))))

    known_s = float(all_reduce_s(4e9, left_out, 1, fabric(f"8x {chip}")))

    # a fifth is what the rule is good for; without it the error would be up to sevenfold
    assert float(all_reduce_s(4e9, left_out, 1, blind)) == pytest.approx(known_s, rel=0.2)


def test_evidence_is_named() -> None:
    used = {item.key: item.fact for item in fabric("64x ascend-910b2").used}

    assert any("all_gather" in key and fact.source.startswith("gameofdimension/limulidae") for key, fact in used.items())
    assert any("rdma" in key for key in used)
    assert used["huawei-ascend-910b2 scale-up link"].number == 196e9


def test_a_link_of_another_kind_has_the_prior_and_not_the_chips_measurements() -> None:
    group = parse_cluster("8x a100-sxm-80gb").groups[0]
    assert group.scale_up is not None
    mesh = fabric_of(msgspec.structs.replace(group, scale_up=msgspec.structs.replace(group.scale_up, topology="full-mesh")))
    faster = msgspec.structs.replace(group.scale_up.bandwidth_bytes_per_s, value=600e9)
    double = fabric_of(msgspec.structs.replace(group, scale_up=msgspec.structs.replace(group.scale_up, bandwidth_bytes_per_s=faster)))
    own = fabric_of(group)
    assert mesh.scale_up and double.scale_up and own.scale_up

    assert mesh.scale_up.reduce_efficiency != own.scale_up.reduce_efficiency
    assert double.scale_up.reduce_efficiency == own.scale_up.reduce_efficiency
    assert bus(double, 16 * GIB, 8) == pytest.approx(2 * bus(own, 16 * GIB, 8), rel=0.01)
