from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapper.chips import catalogue
from sapper.clusters import cluster_of, parse_cluster, parse_groups
from sapper.errors import AmbiguousName, BadValue, InputError, MissingFact, SapperError, UnknownName

ASCEND_ZH = "\u6607\u817e910B3"


def shape(text: str, **more: object) -> list[tuple[str, int, int]]:
    return [(g.chip.id, g.nodes, g.chips_per_node) for g in parse_cluster(text, **more).groups]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64x ascend-910b3", [("huawei-ascend-910b3", 8, 8)]),
        ("64 x " + ASCEND_ZH, [("huawei-ascend-910b3", 8, 8)]),
        ("64xascend-910b3", [("huawei-ascend-910b3", 8, 8)]),
        ("64\u5f20" + ASCEND_ZH, [("huawei-ascend-910b3", 8, 8)]),
        ("\uff16\uff14 \u00d7 " + ASCEND_ZH, [("huawei-ascend-910b3", 8, 8)]),
        ("a100-sxm-80gb:64", [("nvidia-a100-sxm-80gb", 8, 8)]),
        ("a100-sxm-80gb\uff1a64", [("nvidia-a100-sxm-80gb", 8, 8)]),
        ("8x ascend-910b2 / 64 nodes", [("huawei-ascend-910b2", 64, 8)]),
        ("8x ascend-910b2/64", [("huawei-ascend-910b2", 64, 8)]),
        ("8x ascend-910b2 / 64 \u8282\u70b9", [("huawei-ascend-910b2", 64, 8)]),
        ("ascend-910b2 / 4 nodes", [("huawei-ascend-910b2", 4, 8)]),
        ("h100-sxm-80gb", [("nvidia-h100-sxm-80gb", 1, 1)]),
        ("4x h100-sxm-80gb", [("nvidia-h100-sxm-80gb", 1, 4)]),
        ("12x h100-sxm-80gb", [("nvidia-h100-sxm-80gb", 2, 6)]),
        ("cloudmatrix384", [("huawei-ascend-910c", 48, 8)]),
        ("2x dgx h100", [("nvidia-h100-sxm-80gb", 2, 8)]),
        ("16x trainium1", [("aws-trainium1", 1, 16)]),
        ("72x gb200-nvl72", [("nvidia-gb200-nvl72", 9, 8)]),
        ("16x l40s", [("nvidia-l40s", 2, 8)]),
        ("8x h100-sxm-80gb + 16x ascend-910b3", [("nvidia-h100-sxm-80gb", 1, 8), ("huawei-ascend-910b3", 2, 8)]),
    ],
)
def test_forms_of_a_cluster(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert expected == shape(text)


def test_name_says_what_was_understood() -> None:
    assert parse_cluster("8x h100-sxm-80gb + 16x 910b3").name == "8x nvidia-h100-sxm-80gb + 16x huawei-ascend-910b3"


def test_groups_of_the_same_chip_have_names_that_differ() -> None:
    names = [group.name for group in parse_cluster("8x 910b3 + 8x 910b3").groups]

    assert names == ["huawei-ascend-910b3", "huawei-ascend-910b3-2"]


def test_links_come_from_the_catalogue_with_their_evidence() -> None:
    group = parse_cluster("64x 910b3").groups[0]
    assert group.scale_up is not None and group.scale_out is not None

    assert group.scale_up.topology == "full-mesh"
    assert group.scale_up.bandwidth_bytes_per_s.number == 196e9
    assert group.scale_up.bandwidth_bytes_per_s.grade == "vendor-claimed"
    assert group.scale_up.p2p_bytes_per_s is not None and group.scale_up.p2p_bytes_per_s.number == 28e9
    assert group.scale_up.domain_size == 8
    assert group.scale_out.bandwidth_bytes_per_s.number == 25e9


def test_a_link_that_the_catalogue_lacks_stays_unknown() -> None:
    group = parse_cluster("64x mtt-s4000").groups[0]
    assert group.scale_up is not None and group.scale_out is not None

    assert group.scale_up.topology == "unknown"
    assert group.scale_out.bandwidth_bytes_per_s.value is None
    assert group.scale_out.bandwidth_bytes_per_s.source == "not in the catalogue"
    assert parse_cluster("8x metax-c500-oam").groups[0].scale_up.bandwidth_bytes_per_s.value is None  # type: ignore[union-attr]


def test_node_size_says_where_it_comes_from() -> None:
    grades = {name: parse_cluster(f"64x {name}").groups[0].node_size.grade for name in ("h100-sxm-80gb", "l40s", "tpu-v5p")}  # type: ignore[union-attr]

    assert grades == {"h100-sxm-80gb": "vendor-claimed", "l40s": "assumed", "tpu-v5p": "assumed"}


def test_a_partial_node_keeps_the_wires_of_the_whole_mesh() -> None:
    link = parse_cluster("2x mi300x").groups[0].scale_up
    assert link is not None

    assert (link.domain_size, link.peers) == (2, 7)


def test_cards_of_a_server_meet_over_the_host_link_where_nothing_else_is_known() -> None:
    link = parse_cluster("8x enflame-s60").groups[0].scale_up
    assert link is not None

    assert (link.topology, link.domain_size, link.bandwidth_bytes_per_s.number) == ("pcie-tree", 8, 64e9)
    assert "host link" in (link.bandwidth_bytes_per_s.note or "")


@pytest.mark.parametrize(
    ("text", "dims", "wrap"),
    [
        ("64x tpu-v5p", (4, 4, 4), (True, True, True)),
        ("32x tpu-v5p", (4, 4, 2), (False, False, False)),
        ("256x tpu-v5e", (16, 16), (True, True)),
        ("64x tpu-v5e", (8, 8), (False, False)),
        ("128x tpu-v5e", (16, 8), (True, False)),
        ("512x tpu-v5e", (16, 16), (True, True)),
        ("16x trainium1", (4, 4), (True, True)),
    ],
)
def test_slices_of_a_torus_close_where_the_provider_says(text: str, dims: tuple[int, ...], wrap: tuple[bool, ...]) -> None:
    link = parse_cluster(text).groups[0].scale_up
    assert link is not None

    assert (link.dims, link.wrap) == (dims, wrap)


def test_latency_is_fitted_to_the_smallest_measured_all_reduce() -> None:
    link = parse_cluster("8x h100-sxm-80gb").groups[0].scale_up
    assert link is not None and link.start_s is not None
    hop, start = link.latency_s.number or 0, link.start_s.number or 0

    for chips, measured_s in ((2, 6.2e-6), (4, 9.3e-6), (8, 15.6e-6)):
        assert start + 2 * (chips - 1) * hop == pytest.approx(measured_s, abs=0.1e-6)
    assert link.latency_s.grade == "derived" and "aiconfigurator" in link.latency_s.source


def test_latency_of_an_unmeasured_chip_is_the_prior_and_says_so() -> None:
    link = parse_cluster("8x h20-96gb").groups[0].scale_up
    assert link is not None

    assert link.latency_s.number == pytest.approx(1.1e-6)
    assert "H100" in link.latency_s.source


@pytest.mark.parametrize(
    ("text", "error", "code"),
    [
        ("", BadValue, "SP-CLUSTER-001"),
        ("   ", BadValue, "SP-CLUSTER-001"),
        ("0x h100-sxm-80gb", BadValue, "SP-CLUSTER-002"),
        ("-4x h100-sxm-80gb", BadValue, "SP-CLUSTER-002"),
        ("99999999999999999999x h100-sxm-80gb", BadValue, "SP-CLUSTER-002"),
        ("8x h100-sxm-80gb / 0 nodes", BadValue, "SP-CLUSTER-002"),
        ("1000000x h100-sxm-80gb / 1000000 nodes", BadValue, "SP-CLUSTER-002"),
        ("13x h100-sxm-80gb", BadValue, "SP-CLUSTER-003"),
        ("64x", BadValue, "SP-CLUSTER-004"),
        ("8x h100-sxm-80gb + ", BadValue, "SP-CLUSTER-004"),
        ("8x iflytek-spark-appliance", MissingFact, "SP-CLUSTER-005"),
        ("cluster.toml + 8x h100-sxm-80gb", BadValue, "SP-CLUSTER-017"),
        ("cloudmatrix384 / 4 nodes", BadValue, "SP-CLUSTER-018"),
        ("64x h1000", UnknownName, "SP-CHIP-001"),
        ("64x 910b", AmbiguousName, "SP-CHIP-002"),
        ("64x a100", AmbiguousName, "SP-CHIP-002"),
        ("no-such-file.toml", InputError, "SP-FILE-001"),
        ("/dev/null", InputError, "SP-CLUSTER-014"),
    ],
)
def test_bad_specs_are_refused_with_a_code(text: str, error: type[SapperError], code: str) -> None:
    with pytest.raises(error) as caught:
        parse_cluster(text)
    assert caught.value.code == code
    assert caught.value.render("zh") != caught.value.render("en")


def test_chips_that_do_not_fill_nodes_print_the_equation() -> None:
    with pytest.raises(BadValue) as caught:
        parse_cluster("13x h100-sxm-80gb")

    assert "13 = 1 x 8 + 5" in caught.value.render("en")


def test_options_of_a_list_share_the_first_count() -> None:
    counts = [(c.groups[0].chip.id, c.chips) for c in parse_groups("64x a100-sxm-80gb, 910b3, 8x mi300x, cloudmatrix384")]

    assert counts == [("nvidia-a100-sxm-80gb", 64), ("huawei-ascend-910b3", 64), ("amd-mi300x", 8), ("huawei-ascend-910c", 384)]


def test_options_of_a_list_take_the_count_of_the_flag() -> None:
    counts = [cluster.chips for cluster in parse_groups("a100-sxm-80gb\uff0c910b3\u30018x mi300x", chips=64)]

    assert counts == [64, 64, 8]


def test_options_without_any_count_are_single_chips() -> None:
    assert [cluster.chips for cluster in parse_groups("a100-sxm-80gb,910b3")] == [1, 1]


@pytest.mark.parametrize(
    ("text", "chips", "code"), [(" , ,", None, "SP-CLUSTER-001"), ("910b3", 0, "SP-CLUSTER-002"), ("910b3", -1, "SP-CLUSTER-002")]
)
def test_bad_lists_are_refused(text: str, chips: int | None, code: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_groups(text, chips=chips)
    assert caught.value.code == code


def test_cluster_of_a_chip_at_hand() -> None:
    chip = catalogue().resolve("mi300x")

    assert cluster_of(chip, 64).chips == 64
    assert (cluster_of(chip, 12, per_node=4).groups[0].nodes, cluster_of(chip, 12, per_node=4).groups[0].chips_per_node) == (3, 4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_cluster_or_an_error_of_ours(text: str) -> None:
    try:
        assert parse_cluster(text).chips >= 1
    except SapperError as error:
        error.render("zh")


NEAR = r"[-0-9]{0,12} ?[x:/+]{0,2} ?(h100-sxm-80gb|910b3|cloudmatrix384|l40s)? ?[x:/+,]{0,2} ?[-0-9]{0,12} ?(nodes)?"


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.from_regex(NEAR, fullmatch=True))
def test_near_specs_are_a_cluster_or_an_error_of_ours(text: str) -> None:
    try:
        for cluster in parse_groups(text):
            assert all(group.chips_per_node >= 1 for group in cluster.groups)
    except SapperError as error:
        error.render("zh")
