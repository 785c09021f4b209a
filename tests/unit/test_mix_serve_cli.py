"""``sapper mix serve`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sapper.cli import main
from sapper.mix.serve import place

CLUSTER = """
name = "two"
[[group]]
name = "big"
chip = "a100-sxm-80gb"
nodes = 1
[[group]]
name = "small"
chip = "l4"
nodes = 2
chips_per_node = 4
[group.scale_out]
bandwidth = "100 Gb/s"
[[link]]
from = "big"
to = "small"
bandwidth = "100 Gb/s"
latency = "20 us"
"""
MODEL = "llama-3.1-8b"
LENGTHS = ("--input", "512", "--output", "128")
LOAD = ("--rate", "12/s", *LENGTHS, "--slo", "ttft=2s,tpot=100ms")


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> str:
    (tmp_path / "two.toml").write_text(CLUSTER, encoding="utf-8")
    return str(tmp_path / "two.toml")


def run(cluster: str, *line: str, lang: str = "en") -> Result:
    command = ["mix", "serve", MODEL, "--on", cluster, "--store", "none", *line]
    return CliRunner(env={"SAPPER_LANG": lang, "COLUMNS": "200"}).invoke(main.cli, command)


@pytest.mark.slow
def test_the_cheapest_replicas_are_named_and_the_groups_alone(cluster: str) -> None:
    prices = ("--price", "big=4.0USD", "--price", "small=0.4USD", "--requests", "200", "--no-parts")
    result = run(cluster, *LOAD, *prices, "--format", "json")

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["unit"] == "USD/h" and found["gap"] <= 1e-4
    assert found["value"]["low"] <= found["value"]["mid"] <= found["value"]["high"]
    assert found["value"]["mid"] <= min(one["value"] for one in found["alone"] if one["enough"]) * 1.0001
    assert {one["group"] for one in found["alone"]} == {"big", "small"}
    assert all(one["keeps_slo"] for one in found["chosen"])
    assert sum(rate for one in found["chosen"] for rate in one["rates_per_s"].values()) == pytest.approx(12.0)


@pytest.mark.slow
def test_a_bound_that_the_simulation_exceeds_is_not_told(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = run(cluster, "--place", *LENGTHS, "--time", "1").output
    monkeypatch.setattr(place, "bound", lambda *_: 1.0)
    exceeded = run(cluster, "--place", *LENGTHS, "--time", "1")

    assert "no placement exceeds" in held
    assert exceeded.exit_code == 0 and "tokens/s" in exceeded.output and "no placement exceeds" not in exceeded.output


@pytest.mark.slow
def test_layers_are_placed_and_written(cluster: str, tmp_path: Path) -> None:
    result = run(cluster, "--place", *LENGTHS, "--time", "3", "--out", str(tmp_path / "p.json"), lang="zh")

    assert result.exit_code == 0, result.output
    assert "每秒解码" in result.stdout
    written = json.loads((tmp_path / "p.json").read_text("utf-8"))
    assert written["layers"] == 32
    assert max(row["last"] for row in written["nodes"]) == 32
    judged = run(cluster, "--place", *LENGTHS, "--time", "3", "--placement", str(tmp_path / "p.json"), "--format", "json")
    assert judged.exit_code == 0, judged.output
    rate = json.loads(judged.stdout)["decode_tokens_per_s"]
    assert rate["low"] < rate["mid"] == pytest.approx(written["decode_tokens_per_s"], rel=0.1)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("SP-MIX-271", ("--rate", "2/s", *LENGTHS)),
        ("SP-MIX-273", (*LENGTHS, "--slo", "ttft=1s")),
        ("SP-MIX-272", (*LOAD, "--class", "rate=1 input=10 output=10")),
        ("SP-MIX-270", (*LOAD, "--out", "x.json")),
        ("SP-MIX-274", ("--place", *LOAD)),
    ],
)
def test_what_cannot_be_meant_is_refused(cluster: str, code: str, line: tuple[str, ...]) -> None:
    result = run(cluster, *line)

    assert result.exit_code == 2
    assert code in result.stderr
