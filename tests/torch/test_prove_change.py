"""prove change: which edits there are, that each is carried out, and what becomes of them on devices that are right or not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from train_programs import LIMPING, MODEL

import torch
from sapper.errors import BadValue
from sapper.programs.opened import Opened, open_program
from sapper.programs.program import tensors_in
from sapper.prove.change import run as campaign
from sapper.prove.change.apply import CHANGES, Unfit, opened, own_edits
from sapper.prove.change.edit import Edit, Setting, Size
from sapper.prove.change.find import edits_of
from sapper.prove.change.functions import attention_written_out
from sapper.prove.change.result import EditResult
from sapper.prove.change.run import Options, prove_change
from sapper.prove.change.shrink import shrunk
from sapper.prove.change.worker import Question, asked
from sapper.prove.isolate import Answer, Job
from sapper.prove.repro import Repro
from support import Run

OWN = '''

def wider(module):
    module.norm.eps = 0.5


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs):
        return self.inner(*inputs)


def another(module):
    return Outer(module)


def edits():
    return [wider, another]


def no_edits():
    return "wider"
'''


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    (tmp_path / "model.py").write_text(MODEL + OWN)
    return Setting(target=str(tmp_path / "model.py"), on="limping:odd", edits_file=f"{tmp_path / 'model.py'}:edits")


def edits(setting: Setting) -> dict[str, Edit]:
    return {one.id: one for one in edits_of(setting, open_program(setting.target))}


def test_edits_come_from_the_modules_the_builder_and_the_user(setting: Setting) -> None:
    found = edits(setting)
    assert {
        "own:wider", "batch:0", "batch:1", "length:1", "length:5", "length:25", "dynamic:lengths", "dtype:bf16", "layers:drop blocks.1",
        "layers:add blocks.1", "layers:swap blocks.0", "activation:gelu to silu", "norm:layer to rms", "attribute:LayerNorm.eps=0.01",
        "attribute:GELU.approximate=tanh", "layout:strided", "index:int32", "checkpoint:each layer", "mode:evaluation", "frozen:first half",
    } <= set(found)  # fmt: skip
    first = {one.family for one in itertools.islice(found.values(), 10)}
    assert len(first) >= 8, "families take turns"
    assert all(one.change in {*CHANGES, "seq", "dtype"} for one in found.values())


def step(program: Opened) -> dict[str, Any]:
    loss = program.run()
    loss.backward()
    weights = dict(program.program.module.named_parameters())
    grads = {name: one.grad for name, one in weights.items()}
    return {"loss": float(loss.detach()), "grads": grads, "inputs": tensors_in(program.program.inputs)}


def test_each_edit_changes_what_it_says(setting: Setting) -> None:
    found = edits(setting)
    before = step(opened(setting, None, Size()))

    def after(name: str) -> dict[str, Any]:
        return step(opened(setting, found[name], Size()))

    assert [len(one) for one in after("batch:3")["inputs"]] == [3, 3] and after("length:25")["inputs"][0].shape == (4, 25)
    for name in ("activation:gelu to silu", "norm:layer to rms", "attribute:LayerNorm.eps=0.01", "own:wider", "layers:drop blocks.0"):
        assert abs(after(name)["loss"] - before["loss"]) > 1e-6, name
    for name in ("layout:strided", "layout:transposed", "checkpoint:each layer", "own:another"):
        changed = after(name)
        assert changed["loss"] == pytest.approx(before["loss"], rel=1e-6), name
        assert len(changed["grads"]) == len(before["grads"]) and all(one is not None for one in changed["grads"].values()), name
    assert sum(name.startswith("blocks.2") for name in after("layers:add blocks.1")["grads"]) == 6
    assert after("dtype:bf16")["grads"]["head.weight"].dtype == torch.bfloat16
    assert sum(one is None for one in after("frozen:first half")["grads"].values()) == 8
    assert step(opened(setting, None, Size(batch=1, seq=2, layers=1)))["inputs"][0].shape == (1, 2)
    with pytest.raises(Unfit):
        opened(setting, None, Size(layers=5))


def test_attention_written_out_is_attention() -> None:
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.rand(5, 5) > 0.3
    mask |= torch.eye(5, dtype=torch.bool)
    for named in ({"is_causal": True}, {"attn_mask": mask}, {"attn_mask": torch.randn(5, 5)}, {"scale": 0.3}):
        ours = attention_written_out(query, key, value, enable_gqa=True, **named)
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True, **named)
        assert torch.allclose(ours, theirs, atol=1e-5), named


def test_what_is_no_list_of_functions_is_refused(setting: Setting) -> None:
    with pytest.raises(BadValue) as caught:
        own_edits(f"{setting.target}:no_edits")
    assert caught.value.code == "SP-CHANGE-002"


def test_the_smallest_edit_that_fails_is_found() -> None:
    """Fails at lengths from 5 on with two layers at least; samples do not matter."""
    edit = Edit(family="length", name="65", change="seq", args={"seq": 65})
    calls = []

    def fails(one: Edit, size: Size) -> bool:
        calls.append((one, size))
        return one.args["seq"] >= 5 and (size.layers or 12) >= 2

    found = shrunk(edit, Setting(target="-", on="-", batch=8), fails=fails)
    assert (found.edit.args, found.size) == ({"seq": 5}, Size(batch=1, layers=2))
    assert found.tries == len(calls) <= 24


def test_a_program_that_cannot_be_edited_so_is_skipped_and_no_device_is_asked(setting: Setting) -> None:
    """The reference refuses int32 as the target of a cross entropy."""
    question = Question(setting=setting, edit=edits(setting)["index:int32"])
    (only,) = asked(msgspec.to_builtins(msgspec.structs.replace(question, setting=msgspec.structs.replace(setting, on="papertiger"))))
    assert only["seen"]["outcome"] == "skipped" and "Int" in only["seen"]["said"]


class Death(BaseException):
    """Ends what would be a worker's process."""


