"""``sapper chips`` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from sapper.chips import catalogue
from sapper.cli._help import width_of
from sapper.cli.main import cli

Run = Callable[..., tuple[int, str, str]]
EXAMPLES = str(ROOT / "examples" / "chips")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leave:
            cli.main(["chips", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "SP-CLI-001" not in captured.err
        return int(leave.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_list_has_a_line_for_every_chip_and_fits_the_terminal(run: Run, lang: str) -> None:
    code, out, _ = run("list", "--lang", lang)
    assert code == 0
    assert all(re.search(rf"^{re.escape(id_)} ", out, re.MULTILINE) for id_ in catalogue().chips)
    assert max(width_of(line) for line in out.splitlines()) <= 100


def test_list_json_has_raw_values_and_null_for_unknown(run: Run) -> None:
    rows = {row["id"]: row for row in json.loads(run("list", "--format", "json")[1])}
    assert len(rows) == len(catalogue().chips)
    assert rows["nvidia-a100-sxm-80gb"]["peak_flops_per_s"] == 312e12
    assert rows["nvidia-a100-sxm-80gb"]["memory_bytes"] == 80 * 2**30
    assert rows["huawei-ascend-910a"]["peak_dtype"] == "fp16"
    chana = rows["zhonghao-chana"]
    assert [chana[key] for key in ("peak_flops_per_s", "memory_bytes", "tdp_w", "scale_up_bytes_per_s")] == [None] * 4


def test_list_csv_is_read_back(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("list", "--format", "csv")[1])))
    assert {row["id"] for row in rows} == set(catalogue().chips)
    assert next(row["memory_bytes"] for row in rows if row["id"] == "zhonghao-chana") == ""


@pytest.mark.parametrize(
    ("filters", "some", "none"),
    [
        (("--vendor", "huawei"), "huawei-ascend-910c", "amd-mi300x"),
        (("--vendor", "摩尔线程"), "moore-mtt-s4000", "amd-mi300x"),
        (("--vendor", "Moore Threads"), "moore-mtt-s80", "amd-mi300x"),
        (("--arch", "systolic-tpu"), "google-tpu-v4", "amd-mi300x"),
        (("--dtype", "FP4"), "nvidia-b200-sxm", "nvidia-a100-sxm-80gb"),
        (("--systems",), "huawei-cloudmatrix384", "amd-mi300x"),
    ],
)
def test_list_filters(run: Run, filters: tuple[str, ...], some: str, none: str) -> None:
    ids = {row["id"] for row in json.loads(run("list", *filters, "--format", "json")[1])}
    assert some in ids
    assert none not in ids


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("list", "--vendor", "acme"), "SP-CHIP-036"), (("list", "--dtype", "fp9"), "SP-CHIP-037"),
        (("list", "--arch", "tpu"), "SP-CHIP-038"), (("show", "h101"), "SP-CHIP-001"), (("show", "910b"), "SP-CHIP-002"),
        (("compare", "910b", "h20"), "SP-CHIP-002"),
        (("compare", "h20", "nothing-like-it"), "SP-CHIP-00"), (("show", "xyzzy"), "SP-CHIP-005"),
        (("list", "--chips-dir", "nowhere"), "SP-CHIP-007"), (("check", "nowhere.toml"), "SP-CHIP-007"), (("show",), "SP-CLI-003"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_bad_input_is_exit_2_with_a_code_and_a_next_step(run: Run, line: tuple[str, ...], code: str, lang: str) -> None:
    status, out, err = run(*line, "--lang", lang)
    assert (status, out) == (2, "")
    assert code in err
    assert "\n  -> " in err


@pytest.mark.slow
@pytest.mark.parametrize(("lang", "every"), [("en", 1), ("zh", 5)])
def test_show_says_everything_of_every_chip(run: Run, lang: str, every: int) -> None:
    for id_, chip in list(catalogue().chips.items())[::every]:
        status, out, _ = run("show", id_, "--lang", lang)
        flat = re.sub(r"\s+", "", out)
        assert status == 0
        for dtype in chip.peak_flops_per_s:
            assert f"peak.{dtype}" in out
        for note in chip.notes:
            assert re.sub(r"\s+", "", note) in flat, (id_, note)
        for rule in chip.export_china:
            assert re.sub(r"\s+", "", rule.rule) in flat, (id_, rule.rule)
        sources = {record.source for record in chip.measured} | {price.amount.source for price in chip.price}
        assert [source for source in sources if re.sub(r"\s+", "", source) not in flat] == []


def test_show_tells_grade_source_and_date_of_a_value(run: Run) -> None:
    out = run("show", "a100-80g")[1]
    line = next(line for line in out.splitlines() if "peak.fp64" in line)
    number = re.search(r"\[(\d+)\]", line)
    assert number is not None
    assert re.search(r"9\.7 TFLOP/s\s+c\s+press", line)
    assert re.search(rf"\[{number[1]}\] Epoch AI .*\n.*2026-07 snapshot|\[{number[1]}\] Epoch AI .*2026-07 snapshot", out)
    assert "density 6.04" in out


def test_show_json_holds_the_whole_chip_and_what_is_derived(run: Run) -> None:
    found: dict[str, Any] = json.loads(run("show", "910b2", "--format", "json")[1])
    assert found["peak_flops_per_s"]["bf16"]["value"] == 376e12
    assert found["derived"]["coverage"]["conflicts"] == 2
    assert found["derived"]["export_arithmetic"]["tpp"] == 6016
    assert len(found["measured"]) == 13


def test_show_csv_has_a_row_per_value_with_its_evidence(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("show", "h100", "--format", "csv")[1])))
    bf16 = next(row for row in rows if row["field"] == "peak.bf16")
    assert (float(bf16["value"]), bf16["unit"], bf16["grade"], bf16["status"]) == (989e12, "flop/s", "vendor-claimed", "official")


@pytest.mark.parametrize("fmt", ["table", "json", "csv"])
def test_show_knows_systems(run: Run, fmt: str) -> None:
    status, out, _ = run("show", "昇腾384超节点", "--format", fmt)
    assert status == 0
    assert "huawei-ascend-910c" in out
    assert "384" in out


def cells_of(out: str) -> dict[str, list[dict[str, Any]]]:
    return {row["key"]: row["cells"] for row in json.loads(out)["rows"]}


def test_the_a100_question(run: Run) -> None:
    status, out, err = run("compare", "a100", "910b3", "mi300x", "gaudi3", "h20")
    assert status == 0
    assert "4" in err
    assert max(width_of(line) for line in out.splitlines()) <= 100
    assert out.index("A100 SXM4 80GB") < out.index("A100 PCIe 40GB")  # the best linked one is what the others are held against
    for name in ("Ascend 910B3", "Instinct MI300X", "Gaudi 3 (OAM)", "H20 96GB (HGX)"):
        assert re.search(rf"^  {re.escape(name)}: ", out, re.MULTILINE)  # what stands in NVLink's place
    bf16 = next(line for line in out.splitlines() if line.startswith("bf16"))
    assert re.search(r"312 C\s+312 C 1\.00x\s+312 C 1\.00x\s+312 C 1\.00x\s+313 c 1\.00x", bf16)


def test_compare_json_has_ratios_to_the_first_and_all_evidence(run: Run) -> None:
    out = run("compare", "a100-80g", "h20", "--format", "json")[1]
    bf16 = cells_of(out)["peak_bf16_flops_per_s"]
    assert [cell["ratio"] for cell in bf16] == [1.0, pytest.approx(148 / 312)]
    assert bf16[1]["source"].startswith("Epoch")
    assert set(json.loads(out)["instead_of_nvlink"]) == {"nvidia-a100-sxm-80gb", "nvidia-h20-96gb"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_compare_shows_an_unknown_peak_as_unknown_and_not_as_zero(run: Run, lang: str) -> None:
    out = run("compare", "h20", "s60", "刹那", "--lang", lang)[1]
    word = {"en": "unknown", "zh": "未知"}[lang]
    bf16 = next(line for line in out.splitlines() if line.startswith("bf16"))
    assert bf16.count(word) == 2
    assert not re.search(r"(?<![\d.])0(?![\d.])", bf16)
    cells = cells_of(run("compare", "h20", "s60", "刹那", "--format", "json")[1])["peak_bf16_flops_per_s"]
    assert [(cell["value"], cell["withheld"], cell["ratio"]) for cell in cells[1:]] == [(None, True, None), (None, False, None)]


def test_compare_ratios_need_a_known_first_value(run: Run) -> None:
    cells = cells_of(run("compare", "s60", "h20", "--format", "json")[1])["peak_bf16_flops_per_s"]
    assert [cell["ratio"] for cell in cells] == [None, None]


def test_compare_names_each_chip_once(run: Run) -> None:
    found = json.loads(run("compare", "h20", "NVIDIA H20", "nvidia-h20-96gb", "--format", "json")[1])["chips"]
    assert [chip["id"] for chip in found] == ["nvidia-h20-96gb"]


@pytest.mark.parametrize("columns", ["40", "60", "80", "100", "200"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_compare_fits_every_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, columns: str, lang: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run("compare", "h100", "910c", "tpu-v5p", "wse-3", "s60", "mtt-s4000", "--lang", lang)[1]
    assert max(width_of(line) for line in out.splitlines()) <= int(columns)


def test_compare_csv_has_a_column_per_chip(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("compare", "h20", "mi300x", "--format", "csv")[1])))
    assert rows[0].keys() == {"property", "nvidia-h20-96gb", "amd-mi300x"}


def test_a_chip_of_ones_own_is_a_first_class_citizen(run: Run) -> None:
    out = run("compare", "a100-80g", "顶峰 X1", "--chips-dir", EXAMPLES)[1]
    assert "199.7 bf16 = 78% A" in re.sub(r"\s+", " ", out)
    assert "tax excl." in out
    assert run("show", "acme-x1", "--chips-dir", EXAMPLES)[0] == 0
    assert run("show", "acme-x1")[0] == 2


def test_check_is_clean_for_what_ships_and_for_the_examples(run: Run) -> None:
    status, out, err = run("check", EXAMPLES)
    assert (status, out) == (0, "")
    assert "2" in err
    assert run("check")[0] == 0


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_check_explains_each_fault(run: Run, tmp_path: Path, lang: str) -> None:
    file = tmp_path / "x.toml"
    text = (ROOT / "examples" / "chips" / "minimal.toml").read_text("utf-8")
    file.write_text(text.replace('"32 GiB"', '"32 GB/s"').replace("bandwidth", "bandwith"), "utf-8")
    status, out, _ = run("check", str(file), "--lang", lang)
    line = 1 + text.splitlines().index('capacity = "32 GiB"')
    assert status == 1
    assert f"{file}:{line}: " in out
    assert f"{file}:{line + 1}: " in out
    assert "32 GB/s" in out
    assert "80 GiB" in out
    assert "`bandwidth`" in out
    rows = json.loads(run("check", str(file), "--format", "json", "--lang", lang)[1])
    assert [(row["line"], row["field"], row["value"]) for row in rows] == [
        (line, "memory.capacity", "32 GB/s"), (line + 1, "memory.bandwith", "800 GB/s")
    ]
    assert all(row["problem"] and row["expected"] for row in rows)


def test_check_of_an_unreadable_file_is_exit_2(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('id = "x\n', "utf-8")
    status, out, _ = run("check", str(file))
    assert status == 2
    assert "SP-FILE-006" in out
    assert f"{file}:1" in out


def test_the_folder_of_one_command_is_forgotten_by_the_next(run: Run) -> None:
    assert run("show", "acme-mini", "--chips-dir", EXAMPLES)[0] == 0
    assert run("show", "acme-mini")[0] == 2
