"""The Workload file, read without PyTorch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from sapper import workloads
from sapper.capture import capture
from sapper.clusters import parse_groups
from sapper.errors import BadFile, BadPlan, BadValue
from sapper.predict import Plan, TrainJob, predict_train, search_train
from support import Run


def op(name: str, **values: Any) -> dict[str, Any]:
    size_bytes = 2.0 * 64 * 256
    return {"name": name, "kind": "matmul", "flops": 2.0 * 64 * 256 * 256, "input_bytes": size_bytes, "output_bytes": size_bytes} | values


def content(**values: Any) -> dict[str, Any]:
    """A file of four equal layers."""
    layer = op("fc", weight_bytes=2.0 * 256 * 256, params=256 * 256, m=64, n=256, k=256, saved_bytes=2.0 * 64 * 256, low_precision=True)
    loss = op("loss", kind="loss", flops=1.0, saved_bytes=4.0 * 64)
    return {
        "format": "sapper-workload", "version": 1, "name": "net", "source": "net.py:build", "sapper": "0.1.0", "torch": "2.13.0",
        "transformers": None, "dtype": "bf16", "batch": 2, "seq_len": 64, "tokens_per_sequence": 64, "params": 4 * 256 * 256,
        "trainable_params": 4 * 256 * 256, "shards_known": False,
        "blocks": [
            {"name": "layers.0-3", "role": "layer", "count": 4, "ops": [layer], "hidden_size": 256},
            {"name": "head", "role": "head", "ops": [loss]},
        ],
        "ops": [
            {"phase": "forward", "op": "aten.mm", "inputs": ["bf16[128,256]", "bf16[256,256]"], "outputs": ["bf16[128,256]"],
             "kind": "matmul", "count": 4, "flops": 6.7e7, "flops_full": 6.7e7, "size_bytes": 1e6},
            {"phase": "forward", "op": "mylib.thing", "inputs": ["bf16[128,256]"], "outputs": ["bf16[128,256]"],
             "kind": "elementwise", "count": 1, "flops": None, "flops_full": None, "size_bytes": 250e3},
        ],
        "unpriced": [{"op": "mylib.thing", "count": 1, "size_bytes": 250e3, "bytes_share": 0.2}],
        "totals": {
            "forward_flops": 6.7e7, "forward_full_flops": 6.7e7, "backward_flops": 1.34e8, "backward_unattributed_flops": 0.0,
            "fixed_flops": 0.0, "eager_bytes": 1.25e6, "fused_bytes": 1.25e6,
        },
        "notes": [],
    } | values  # fmt: skip


def written(folder: Path, **values: Any) -> Path:
    path = folder / "net.workload.json"
    path.write_text(json.dumps(content(**values)), "utf-8")
    return path


def job(path: Path, **values: Any) -> TrainJob:
    return TrainJob(workload=workloads.load(path).workload(**values), global_batch=64)


CLUSTER = "8x h100-sxm"


def test_load_says_what_it_is(tmp_path: Path):
    origins = [workloads.load(source).origin for source in ("llama-3-8b", written(tmp_path))]

    assert origins == ["bundled", "capture"]
    assert workloads.load(written(tmp_path)).params == 4 * 256 * 256


def test_unpriced_parts_are_carried_with_their_share(tmp_path: Path):
    estimate = predict_train(job(written(tmp_path)), parse_groups(CLUSTER)[0], Plan(dp=8))

    assert estimate.coverage.unpriced == ("mylib.thing",)
    assert estimate.coverage.flops_share is None
    assert estimate.coverage.bytes_share == pytest.approx(0.8)
    assert "warn.unpriced" in {warning.code for warning in estimate.warnings}


def test_what_is_not_known_to_be_cut_is_not_cut(tmp_path: Path):
    cluster = parse_groups(CLUSTER)[0]
    for plan in (Plan(tp=2, dp=4), Plan(cp=2, dp=4)):
        with pytest.raises(BadPlan) as raised:
            predict_train(job(written(tmp_path)), cluster, plan)
        assert raised.value.code == "SP-CAP-026"

    found = search_train(job(written(tmp_path)), cluster)

    assert found.best is not None
    assert (found.best.plan.tp, found.best.plan.cp) == (1, 1)
    assert predict_train(job(written(tmp_path)), cluster, Plan(pp=4, dp=2)).step_time.mid > 0


def test_purposes(tmp_path: Path):
    model = workloads.load(written(tmp_path))
    prefill = model.workload(purpose="prefill")

    assert [op.kind for block in prefill.blocks for op in block.ops] == ["matmul"]
    assert all(op.saved_bytes == 0 for block in prefill.blocks for op in block.ops)
    for wrong, code in (({"purpose": "decode"}, "SP-CAP-027"), ({"attention_impl": "unfused"}, "SP-CAP-025")):
        with pytest.raises(BadValue) as raised:
            model.workload(**wrong)
        assert raised.value.code == code


def test_backward_flops_of_the_file_count(tmp_path: Path):
    blocks = content()["blocks"]
    blocks[0]["ops"][0]["backward_flops"] = blocks[0]["ops"][0]["flops"]
    usual, half = (
        predict_train(job(written(tmp_path, **change)), parse_groups("1x h100-sxm")[0], Plan()).step_time.mid
        for change in ({}, {"blocks": blocks})
    )

    assert half < usual


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"version": 2}, "SP-CAP-021", "version"),
        ({"format": "other"}, "SP-CAP-020", ""),
        ({"seq_len": "64"}, "SP-FILE-014", "seq_len"),
        ({"zzzz": 1}, "SP-FILE-011", "zzzz"),
        ({"dtype": "bf17"}, "SP-CAP-023", "dtype"),
        ({"seq_len": 0}, "SP-CAP-023", "seq_len"),
        ({"params": 5}, "SP-CAP-024", "params"),
        ({"blocks": []}, "SP-CAP-023", "blocks"),
        ({"blocks": [{"name": "x", "role": "layer", "ops": [op("a", flops=-1.0)]}]}, "SP-CAP-022", "blocks[0].ops[0].flops"),
        ({"blocks": [{"name": "x", "role": "layer", "count": 0, "ops": []}], "params": 0}, "SP-CAP-023", "blocks[0].count"),
        ({"blocks": [{"name": "x", "role": "layer", "ops": [op("a", kind="magic")]}]}, "SP-FILE-014", "blocks[0].ops[0].kind"),
    ],
)
def test_a_bad_file_is_refused_by_the_name_of_the_field(tmp_path: Path, change: dict[str, Any], code: str, field: str):
    with pytest.raises(BadFile) as raised:
        workloads.load(written(tmp_path, **change))

    assert raised.value.code == code
    assert field in f"{raised.value.where} {raised.value.values}"
    assert "{" not in raised.value.render("zh")


def test_missing_field(tmp_path: Path):
    raw = content()
    del raw["totals"]
    path = tmp_path / "net.workload.json"
    path.write_text(json.dumps(raw), "utf-8")

    with pytest.raises(BadFile) as raised:
        workloads.load(path)

    assert (raised.value.code, raised.value.values["field"]) == ("SP-FILE-013", "totals")


def test_without_pytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(BadValue) as raised:
        capture("net.py:build")

    assert raised.value.code == "SP-PROG-001"
    assert "pip install torch" in raised.value.render("en")


@pytest.mark.slow
def test_the_verbs_take_the_file(tmp_path: Path, run_sapper: Run):
    path = str(written(tmp_path))

    shown = run_sapper("models", "show", path, "--format", "json")
    predicted = run_sapper("predict", "train", path, "--on", CLUSTER, "--global-batch", "64", "--format", "json")

    assert json.loads(shown.stdout)["params"] == 4 * 256 * 256
    assert json.loads(predicted.stdout)[0]["estimate"]["workload"] == "net"


def test_frozen_weights_hold_no_states(tmp_path: Path):
    def peak(zero: int, **values: Any) -> float:
        return predict_train(job(written(tmp_path, **values)), parse_groups(CLUSTER)[0], Plan(dp=8, zero=zero)).memory.peak.mid

    for zero in (0, 3):
        assert peak(zero, trainable_params=2 * 256 * 256) < peak(zero)


def test_one_pass_is_served_and_says_so(tmp_path: Path, run_sapper: Run):
    path = written(tmp_path)
    asked = ("predict", "serve", str(path), "--on", "1x h100-sxm", "--rate", "10")

    served = run_sapper(*asked)

    assert "one forward pass" in served.stdout


def test_a_causal_program_is_not_served(tmp_path: Path, run_sapper: Run):
    blocks = content()["blocks"]
    shape = {"heads": 4, "kv_heads": 4, "qk_dim": 64, "v_dim": 64, "q_len": 64, "kv_len": 64, "causal": True}
    blocks[0]["ops"].append(op("core", kind="attention", attention=shape))

    refused = run_sapper("predict", "serve", str(written(tmp_path, blocks=blocks)), "--on", "1x h100-sxm", "--rate", "10")

    assert "SP-CAP-028" in refused.stderr
    assert "config.json" in refused.stderr


def test_a_sample_of_one_token_is_a_sample(tmp_path: Path, run_sapper: Run):
    path = str(written(tmp_path, seq_len=1, tokens_per_sequence=1))

    shown = run_sapper("predict", "train", path, "--on", CLUSTER, "--global-batch", "64")

    assert "samples/s per chip" in shown.stdout
    assert "tokens/s" not in shown.stdout
    assert "sequence 1" not in shown.stdout
    assessed = run_sapper("assess", path, "--train-tokens", "6400", "--reference", CLUSTER, "--on", CLUSTER, "--global-batch", "64")
    assert "6,400 samples" in assessed.stdout or "6.4K samples" in assessed.stdout
    assert "tokens" not in assessed.stdout.split("samples", 1)[0]
