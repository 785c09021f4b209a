"""Under torchrun: what a keeper does at its start, by the notes that it finds; no process is started."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sapper.errors import BadFile
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.survive import elastic
from sapper.mix.survive.elastic import Found, Note, born

PLAN = MixPlan(
    model="m", model_digest="0", cluster="c", cluster_digest="1", layers=2, seq_len=8, global_batch=2,
    pipelines=(Pipeline(stages=(Stage(group="g", first=0, last=4),), micro_batch=1, micro_batches=1, copies=2),),
)  # fmt: skip


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("TORCHELASTIC_RUN_ID", "run"), ("MASTER_PORT", "1"), ("TORCHELASTIC_RESTART_COUNT", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(elastic, "_meet", lambda rank: "host:1")


def note(path: Path, *, launch: str, alive: bool = True) -> None:
    when = born(os.getpid()) if alive else "0"
    path.write_bytes(msgspec.json.encode(Note(pid=os.getpid(), born=when or "", group="g", errors="e", launch=launch)))


def test_at_the_start_of_a_run_it_starts_its_rank_whatever_its_neighbours_have_started(tmp_path: Path) -> None:
    note(tmp_path / "kept-h-0-0.json", launch="run/1/0")
    note(tmp_path / "kept-h-0-1.json", launch="run/1/0", alive=False)
    here, fresh = elastic._here(tmp_path, tmp_path / "kept-h-0-1.json", PLAN)

    assert (here.ranks, here.meet, fresh) == ((1,), "host:1", True)


def test_started_again_it_takes_up_the_worker_of_its_place_or_brings_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    note(tmp_path / "kept-h-0-0.json", launch="run/1/0")
    there, _ = elastic._here(tmp_path, tmp_path / "kept-h-0-0.json", PLAN)
    new, fresh = elastic._here(tmp_path, tmp_path / "kept-h-0-1.json", PLAN)

    assert [one.process.pid for one in there.living] == [os.getpid()] and there.ranks == ()
    assert (new.guests, new.ranks, fresh) == (("g",), (), False)


def test_a_process_with_the_number_of_an_ended_worker_is_not_taken_for_it(tmp_path: Path) -> None:
    note(tmp_path / "n.json", launch="run/1/0", alive=False)
    found = Found(msgspec.json.decode((tmp_path / "n.json").read_bytes(), type=Note))

    assert found.poll() is not None and found.wait() == found.returncode
    assert elastic._living(tmp_path / "n.json") is None and elastic._living(tmp_path / "none.json") is None


def test_more_processes_than_seats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(BadFile, match="2 seats"):
        elastic._here(tmp_path, tmp_path / "kept-h-0-2.json", PLAN)
