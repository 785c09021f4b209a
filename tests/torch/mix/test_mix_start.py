"""What is said of a run before its first worker starts."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sapper.cli import main
from sapper.errors import BadPlan, BadValue
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.targets import check_config, check_device
from sapper.mix.survive.launch import ranks_here

pytestmark = pytest.mark.torch


def plan(*pipelines: Pipeline) -> MixPlan:
    return MixPlan(
        model="m", model_digest="0" * 64, cluster="c", cluster_digest="1", layers=4, seq_len=8, pipelines=pipelines,
        global_batch=sum(one.sequences for one in pipelines),
    )  # fmt: skip


def halves(group: str) -> Pipeline:
    stages = tuple(Stage(group=group, first=first, last=last) for first, last in ((0, 3), (3, 6)))
    return Pipeline(stages=stages, micro_batch=1, micro_batches=2)


TWO = plan(halves("fast"), halves("slow"))


@pytest.mark.parametrize(
    ("text", "code"), [("nope", "SP-MIX-205"), ("fast:7-9", "SP-MIX-209"), ("fast:x", "SP-MIX-209"), ("fast:1-0", "SP-MIX-209")]
)
def test_what_a_host_has_must_be_of_the_plan(text: str, code: str) -> None:
    with pytest.raises(BadValue, match=code):
        ranks_here(TWO, [text])


def test_a_part_of_a_group_is_this_hosts() -> None:
    assert ranks_here(TWO, ["slow", "fast:1"]) == (1, 2, 3)
    assert ranks_here(TWO, []) == (0, 1, 2, 3)


def test_the_config_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64,
    }))  # fmt: skip
    with pytest.raises(BadPlan, match="SP-MIX-010"):
        check_config(TWO, str(path), where="plan.json")
    check_config(msgspec.structs.replace(TWO, model_digest=""), str(path), where="plan.json")


def test_a_device_that_is_not_there_is_named() -> None:
    check_device("cpu")
    with pytest.raises(BadValue, match="SP-MIX-107"):
        check_device("banana")


@pytest.mark.parametrize("option", [["--meet", "nonsense"], ["--join", "host:0"]])
def test_what_is_no_address_is_refused(tmp_path: Path, option: list[str]) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(TWO))
    answer = CliRunner().invoke(main.cli, ["mix", "run", str(path), "--here", "fast", *option])
    assert answer.exit_code != 0
    assert "SP-MIX-210" in answer.output + str(answer.exception)
