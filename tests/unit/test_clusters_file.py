from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapper.clusters import check_cluster, parse_cluster, read_cluster
from sapper.clusters.file import check_text
from sapper.errors import BadFile, SapperError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "clusters").glob("*.toml"))

GOOD = """\
name = "lab"
power_price = "0.72 CNY/kWh"
pue = 1.3

[[group]]
name = "a"
chip = "ascend-910b3"
nodes = 4
chips_per_node = 8

[group.scale_up]
bandwidth = "100 GB/s"
latency = { value = "2 us", source = "our test", grade = "measured-here" }

[group.scale_out]
bandwidth = "400 Gb/s"
oversubscription = 2

[[group]]
name = "b"
chip = "h100-sxm-80gb"
nodes = 2

[[link]]
from = "a"
to = "b"
bandwidth = "100 Gb/s"
"""


def write(folder: Path, text: str, name: str = "cluster.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_have_no_fault(path: Path) -> None:
    assert check_cluster(path).faults == ()
    assert parse_cluster(str(path)).chips > 1


def test_a_file_gives_groups_links_and_site(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, GOOD))
    a, b = cluster.groups
    assert a.scale_up and a.scale_out and cluster.power_price and cluster.pue

    assert (cluster.name, cluster.chips, cluster.homogeneous) == ("lab", 48, False)
    assert cluster.power_price.number == pytest.approx(2e-7)
    assert cluster.pue.number == 1.3
    assert (a.nodes, a.chips_per_node, b.nodes, b.chips_per_node) == (4, 8, 2, 8)
    assert a.scale_out.bandwidth_bytes_per_s.number == 50e9
    assert a.scale_out.oversubscription == 2
    assert [(link.from_group, link.to_group, link.bandwidth_bytes_per_s.number) for link in cluster.links] == [("a", "b", 12.5e9)]


def test_a_value_of_the_file_replaces_the_catalogue_and_says_so(tmp_path: Path) -> None:
    group = read_cluster(write(tmp_path, GOOD)).groups[0]
    assert group.scale_up is not None
    bandwidth, latency = group.scale_up.bandwidth_bytes_per_s, group.scale_up.latency_s

    assert (bandwidth.number, bandwidth.grade, bandwidth.source) == (100e9, "assumed", "cluster file cluster.toml")
    assert "replaces 1.96e+11 bytes/s (vendor-claimed" in (bandwidth.note or "")
    assert (latency.number, latency.grade, latency.source) == (2e-6, "measured-here", "our test")


def test_a_value_that_agrees_keeps_the_better_evidence(tmp_path: Path) -> None:
    text = '[[group]]\nchip = "ascend-910b3"\nnodes = 8\n[group.scale_out]\nbandwidth = "200 Gb/s"\n'
    group = read_cluster(write(tmp_path, text)).groups[0]
    assert group.scale_out is not None

    assert group.scale_out.bandwidth_bytes_per_s.grade == "vendor-claimed"


def test_measurements_of_the_chip_stay_those_of_the_catalogue(tmp_path: Path) -> None:
    text = '[[group]]\nchip = "a100-sxm-80gb"\nnodes = 8\n[group.scale_up]\ntopology = "full-mesh"\ndomain = 4\n'
    group = read_cluster(write(tmp_path, text)).groups[0]
    assert group.scale_up is not None and group.chip.scale_up is not None

    assert (group.scale_up.topology, group.scale_up.domain_size, group.scale_up.peers) == ("full-mesh", 4, 3)
    assert (group.chip.scale_up.topology, group.chip.scale_up.domain_size) == ("switch", 8)


def test_a_chip_without_links_is_alone(tmp_path: Path) -> None:
    text = '[[group]]\nchip = "h100-sxm-80gb"\nnodes = 2\nchips_per_node = 1\n[group.scale_up]\ntopology = "none"\n'

    assert read_cluster(write(tmp_path, text)).groups[0].scale_up is None


def test_assumptions_fill_what_a_file_leaves_out(tmp_path: Path) -> None:
    path = write(tmp_path, '[[group]]\nchip = "mtt-s4000"\nnodes = 8\n')
    group = parse_cluster(str(path), assumptions={"scale_out": "200 Gb/s", "pue": "1.4"}).groups[0]
    assert group.scale_out is not None

    assert group.scale_out.bandwidth_bytes_per_s.number == 25e9
    assert parse_cluster(str(path)).groups[0].scale_out.bandwidth_bytes_per_s.value is None  # type: ignore[union-attr]


def test_an_own_chip_is_read_from_its_file(tmp_path: Path) -> None:
    chip = (Path(__file__).parents[2] / "examples" / "chips" / "acme-x1.toml").read_text("utf-8")
    write(tmp_path, chip, "mine.toml")
    path = write(tmp_path, '[[group]]\nchip = "mine.toml"\nnodes = 2\n')

    assert read_cluster(path).groups[0].chip.id == "acme-x1"


