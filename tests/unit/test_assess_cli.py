from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from sapper.assess.assessment import Assessment
from sapper.cli import main
from sapper.dossier.cells import key_words

ASK = (
    "assess",
    "qwen2.5-7b",
    "--train-tokens",
    "1T",
    "--reference",
    "a100-sxm-80gb",
    "--on",
    "64x h100-sxm-80gb,h20,enflame-s60",
    "--assume",
    "scale_out=200Gb/s",
)


def invoke(*line: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(main.cli, list(line))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("asked")
    return invoke(*ASK, "--out", str(folder / "out"), "--lang", "en"), folder / "out"


@pytest.mark.slow
def test_the_answer_comes_first_in_few_lines_and_the_files_are_named_last(asked: tuple[Result, Path]) -> None:
    result, folder = asked
    lines = result.stdout.splitlines()

    assert result.exit_code == 0
    assert "qwen2.5-7b" in lines[0] and "1T tokens" in lines[0] and "64 chips each" in lines[0]
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert "peak_flops_per_s.bf16" in result.stdout  # what the refused option lacks
    assert result.stderr.strip().splitlines()[-1] == "wrote " + ", ".join(
        str(folder / f"assess-qwen2.5-7b.{kind}") for kind in ("en.html", "zh.html", "json")
    )
    assert sorted(os.listdir(folder)) == ["assess-qwen2.5-7b.en.html", "assess-qwen2.5-7b.json", "assess-qwen2.5-7b.zh.html"]


@pytest.mark.slow
def test_a_chip_without_a_count_has_as_many_as_the_others(asked: tuple[Result, Path]) -> None:
    found = msgspec.json.decode((asked[1] / "assess-qwen2.5-7b.json").read_bytes(), type=Assessment)

    assert [option.chips for option in found.options] == [64, 64, 64, 64]
    assert found.options[0].chip.id == "nvidia-a100-sxm-80gb"


@pytest.mark.slow
def test_the_h100_is_faster_and_the_h20_slower_than_the_a100(asked: tuple[Result, Path]) -> None:
    found = msgspec.json.decode((asked[1] / "assess-qwen2.5-7b.json").read_bytes(), type=Assessment)
    _, h100, h20, s60 = found.options

    assert h100.ratios.time is not None and h100.ratios.time.high < 1
    assert h20.ratios.time is not None and h20.ratios.time.low > 1
    assert s60.estimate is None and s60.refusal_kind == "missing"
    assert any(what.code == "host-link" and what.factor > 1 for what in found.options[0].what_if)


@pytest.mark.slow
def test_machines_get_the_whole_answer(tmp_path: Path) -> None:
    line = (*ASK, "--out", str(tmp_path), "--pages", "none", "--format")
    whole, rows = invoke(*line, "json"), invoke(*line, "csv")

    assert json.loads(whole.stdout)["schema"] == "sapper.assess/1"
    table = list(csv.DictReader(io.StringIO(rows.stdout)))
    assert [row["option"] for row in table] == [option["label"] for option in json.loads(whole.stdout)["options"]]
    assert table[3]["job_time_s"] == "" and table[3]["refusal_field"] == "peak_flops_per_s.bf16"
    assert os.listdir(tmp_path) == ["assess-qwen2.5-7b.json"]


@pytest.mark.slow
def test_where_nothing_is_answered_the_exit_code_says_so(tmp_path: Path) -> None:
    line = ("assess", "qwen2.5-7b", "--train-tokens", "1T", "--reference", "8x enflame-s60", "--on", "8x enflame-s60")
    result = invoke(*line, "--out", str(tmp_path), "--lang", "zh")

    assert result.exit_code == 1
    assert "无法回答" in result.stdout
    assert (tmp_path / "assess-qwen2.5-7b.zh.html").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--train-tokens", "0"), "SP-ASSESS-002"),
        (("--train-tokens", "many"), "SP-ASSESS-001"),
        (("--train-tokens", "1e40"), "SP-ASSESS-002"),
        (("--reference", "a100-sxm-80gb,h100-sxm-80gb"), "SP-ASSESS-006"),
        (("--power-price", "0.6"), "SP-ASSESS-003"),
        (("--pue", "0.5"), "SP-ASSESS-004"),
        (("--pages", "de"), "SP-ASSESS-007"),
        (("--pages", ","), "SP-ASSESS-007"),
        (("--plan", "tp=3"), "SP-PRED-02"),
        (("--assume", "scale_up"), "SP-CLUSTER-007"),
        (("--seq", "0"), "SP-PRED-026"),
        (("--global-batch", "-4"), "SP-PRED-026"),
        (("--precision", "fp13"), "SP-PRED-001"),
        (("--reference", "910b"), "SP-"),
        (("--on", "no-such-chip"), "SP-"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(more: tuple[str, ...], code: str, tmp_path: Path) -> None:
    result = invoke(*ASK, *more, "--out", str(tmp_path / "out"), "--lang", "en")

    assert result.exit_code == 2, result.stdout
    assert code in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    result = invoke("assess", "no-model", *ASK[2:], "--out", str(tmp_path / "out"))

    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_constant_of_an_estimate_has_its_name_in_chinese(asked: tuple[Result, Path]) -> None:
    found = msgspec.json.decode((asked[1] / "assess-qwen2.5-7b.json").read_bytes(), type=Assessment)
    used = [(option, use) for option in found.options if option.estimate for use in option.estimate.used]
    names = {use.key: key_words(use.key.removeprefix(f"{option.chip.id} "), "zh")[0] for option, use in used}

    assert used
    assert {key: name for key, name in names.items() if not re.search(r"[\u4e00-\u9fff]", name)} == {}


@pytest.mark.slow
def test_a_cluster_that_stands_twice_is_answered_once(tmp_path: Path) -> None:
    line = ("assess", "qwen2.5-7b", "--train-tokens", "1T", "--reference", "64x a100-sxm-80gb", "--on", "64x a100-sxm-80gb,64x h20,64x h20")
    result = invoke(*line, "--out", str(tmp_path), "--pages", "none", "--format", "json")

    assert [option["chip"]["id"] for option in json.loads(result.stdout)["options"]] == ["nvidia-a100-sxm-80gb", "nvidia-h20-96gb"]


@pytest.mark.slow
def test_a_given_plan_is_used_everywhere_and_its_data_parallel_degree_follows(tmp_path: Path) -> None:
    line = ("assess", "qwen2.5-7b", "--train-tokens", "1T", "--reference", "64x a100-sxm-80gb", "--on", "128x h100-sxm-80gb")
    result = invoke(*line, "--plan", "tp=4,pp=2", "--out", str(tmp_path), "--pages", "none", "--format", "json")
    plans = [option["estimate"]["plan"] for option in json.loads(result.stdout)["options"]]

    assert [(plan["tp"], plan["pp"], plan["dp"]) for plan in plans] == [(4, 2, 8), (4, 2, 16)]
