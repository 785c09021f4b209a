"""``sapper prove speed`` as a user runs it, on backends of the tester's own whose faults are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import Run

BACKEND = '''
import os
import torch
from sapper.backends.base import Backend, Executed

class Ready:
    def __init__(self, computation, faulty):
        self.computation, self.op = computation, computation.name if faulty else None
    def __call__(self, tensors):
        if self.op == "aten::threshold_backward":
            os.abort()
        made = self.computation([one.clone() for one in tensors])
        return [1.01 * one for one in made] if self.op == "aten::addmm" else made
    def executed(self):
        return None if self.op == "aten::relu" else Executed(where="cpu")

class Own(Backend):
    kind = "device"
    def __init__(self, detail):
        self.name, self.faulty, self.real = f"own:{detail}", detail == "faulty", detail != "emulated"
    def missing(self):
        return None
    def versions(self):
        return {"torch": torch.__version__}
    def prepare(self, computation):
        return Ready(computation, self.faulty)
    def device(self):
        return torch.device("cpu")

def open(detail):
    return Own(detail)
'''
PROGRAM = '''
import torch

def build(batch=4):
    module = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    return module, torch.randn(batch, 16)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "own.py").write_text(BACKEND, "utf-8")
    (tmp_path / "mlp.py").write_text(PROGRAM, "utf-8")
    return tmp_path


def prove(run_sapper: Run, folder: Path, *more: str, on: str) -> tuple[int, str, str]:
    line = ("prove", "speed", "mlp.py:build", "--on", on, "--case-time", "5ms", "--threads", "1", *more)
    done = run_sapper(*line, SAPPER_BACKENDS=str(folder / "backends"))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_each_call_of_a_step_has_time_limit_and_verdict_and_predict_learns_from_it(run_sapper: Run, folder: Path) -> None:
    store, chip = str(folder / "own.db"), "generic-x86-avx512-2s"

    code, out, err = prove(run_sapper, folder, "--json", "--chip", chip, "--store", store, on="own:sound")

    assert code == 0, err
    found = json.loads(out)
    assert json.loads((folder / "proof" / "speed.json").read_text("utf-8")) == found
    product = next(one for one in found["ops"] if one["op"] == "aten::addmm")
    assert product["flops"] in (2 * 4 * 16 * 32, 2 * 4 * 32 * 8)
    assert (product["phase"], product["outcome"], product["judged"], product["bound"]) == ("forward", "ok", "now", "launch")
    assert product["timing"]["low_s"] <= product["timing"]["median_s"] <= product["timing"]["high_s"]
    assert product["predicted"]["mid"] > 0 and product["catalogue_s"] > 0
    assert {"forward", "backward", "optimizer"} == {one["phase"] for one in found["ops"]}
    assert sum(one["step_share"] for one in found["ops"]) == pytest.approx(1.0)
    assert found["measured"]["peak_flops_per_s"] > 1e8 and found["measured"]["copies"]
    assert "new records" in err
    assert not learned(run_sapper, "none", chip) and learned(run_sapper, store, chip)


def learned(run_sapper: Run, store: str, chip: str) -> bool:
    """Whether predict says that its constants rest on the user's own measurements."""
    done = run_sapper(
        "predict", "train", "qwen2.5-0.5b", "--on", f"1x {chip}", "--precision", "fp32", "--global-batch", "1", "--plan", "tp=1",
        "--format", "json", "--store", store,
    )  # fmt: skip
    used = json.loads(done.stdout)[0]["estimate"]["used"]
    return any("your own measurements" in one["fact"]["source"] for one in used)


@pytest.mark.slow
def test_a_wrong_kernel_is_red_and_one_that_kills_its_process_costs_no_other(run_sapper: Run, folder: Path) -> None:
    code, out, err = prove(run_sapper, folder, "--json", on="own:faulty")

    assert code == 1, err
    outcomes = {one["op"]: one["outcome"] for one in json.loads(out)["ops"]}
    assert {op: outcome for op, outcome in outcomes.items() if outcome != "ok"} == {
        "aten::addmm": "wrong", "aten::threshold_backward": "crash", "aten::relu": "void",
    }  # fmt: skip
    assert "addmm" in err and "wrong" in err


def test_an_emulated_chip_leaves_no_evidence(run_sapper: Run, folder: Path) -> None:
    code, _, err = prove(run_sapper, folder, "--store", str(folder / "own.db"), on="own:emulated")

    assert code == 2 and "SP-SPEED-002" in err
    assert not (folder / "own.db").exists()


def test_a_mistake_of_the_program_is_no_devices(run_sapper: Run, folder: Path) -> None:
    (folder / "misfit.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(3, 2), torch.randn(4, 5)\n", "utf-8")

    done = run_sapper("prove", "speed", "misfit.py:build", "--on", "papertiger", cwd=folder)

    assert done.returncode == 2 and "SP-PROG-017" in done.stderr and "SP-SPEED" not in done.stderr