FAULTS = [
    ("", "SP-CLUSTER-014", None),
    ("group = 3", "SP-CHIP-012", 1),
    ("[[group]]\nchip = 'h100-sxm-80gb'", "SP-CLUSTER-013", 1),
    ("[[group]]\nnodes = 2", "SP-CLUSTER-013", 1),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 0", "SP-CHIP-020", 3),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = -3", "SP-CHIP-020", 3),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2.5", "SP-CHIP-012", 3),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = true", "SP-CHIP-012", 3),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 1000000\nchips_per_node = 1000000", "SP-CLUSTER-002", 3),
    ("[[group]]\nchip = 'h1000'\nnodes = 2", "SP-CHIP-001", 2),
    ("[[group]]\nchip = 'a100'\nnodes = 2", "SP-CHIP-002", 2),
    ("[[group]]\nchip = 'no.toml'\nnodes = 2", "SP-CLUSTER-022", 2),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnods = 2\nnodes = 2", "SP-CHIP-011", 3),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\nbandwith = '1 GB/s'", "SP-CHIP-011", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\nbandwidth = '1 W'", "SP-CHIP-017", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\nbandwidth = 0", "SP-CHIP-020", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\nbandwidth = '-1 GB/s'", "SP-CHIP-020", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\nlatency = '5 GB'", "SP-CHIP-017", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_out]\noversubscription = 0.5", "SP-CHIP-020", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_up]\ntopology = 'star'", "SP-CHIP-015", 5),
    ("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 2\n[group.scale_up]\ndims = [4, 4]", "SP-CLUSTER-025", 5),
    ("[[group]]\nchip = 'tpu-v5p'\nnodes = 8\n[group.scale_up]\ndims = [4, 4, 3]", "SP-CLUSTER-026", 5),
    ("[[group]]\nchip = 'tpu-v5p'\nnodes = 8\n[group.scale_up]\ndims = [4, 4, 4]\nwrap = [true]", "SP-CLUSTER-024", 6),
    ("[[group]]\nchip = 'tpu-v5p'\nnodes = 8\n[group.scale_up]\ndims = 'big'", "SP-CLUSTER-023", 5),
    ("[[group]]\nname = 'x'\nchip = 'l40s'\nnodes = 1\n[[group]]\nname = 'x'\nchip = 'l40s'\nnodes = 1", "SP-CLUSTER-016", 6),
    ("[[group]]\nname = 'x'\nchip = 'l40s'\nnodes = 1\n[[link]]\nfrom = 'x'\nto = 'y'", "SP-CLUSTER-015", 7),
    ("[[group]]\nname = 'x'\nchip = 'l40s'\nnodes = 1\n[[link]]\nfrom = 'x'\nto = 'x'", "SP-CLUSTER-027", 7),
    ("pue = 0.9\n[[group]]\nchip = 'l40s'\nnodes = 1", "SP-CHIP-020", 1),
    ("pue = 'good'\n[[group]]\nchip = 'l40s'\nnodes = 1", "SP-CHIP-012", 1),
    ("power_price = 3\n[[group]]\nchip = 'l40s'\nnodes = 1", "SP-CLUSTER-021", 1),
    ("power_price = '3 GB/s'\n[[group]]\nchip = 'l40s'\nnodes = 1", "SP-CLUSTER-021", 1),
    ("[[group]]\nchip = 'l40s'\nnodes = 1\n" * 101, "SP-CLUSTER-019", 1),
]


@pytest.mark.parametrize(("text", "code", "line"), FAULTS)
def test_each_fault_has_its_code_and_line(tmp_path: Path, text: str, code: str, line: int | None) -> None:
    faults = check_cluster(write(tmp_path, text)).faults

    assert [code] == [fault.code for fault in faults]
    assert faults[0].line == line
    assert faults[0].problem("zh") != faults[0].problem("en")
    assert faults[0].expected("en")


def test_all_faults_are_found_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "pue = 9\n[[group]]\nchip = 'h1000'\nnodes = 0\n[group.scale_out]\nbandwidth = '1 W'\n")

    assert [fault.line for fault in check_cluster(path).faults] == [1, 3, 4, 6]
    with pytest.raises(BadFile) as caught:
        read_cluster(path)
    assert "further faults in this file: 3" in caught.value.render("en")
    assert f"{path}:1 pue" in caught.value.render("en")


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"name = ", "SP-FILE-006"), (b"\xff\xfe\x00", "SP-FILE-005"), (b"a = " + b"[" * 5000, "SP-FILE-006"), (b"pue = nan", "SP-FILE-010")],
)
def test_what_is_no_toml_is_refused_with_its_place(tmp_path: Path, raw: bytes, code: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(raw)
    with pytest.raises(BadFile) as caught:
        parse_cluster(str(path))

    assert caught.value.code in (code, "SP-FILE-008")


KEYS = st.sampled_from([
    "name", "chip", "nodes", "chips_per_node", "scale_up", "scale_out", "bandwidth", "topology", "dims", "wrap", "domain", "latency",
    "group", "link", "from", "to", "pue", "power_price", "sources", "value", "source", "grade", "p2p", "oversubscription", "note",
])
WORDS = st.sampled_from(
    ["h100-sxm-80gb", "tpu-v5p", "100 GB/s", "2 us", "switch", "torus-2d", "0.6 CNY/kWh", "unknown", "withheld"]
)
VALUES = st.recursive(
    st.one_of(st.integers(-5, 10**7), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=8), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return repr(value)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(group=st.dictionaries(KEYS, VALUES, max_size=6), top=st.dictionaries(KEYS.filter(lambda key: key != "group"), VALUES, max_size=3))
def test_no_file_brings_a_traceback(group: dict[str, object], top: dict[str, object]) -> None:
    group = {"chip": "h100-sxm-80gb", "nodes": 2, **group}
    text = "".join(f"{key} = {toml(value)}\n" for key, value in top.items()) + f"group = [{toml(group)}]\n"
    try:
        checked = check_text(text, "fuzz.toml")
    except SapperError as error:
        error.render("zh")
        return

    assert (checked.cluster is None) == bool(checked.faults)
    for fault in checked.faults:
        assert fault.problem("zh") and fault.where