class Here:
    """A pool whose workers are this process: it keeps a device's state from job to job, and a fresh one forgets it."""

    setup_value: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked: list[str] = []

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def start(self) -> dict[str, Any]:
        return {"versions": {"limping": "1"}, "kind": "device"}

    def run(self, jobs: list[Job]) -> Iterator[Answer]:
        for job in jobs:
            self.asked.append(job.id)
            if job.fresh:
                torch.__dict__.pop("limping", None)
            parts = []
            try:
                for part in asked(job.payload):
                    parts.append(part)
            except Death:
                torch.__dict__.pop("limping", None)
                yield Answer(id=job.id, status="crash", parts=tuple(parts), said="SIGSEGV")
            else:
                yield Answer(id=job.id, status="done", parts=tuple(parts))


@pytest.fixture
def limping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "limping.py").write_text(LIMPING)
    monkeypatch.setenv("SAPPER_BACKENDS", str(tmp_path))
    monkeypatch.setattr(campaign, "Pool", Here)
    monkeypatch.setattr(campaign, "write_repro", lambda *_, name, **__: Repro(path=f"repros/{name}.py"))
    torch.__dict__.pop("limping", None)

    def die(*_: Any) -> None:
        raise Death

    monkeypatch.setattr("os.kill", die)
    return tmp_path


def proved(folder: Path, how: str, pattern: str, *, told: Callable[..., None] = lambda *_, **__: None) -> dict[str, EditResult]:
    setting = Setting(target=str(folder / "model.py"), on=f"limping:{how}")
    proof = prove_change(setting, folder / how, options=Options(pattern=pattern, shrink=how == "odd"), told=told)
    return {one.id: one for one in proof.results}


@pytest.mark.slow
def test_what_fails_is_found_made_small_and_not_done_twice(limping: Path) -> None:
    """It dies at odd lengths from 5 on; even ones and the rest survive."""
    told: list[str] = []
    pattern = "length:25,length:12,batch:0"
    results = proved(limping, "odd", pattern, told=lambda code, **_: told.append(code))
    assert {name: one.outcome for name, one in results.items()} == {
        "original:unedited": "ok", "length:25": "crash", "length:12": "ok", "batch:0": "ok",
    }  # fmt: skip
    found = results["length:25"].smallest
    assert found is not None and found.size == Size(batch=1, layers=1) and found.edit.args["seq"] == 5
    assert found.repro == Repro(path="repros/change_length_25.py")
    told.clear()
    assert proved(limping, "odd", pattern, told=lambda code, **_: told.append(code)) == results and not told


def test_what_fails_without_any_edit_is_no_matter_of_the_edits(limping: Path) -> None:
    """It dies at odd lengths from 5 on, and the program has 7 tokens."""
    setting = Setting(target=str(limping / "model.py"), on="limping:odd", seq=7)
    proof = prove_change(setting, limping / "seven", options=Options(pattern="length:6,batch:1", shrink=False), told=lambda *_, **__: None)

    assert {one.id: one.outcome for one in proof.results} == {"original:unedited": "crash", "batch:1": "crash", "length:6": "ok"}
    assert [one.id for one in proof.alike()] == ["batch:1"]


@pytest.mark.slow
def test_a_stale_cache_is_told_from_a_wrong_kernel(limping: Path) -> None:
    results = proved(limping, "stale", "attribute:LayerNorm.eps*,attribute:GELU*")
    assert {name: one.outcome for name, one in results.items()} == {
        "original:unedited": "ok", "attribute:LayerNorm.eps=0.01": "stateful", "attribute:GELU.approximate=tanh": "ok",
    }  # fmt: skip
    assert results["attribute:LayerNorm.eps=0.01"].stage == "edited"


def test_what_dies_alone_too_is_no_matter_of_state(limping: Path) -> None:
    question = Question(setting=Setting(target=str(limping / "model.py"), on="limping:odd"), edit=None)
    row = edits(question.setting)["dynamic:lengths"]
    whole = msgspec.structs.replace(question, edit=row)
    alone = msgspec.structs.replace(whole, alone="seq 5 (2)")
    jobs = [Job(id="row", function="", payload=msgspec.to_builtins(one)) for one in (whole, alone)]
    first, second = Here().run(jobs)
    assert first.status == second.status == "crash"
    assert [part["stage"] for part in first.parts] == ["seq 6 (1)", "seq 5 (2)"]
    assert [part["stage"] for part in second.parts] == ["seq 5 (2)"]


@pytest.mark.slow
def test_an_honest_chip_is_not_accused(tmp_path: Path, run_sapper: Run) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    done = run_sapper("prove", "change", "model.py", "--on", "papertiger", "--only", "batch:1,checkpoint:*", "--json")
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)
    assert [(one["id"], one["outcome"], one["where"]) for one in proof["results"]] == [
        ("original:unedited", "ok", "papertiger:0"), ("batch:1", "ok", "papertiger:0"), ("checkpoint:each layer", "ok", "papertiger:0"),
    ]  # fmt: skip
