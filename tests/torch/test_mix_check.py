"""``sapper mix check``: a plan beside one device, and a runtime that weights wrongly is found."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sapper.cli import main
from sapper.mix.plan import MixPlan, Pipeline, Stage, read_plan, write_plan
from support import ROOT, Run

pytestmark = [pytest.mark.torch, pytest.mark.slow]

TWICE = """
import sys
from sapper.cli.main import cli
from sapper.mix.check import prove
from sapper.mix.check.subject import Redrawn

def run():
    try:
        cli.main(sys.argv[1:])
    except SystemExit as leave:
        return leave.code

right = run()
Redrawn.weight = lambda self, inputs: float(inputs["ids"].shape[0] ** 2)
prove._alone = lambda job: prove._steps(prove.Reference(job, whole=True))
sys.exit(10 * right + run())
"""
"""Checks a plan; then once more with micro-batches weighted by something else than what they hold, beside the undivided batch."""


def a_plan(folder: Path, *, model: str, layers: int) -> str:
    first = Stage(group="fast", first=0, last=layers, replicas=1)
    cut = Pipeline(stages=(first, Stage(group="slow", first=layers, last=layers + 2, replicas=2)), micro_batch=2, micro_batches=3)
    whole = Pipeline(stages=(Stage(group="slow", first=0, last=layers + 2),), micro_batch=1, micro_batches=1)
    plan = MixPlan(
        model=model, model_digest="0", cluster="c", cluster_digest="1", layers=layers, seq_len=16, global_batch=7, pipelines=(cut, whole)
    )
    write_plan(folder / "plan.json", plan)
    return str(folder / "plan.json")


def test_a_plan_equals_one_device_part_by_part(tmp_path: Path, run_sapper: Run) -> None:
    result = run_sapper("mix", "check", a_plan(tmp_path, model="gpt2", layers=3), "--steps", "1")

    assert result.returncode == 0, result.stderr
    assert "Equal to one device after 1 steps" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("0.", "1.", "whole"))]
    assert [row[:2] for row in rows] == [["whole", "job"]] * 3 + [["0.0", "fast"], ["0.1", "slow"], ["1.0", "slow"]]
    assert all(row[-1] == "yes" and float(row[-2]) < 1e-12 for row in rows)


def test_a_module_of_the_users_is_run_as_it_is_and_wrong_weights_are_found(tmp_path: Path, run_sapper: Run) -> None:
    builder = f"{ROOT / 'examples' / 'prove' / 'gpt.py'}:build"
    line = ("mix", "check", a_plan(tmp_path, model="gpt", layers=2), "--builder", builder, "--steps", "1", "--format", "json")
    result = run_sapper(*line, code=("-c", TWICE))

    assert result.returncode == 1, result.stderr
    decoder = json.JSONDecoder()
    right, end = decoder.raw_decode(result.stdout)
    wrong, _ = decoder.raw_decode(result.stdout[end:].lstrip())
    assert right["equal"] and [part["what"] for part in right["parts"]].count("weights") == 3
    assert not wrong["equal"] and max(part["error"] for part in wrong["parts"] if part["what"] == "gradient") > 1e-3


def test_a_model_that_nobody_ships_needs_its_config(tmp_path: Path) -> None:
    path = a_plan(tmp_path, model="ours-7b", layers=2)
    result = CliRunner(env={"SAPPER_LANG": "en"}).invoke(main.cli, ["mix", "check", path])

    assert result.exit_code == 2
    assert "`ours-7b` is no bundled model" in result.stderr and "--builder" in result.stderr

    write_plan(path, msgspec.structs.replace(read_plan(path), model_digest="f" * 64))
    result = CliRunner(env={"SAPPER_LANG": "en"}).invoke(main.cli, ["mix", "check", path, "--model", "gpt2"])
    assert result.exit_code == 2 and "SP-MIX-010" in result.stderr
