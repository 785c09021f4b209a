"""What ships, what it is called, and where chips may come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT
from sapper import chips
from sapper.chips import DTYPES, Chip, System, catalogue
from sapper.chips.catalogue import BUNDLED
from sapper.chips.check import check_files
from sapper.chips.compare import comparable, replacement
from sapper.chips.derived import coverage, facts, ridge_flop_per_byte
from sapper.chips.faults import STATUS_GRADES
from sapper.errors import AmbiguousName, BadFile, UnknownName
from sapper.evidence import Fact

MINIMAL = (ROOT / "examples" / "chips" / "minimal.toml").read_text("utf-8")


def shipped() -> Iterator[Chip]:
    yield from catalogue().chips.values()


def test_everything_of_the_survey_ships() -> None:
    known = catalogue()
    assert len(known.chips) >= 89 + 12
    assert len(known.systems) == 6
    assert sum(coverage(chip).measured for chip in shipped()) >= 196
    assert sum(coverage(chip).conflicts for chip in shipped()) >= 39
    assert sum(coverage(chip).values for chip in shipped()) >= 1144


def test_every_shipped_file_and_every_example_passes_the_check() -> None:
    report = check_files([BUNDLED, str(ROOT / "examples" / "chips")], among=catalogue())
    assert [(fault.where, fault.problem("en")) for fault in report.faults] == []
    assert report.files == len(catalogue().chips) + len(catalogue().systems) + 2


def test_every_value_has_a_source_and_the_grade_of_its_status() -> None:
    for chip in shipped():
        for field, fact in facts(chip):
            assert fact.source.strip(), (chip.id, field)
            assert fact.status in STATUS_GRADES, (chip.id, field)
            assert fact.grade == STATUS_GRADES[fact.status], (chip.id, field)


def test_values_are_in_base_units_with_all_that_vouches_for_them() -> None:
    chip = catalogue().chips["nvidia-a100-sxm-80gb"]
    assert chip.peak_flops_per_s["fp64"] == Fact(
        value=9.7e12, unit="flop/s", grade="vendor-claimed", status="press_report", date="2026-07 snapshot", source_read=True,
        source="Epoch AI ML Hardware CSV (CC-BY 4.0), row 'NVIDIA A100 SXM4 80 GB'", primary_read=False,
        primary_cited="https://www.techpowerup.com/gpu-specs/a100-sxm4-80-gb.c3746", note="19.5 via FP64 tensor core",
    )
    assert chip.memory.capacity_bytes is not None
    assert chip.memory.capacity_bytes.value == 80 * 2**30
    assert chip.scale_up is not None
    assert chip.scale_up.bandwidth_bytes_per_s is not None
    assert (chip.scale_up.bandwidth_bytes_per_s.value, chip.scale_up.domain_size, chip.scale_up.topology) == (300e9, 8, "switch")
    assert chip.transistors is not None
    assert chip.transistors.value == 54.2e9


def test_a_measurement_is_attached_to_the_peak_that_it_refers_to() -> None:
    known = catalogue().chips
    stated = [m.refers_to_flops_per_s for m in known["amd-mi355x"].measured if m.metric == "matmul_mamf"]
    assert stated == [2300e12]  # the source divides by the MI350X's figure, and so does the record
    implied = [m.refers_to_flops_per_s for m in known["huawei-ascend-910b2"].measured if m.dtype == "int8"]
    assert implied == [752e12]
    hidden = [m.refers_to_flops_per_s for m in known["metax-c550"].measured if m.metric == "matmul"]
    assert set(hidden) == {None}


def test_conflicting_values_stand_side_by_side_in_base_units() -> None:
    conflicts = {conflict.field: conflict for conflict in catalogue().chips["huawei-ascend-910b2"].conflicts}
    assert [fact.value for fact in conflicts["memory.bandwidth"].values] == [v * 1e9 for v in (400, 600, 768, 800, 1200, 1600)]
    assert conflicts["peak.fp16"].comment
    text = catalogue().chips["iluvatar-bi-v150"].conflicts[0].values[0].value
    assert isinstance(text, str)
    assert "600 W" in text


@pytest.mark.parametrize(("name", "dtype"), [("s60", "bf16"), ("sohu", "bf16"), ("l600", "bf16"), ("metax-c550", "bf16")])
def test_withheld_is_a_value_of_its_own(name: str, dtype: str) -> None:
    fact = chips.resolve(name).peak_flops_per_s[dtype]
    assert fact.withheld
    assert (fact.value, fact.number) == (None, None)


def test_unknown_stays_unknown() -> None:
    chana = chips.resolve("刹那")
    assert chana.peak_flops_per_s == {}
    assert chana.memory.capacity_bytes is None
    assert chana.tdp_w is None
    assert ridge_flop_per_byte(chana) is None
    assert chips.resolve("thead-ppu").memory.bandwidth_bytes_per_s == Fact(
        value=None, unit="bytes/s", source="not shown", grade="vendor-claimed", status="press_report", source_read=True
    )


def test_no_number_is_zero_and_no_peak_is_of_an_unknown_dtype() -> None:
    for chip in shipped():
        assert set(chip.peak_flops_per_s) <= set(DTYPES)
        assert [field for field, fact in facts(chip) if fact.number == 0] == []


def test_what_replaces_nvlink_is_said_for_every_chip() -> None:
    codes = {replacement(chip)[0] for chip in shipped()}
    assert {f"chips.nvlink.{kind}" for kind in ("switch", "full-mesh", "ring", "torus", "pcie-tree", "unknown", "none")} == codes


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("a100-80g", "nvidia-a100-sxm-80gb"), ("a100-sxm-80gb", "nvidia-a100-sxm-80gb"), ("NVIDIA A100 80GB PCIe", "nvidia-a100-pcie-80gb"),
        ("h100", "nvidia-h100-sxm-80gb"), ("h100-pcie", "nvidia-h100-pcie-80gb"), ("h100-nvl", "nvidia-h100-nvl-94gb"),
        ("NVIDIA H100 96GB HBM2e 500W (Grand Teton)", "nvidia-h100-sxm-96gb-hbm2e"), ("NVIDIA H100-SXM5-80GB", "nvidia-h100-sxm-80gb"),
        ("h20", "nvidia-h20-96gb"), ("h800", "nvidia-h800-sxm-80gb"), ("mi300x", "amd-mi300x"), ("gaudi3", "intel-gaudi3"),
        ("AMD Instinct MI300X 192GB HBM3", "amd-mi300x"), ("Intel(R) Gaudi(R) 2 AI Accelerator", "intel-gaudi2"),
        ("NVIDIA Blackwell GPU (B200-SXM-180GB)", "nvidia-b200-sxm"), ("TPU-trillium", "google-tpu-v6e"), ("tpu-v5p", "google-tpu-v5p"),
        ("v5p", "google-tpu-v5p"), ("ascend-910b3", "huawei-ascend-910b3"), ("910B3", "huawei-ascend-910b3"),
        ("昇腾910B3", "huawei-ascend-910b3"), ("华为昇腾 910B3", "huawei-ascend-910b3"), ("天数智芯 智铠100", "iluvatar-mr-v100"),
        ("智铠100", "iluvatar-mr-v100"), ("燧原 S60", "enflame-s60"), ("s60", "enflame-s60"), ("摩尔线程 S4000", "moore-mtt-s4000"),
        ("Moore Threads S4000", "moore-mtt-s4000"), ("昆仑芯 P800", "kunlun-p800"), ("中昊芯英 刹那", "zhonghao-chana"),
        ("Tesla V100-PCIE-32GB", "nvidia-v100-pcie-32gb"), ("Tesla T4", "nvidia-t4"), ("NVIDIA L4", "nvidia-l4"),
        ("AMD Instinct MI250", "amd-mi250"), ("AMD Instinct MI100", "amd-mi100"), ("Intel Gaudi", "intel-gaudi1"),
        ("NVIDIA GH200", "nvidia-gh200-96gb"), ("NVIDIA H200-NVL-141GB", "nvidia-h200-nvl-141gb"), (" MI_300-x ", "amd-mi300x"),
    ],
)  # fmt: skip
def test_a_name_means_one_chip(name: str, id_: str) -> None:
    assert chips.resolve(name).id == id_


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("a100", {"nvidia-a100-sxm-40gb", "nvidia-a100-sxm-80gb", "nvidia-a100-pcie-40gb", "nvidia-a100-pcie-80gb"}),
        ("910b", {f"huawei-ascend-910b{bin_}" for bin_ in "1234"}),
        ("昇腾 910B", {f"huawei-ascend-910b{bin_}" for bin_ in "1234"}),
        ("mi350", {"amd-mi350x", "amd-mi355x"}),
        ("v100", {"nvidia-v100-sxm2-16gb", "nvidia-v100-sxm2-32gb", "nvidia-v100-pcie-32gb"}),
        ("c500", {"metax-c500-pcie", "metax-c500-oam"}),
    ],
)
def test_a_name_of_several_chips_lists_them_with_what_tells_them_apart(name: str, ids: set[str]) -> None:
    with pytest.raises(AmbiguousName) as caught:
        chips.resolve(name)
    shown = caught.value.render("en")
    assert all(id_ in shown for id_ in ids)
    assert set(caught.value.values["ids"]) == ids
    assert len(set(re.findall(r"\S+ GiB, .*", shown))) > 1


def test_every_id_and_every_alias_leads_back_to_its_chip() -> None:
    known = catalogue()
    for chip in shipped():
        assert known.resolve(chip.id) is chip
        for name in (chip.name, *chip.aliases):
            assert chip in known.find(name), (chip.id, name)


@pytest.mark.parametrize(("name", "near"), [("h101", "nvidia-h100-sxm-80gb"), ("昇腾910D", "huawei-ascend-910c"), ("mi300", "amd-mi300x")])
def test_an_unknown_name_gives_near_ones_and_never_a_chip(name: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        chips.resolve(name)
    assert near in caught.value.render("en")


@pytest.mark.parametrize("name", ["", " ", "---", "\x00", "xyzzy", "(R)", "🤖"])
def test_nonsense_is_an_unknown_name(name: str) -> None:
    with pytest.raises(UnknownName):
        chips.resolve(name)


def test_a_system_is_no_chip_but_says_which_chip_it_is_made_of() -> None:
    with pytest.raises(UnknownName, match=r"8 x `nvidia-h100-sxm-80gb`"):
        chips.resolve("dgx h100")
    system = catalogue().resolve_system("CloudMatrix384")
    assert (system.chip, system.count) == ("huawei-ascend-910c", 384)
    assert catalogue().resolve_system("星火一体机").count is None
    for entry in catalogue().systems.values():
        assert isinstance(entry, System)
        assert entry.chip in catalogue().chips


def test_namesakes_are_comparable_only_where_their_peaks_agree() -> None:
    assert comparable(catalogue().find("a100"))
    assert not comparable(catalogue().find("910b"))
    assert not comparable([chips.resolve("刹那")])


def test_a_chip_comes_from_a_folder_a_file_the_environment_or_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "mini.toml"
    file.parent.mkdir()
    file.write_text(MINIMAL, "utf-8")
    for given in (tmp_path, file):
        assert catalogue([given]).resolve("mini").tdp_w == Fact(
            value=150.0, unit="W", source="Acme data sheet, revision 1.0", date="2026-05", grade="vendor-claimed", status="official",
            source_read=True,
        )
    with pytest.raises(UnknownName):
        chips.resolve("acme mini")
    monkeypatch.setenv("SAPPER_CHIPS_PATH", str(tmp_path))
    assert chips.resolve("acme mini").origin == str(file)
    monkeypatch.delenv("SAPPER_CHIPS_PATH")
    chips.use_dirs([tmp_path])
    assert chips.resolve("ACME-mini").id == "acme-mini"
    chips.use_dirs([])
    with pytest.raises(UnknownName):
        chips.resolve("acme mini")


def test_a_chip_comes_from_an_installed_entry_point(tmp_path: Path, run_sapper: object) -> None:
    (tmp_path / "site" / "acme_chips").mkdir(parents=True)
    (tmp_path / "site" / "acme_chips" / "__init__.py").write_text("")
    (tmp_path / "site" / "acme_chips" / "mini.toml").write_text(MINIMAL, "utf-8")
    info = tmp_path / "site" / "acme_chips-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-chips\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sapper.chips]\nacme = acme_chips\n")
    assert callable(run_sapper)
    done = run_sapper("chips", "show", "mini", "--format", "json", PYTHONPATH=f"{ROOT / 'src'}:{tmp_path / 'site'}")
    assert msgspec.json.decode(done.stdout)["id"] == "acme-mini"
    (info / "entry_points.txt").write_text("[sapper.chips]\nacme = acme_chips:nothing\n")
    done = run_sapper("chips", "list", PYTHONPATH=f"{ROOT / 'src'}:{tmp_path / 'site'}")
    assert (done.returncode, "SP-CHIP-008" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_file_overrides_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINIMAL.replace("acme-mini", "nvidia-a100-sxm-80gb"), "utf-8")
    with pytest.raises(BadFile) as caught:
        catalogue([tmp_path])
    shown = caught.value.render("en")
    assert "mine.toml" in shown
    assert "a100-sxm-80gb.toml" in shown


def test_the_same_file_twice_on_the_path_is_one_chip(tmp_path: Path) -> None:
    (tmp_path / "mini.toml").write_text(MINIMAL, "utf-8")
    assert len(catalogue([tmp_path, tmp_path / "mini.toml"]).chips) == len(catalogue().chips) + 1


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        catalogue([tmp_path / "nowhere"])
    assert caught.value.code == "SP-CHIP-007"


def test_a_faulty_file_is_an_error_that_names_the_place_and_the_check(tmp_path: Path) -> None:
    (tmp_path / "mini.toml").write_text(MINIMAL.replace("32 GiB", "32 GB/s"), "utf-8")
    with pytest.raises(BadFile) as caught:
        catalogue([tmp_path]).resolve("acme-mini")
    shown = caught.value.render("en")
    assert re.search(r"mini\.toml:\d+ memory\.capacity", shown)
    assert "sapper chips check" in shown


def test_counts_in_the_documents_are_those_of_the_catalogue() -> None:
    total = len(catalogue().chips) + len(catalogue().systems)
    for page in ("chips.md", "chips.zh.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert re.search(rf"\b{total}\b", text)
        assert re.search(rf"\b{len(catalogue().chips)}\b", text)
