"""``sapper models`` on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sapper.cli.main import cli


def run(*line: str) -> Result:
    return CliRunner().invoke(cli, [*line, "--lang", "en"] if "--lang" not in line else list(line), prog_name="sapper")


def data(*line: str) -> Any:
    result = run(*line, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list_has_every_bundled_model_with_raw_values() -> None:
    rows = {row["name"]: row for row in data("models", "list")}

    assert len(rows) > 150
    assert rows["qwen2.5-7b"]["params"] == 7_615_616_512
    assert rows["mixtral-8x7b"]["active_params"] < rows["mixtral-8x7b"]["params"]


def test_list_of_one_family_and_of_the_families() -> None:
    assert {row["family"] for row in data("models", "list", "--family", "gemma2")} == {"gemma2"}
    assert {"llama", "deepseek_v3", "bert", "gpt_oss"} <= {row["family"] for row in data("models", "list", "--families")}


def test_an_unknown_family_has_near_ones() -> None:
    result = run("models", "list", "--family", "gema2")

    assert result.exit_code == 2 and "`gemma2`" in result.stderr


def test_show_prints_both_conventions_and_the_layers() -> None:
    result = run("models", "show", "gemma-2-9b", "--seq", "8192")

    assert result.exit_code == 0
    assert "9,241,705,984" in result.stdout and "21 sliding, 21 full" in result.stdout
    assert "full square" in result.stdout and len(result.stdout.splitlines()) < 25


def test_show_as_json_agrees_with_itself() -> None:
    shown = data("models", "show", "llama-2-7b", "--seq", "2048", "--ops")

    assert shown["forward_flops_per_token_full"] * 2048 == pytest.approx(shown["forward_flops_full"])
    assert sum(op["params"] * op["count"] for op in shown["ops"]) == shown["params"]
    assert shown["train_flops_per_token_causal"] == pytest.approx(3 * shown["forward_flops_per_token_causal"])
    assert shown["ops_priced"] == len(shown["ops"])


def test_show_ops_as_csv_has_a_line_per_op() -> None:
    rows = list(csv.DictReader(io.StringIO(run("models", "show", "gpt2", "--seq", "64", "--ops", "--format", "csv").stdout)))

    assert rows[0]["op"] == "embed_tokens"
    assert {"block", "count", "kind", "shape", "dtype", "flops", "flops_full", "weight_bytes", "saved_bytes"} <= rows[0].keys()
    assert next(row for row in rows if row["op"] == "attn.core")["shape"] == "12/12 x 64, 64 x 64"


def test_show_of_a_vision_model_takes_its_own_length() -> None:
    assert data("models", "show", "vit-base-patch16-224")["seq_len"] == 197


def test_show_of_a_file_and_of_a_purpose(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 100,
        "intermediate_size": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = data("models", "show", str(tmp_path), "--purpose", "decode", "--seq", "512")

    assert (shown["tokens_per_sequence"], shown["saved_bytes_per_sequence"]) == (1, 0)
    assert data("models", "show", str(tmp_path), "--dtype", "fp32")["saved_bytes_per_sequence"] > 0


@pytest.mark.parametrize(
    "line",
    [
        ("gpt3-174b",),
        ("gpt2", "--seq", "0"),
        ("gpt2", "--seq", "-1"),
        ("gpt2", "--dtype", "fp13"),
        ("bert-base-uncased", "--purpose", "decode"),
        ("/dev/null",),
        ("nowhere/config.json",),
    ],
)
def test_what_cannot_be_shown_ends_with_2_and_a_next_step(line: tuple[str, ...]) -> None:
    result = run("models", "show", *line)

    assert result.exit_code == 2
    assert "SP-" in result.stderr and "->" in result.stderr and "Traceback" not in result.output


def test_both_languages_show_the_same_numbers() -> None:
    english, chinese = (run("models", "show", "deepseek-v3", "--lang", lang).stdout for lang in ("en", "zh"))

    assert "671,026,404,352" in english and "671,026,404,352" in chinese
    assert "参数量" in chinese and "每 token" in chinese
