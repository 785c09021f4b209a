"""Options of unlike chips in ``sapper assess``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sapper.cli import main

JOB = ("gpt2", "--train-tokens", "1B", "--reference", "4x a100-sxm-80gb", "--seq", "512", "--global-batch", "32")
TWO = "2x a100-sxm-80gb + 2x ascend-910b3"


def assess(folder: Path, *line: str, lang: str = "en") -> Result:
    runner = CliRunner(env={"SAPPER_LANG": lang, "COLUMNS": "120"})
    return runner.invoke(main.cli, ["assess", *JOB, "--out", str(folder), *line])


@pytest.mark.slow
def test_a_mixed_cluster_is_answered_beside_the_others(tmp_path: Path) -> None:
    result = assess(tmp_path, "--on", f"4x ascend-910b3,{TWO}", "--assume", "link=100Gb/s")

    assert result.exit_code == 0, result.output
    assert "no answer" not in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("mixed: ")]
    assert "2x A100 SXM4 80GB + 2x Ascend 910B3" in line
    found = json.loads(next(tmp_path.glob("*.json")).read_text("utf-8"))
    (one,) = found["mixed"]
    assert len(found["options"]) == 2
    assert one["time_ratio"]["low"] < one["time_ratio"]["mid"] < one["time_ratio"]["high"]
    assert one["job_time"]["mid"] / one["step_time"]["mid"] == pytest.approx(found["asked"]["steps"])
    assert one["step_time"]["mid"] <= min(step for step in one["alone_s"].values() if step)
    english, chinese = ((tmp_path / f"assess-gpt2.{lang}.html").read_text("utf-8") for lang in ("en", "zh"))
    assert 'id="mixed"' in english and "Unlike chips together" in english
    assert "不同芯片混用" in chinese and one["plan"] in chinese.replace("&#39;", "'")


def test_a_mixed_cluster_that_cannot_be_asked_says_why(tmp_path: Path) -> None:
    result = assess(tmp_path, "--on", TWO, "--pages", "none", lang="zh")

    assert result.exit_code == 0, result.output
    assert "混训：" in result.stdout and "SP-MIX-050" in result.stdout


def test_a_plan_of_like_chips_is_none_for_a_mix(tmp_path: Path) -> None:
    result = assess(tmp_path, "--on", TWO, "--pages", "none", "--plan", "tp=1,pp=1", "--assume", "link=100Gb/s")

    assert "混" not in result.stdout and "mixes unlike chips" in result.stdout
