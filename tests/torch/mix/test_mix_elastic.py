"""Under torchrun: what a keeper does at its start, by the notes and journals that it finds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch.distributed as dist

from sapper.errors import BadFile
from sapper.evidence import Store
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.survive import elastic, notes, underway
from sapper.mix.survive.notes import Found, Known, Note, known
from sapper.mix.survive.spec import NAME, Spec

pytestmark = pytest.mark.torch

PLAN = MixPlan(
    model="m", model_digest="", cluster="c", cluster_digest="1", layers=2, seq_len=8, global_batch=2,
    pipelines=(Pipeline(stages=(Stage(group="g", first=0, last=4),), micro_batch=1, micro_batches=1, copies=2),),
)  # fmt: skip
CONFIG = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64,
}  # fmt: skip
GONE = Known(1, "0")


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """As torchrun's own, to which this process belongs as the keeper of rank 1."""
    made = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    values = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "run", "TORCHELASTIC_RESTART_COUNT": "0"}
    for name, value in (values | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(made.port)}).items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def sleep() -> Iterator[Callable[[], int]]:
    """Starts a process, and says its number."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        started.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def note(folder: Path, pid: int, *, local: str, keeper: Known | None = None, agent: Known | None = None) -> None:
    here = known(os.getpid())
    notes.write(folder, Note(
        host=notes.own_host(), local=local, group="g", errors="e", worker=known(pid), keeper=keeper or here, agent=agent or here,
    ))  # fmt: skip


def journal(folder: Path, number: int, *, pid: int, port: int, host: str = "", ended: bool = False, age_s: float = 0.0) -> Path:
    at = ["127.0.0.1", port]
    lines = [
        {"kind": "door", "number": number, "door": at, "host": host or notes.own_host(), "pid": pid, "group": "g"},
        {"kind": "view", "members": [[number, *at]]},
    ]
    path = folder / f"member-{number:05d}.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in [*lines, *[{"kind": "end"}] * ended]))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_start_leaves_its_neighbours_workers_and_ends_those_of_a_start_that_failed(
    tmp_path: Path, store: dist.TCPStore, sleep: Callable[[], int]
) -> None:
    store.set("sapper/mix/meet/0", "7")
    neighbour, left = sleep(), sleep()
    note(tmp_path, neighbour, local="0")
    note(tmp_path, left, local="1", keeper=GONE)
    here = elastic._here(tmp_path, PLAN)

    assert (here.ranks, here.meet, here.guests, here.living) == ((1,), "127.0.0.1:7", (), ())
    assert [one.worker.pid for one in notes.living(tmp_path)] == [neighbour]


def test_in_a_run_under_way_it_takes_up_the_worker_of_its_place_whatever_number_its_host_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleep: Callable[[], int]
) -> None:
    worker = sleep()
    note(tmp_path, worker, local="1", keeper=GONE)
    journal(tmp_path, 0, pid=worker, port=7)
    monkeypatch.setenv("GROUP_RANK", "3")
    monkeypatch.setenv("RANK", "0")
    there = elastic._here(tmp_path, PLAN)
    kept = elastic._here(tmp_path, PLAN)

    assert [one.process.pid for one in there.living] == [worker] and (there.ranks, there.guests) == ((), ())
    assert (kept.guests, kept.doors, kept.living) == (("g",), ("127.0.0.1:7",), ())  # by this process, as the note says since
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert elastic._here(tmp_path, PLAN).doors == ("127.0.0.1:7",)


def test_a_keeper_whose_agent_is_gone_lets_its_worker_go(tmp_path: Path, sleep: Callable[[], int]) -> None:
    worker, keeper = sleep(), sleep()
    note(tmp_path, worker, local="1", keeper=known(keeper), agent=GONE)
    journal(tmp_path, 0, pid=worker, port=7)

    assert [one.process.pid for one in elastic._here(tmp_path, PLAN).living] == [worker]
    assert notes.born(keeper) is None and notes.born(worker) is not None


def test_the_journals_of_a_run_that_is_alive_on_another_host_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        own = journal(tmp_path, 1, pid=1, port=7, age_s=1)
        other = journal(tmp_path, 0, pid=1, port=port, host="elsewhere", age_s=1000)
        os.utime(own, (0, 0))
        here = elastic._here(tmp_path, PLAN)

        assert (here.guests, here.doors, here.ranks) == (("g",), (f"127.0.0.1:{port}",), ())
        assert own.exists() and other.exists()


def test_a_run_that_is_over_is_begun_anew_once_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with socket.create_server(("127.0.0.1", 0)) as shut:
        port = shut.getsockname()[1]
    lost = journal(tmp_path, 0, pid=1, port=port, host="elsewhere", age_s=underway.QUIET_S - 1.5)
    began = time.monotonic()
    here = elastic._here(tmp_path, PLAN)

    assert here.ranks == (0,) and time.monotonic() - began > 1 and not lost.exists()
    journal(tmp_path, 0, pid=1, port=port, host="elsewhere", ended=True)
    assert underway.doors(tmp_path, host=notes.own_host(), pids=()) == ()


@pytest.mark.parametrize(("ended", "code"), [(True, 0), (False, -signal.SIGKILL)])
def test_a_worker_that_was_taken_up_is_lost_unless_it_came_to_the_end(
    tmp_path: Path, sleep: Callable[[], int], ended: bool, code: int
) -> None:
    worker = sleep()
    note(tmp_path, worker, local="1", keeper=GONE)
    journal(tmp_path, 0, pid=worker, port=7)
    found = elastic._here(tmp_path, PLAN).living[0].process
    assert found.poll() is None
    journal(tmp_path, 0, pid=worker, port=7, ended=ended)
    os.killpg(worker, signal.SIGKILL)

    assert found.wait() == code == found.returncode


def test_a_process_with_the_number_of_an_ended_worker_is_not_taken_for_it() -> None:
    assert Found(Known(os.getpid(), "0"), has_ended=lambda: False).poll() == -signal.SIGKILL
    assert not known(2**30).lives and known(os.getpid()).lives


def test_more_processes_than_seats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(BadFile, match="2 seats"):
        elastic._here(tmp_path, PLAN)


class Host:
    """Starts keepers as torchrun does, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keepers: list[subprocess.Popen[str]] = []

    def start(self, rank: int, *, restart: int) -> subprocess.Popen[str]:
        values = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": restart}
        with open(self.folder / f"said-{restart}-{rank}.txt", "w") as said:
            self.keepers.append(subprocess.Popen(
                [sys.executable, "-m", "sapper.mix.survive.worker", str(self.folder)], stdin=subprocess.DEVNULL, stderr=said, text=True,
                env=os.environ | {name: str(value) for name, value in values.items()},
            ))  # fmt: skip
        return self.keepers[-1]

    def said(self, rank: int, *, restart: int) -> str:
        return (self.folder / f"said-{restart}-{rank}.txt").read_text()

    def kept(self) -> dict[int, int]:
        """Local rank -> number of its worker that lives."""
        return {int(one.local): one.worker.pid for one in notes.living(self.folder)}

    def until(self, what: Callable[[], bool], *, within_s: float = 120.0) -> None:
        due = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < due, [path.read_text() for path in self.folder.glob("*.txt")]
            time.sleep(0.1)

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.kill()
            keeper.wait()
        for note in notes.living(self.folder):
            notes.end(note)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(PLAN))
    spec = Spec(plan=str(tmp_path / "plan.json"), model=str(tmp_path / "config.json"), steps=10**6)
    (tmp_path / NAME).write_bytes(msgspec.json.encode(spec))
    made = Host(tmp_path)
    yield made
    made.close()


def test_a_start_that_fails_leaves_a_folder_that_can_be_used_and_a_keeper_that_is_ended_leaves_its_worker(host: Host) -> None:
    first = [host.start(rank, restart=0) for rank in (0, 1)]
    host.until(lambda: len(host.kept()) == 2)
    early = host.kept()[0]
    os.killpg(host.kept()[1], signal.SIGKILL)  # before it can have met anybody: it is importing
    assert first[1].wait(60) == 1 and "SIGKILL" in host.said(1, restart=0)
    first[0].send_signal(signal.SIGHUP)
    assert first[0].wait(60) == 128 + signal.SIGHUP and "SIGHUP" in host.said(0, restart=0)
    assert notes.born(early) is not None and not underway.members(host.folder)

    second = [host.start(rank, restart=1) for rank in (0, 1)]
    host.until(lambda: len(underway.members(host.folder)) == 2)
    assert notes.born(early) is None
    second[1].send_signal(signal.SIGQUIT)
    assert second[1].wait(60) == 128 + signal.SIGQUIT and "SIGQUIT" in host.said(1, restart=1)
    second[0].send_signal(signal.SIGINT)
    assert second[0].wait(60) != 0
    host.until(lambda: list(host.kept()) == [1], within_s=20)


def test_fewer_processes_than_seats_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(BadFile, match=r"2 seats, torchrun starts 1 processes .*SP-MIX-211"):
        elastic._here(tmp_path, PLAN)


def test_torchrun_starts_the_command_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(PLAN))
    environment = {name: value for name, value in os.environ.items() if "TORCHELASTIC" not in name and name not in ("RANK", "LOCAL_RANK")}
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*agent, "-m", "sapper", "mix", "run", "plan.json", "--model", "config.json"]
    command += ["--steps", "2", "--out", "out", "--store", "seen.db"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("step 1: loss") == 1 and ran.stdout.count("done: 2 steps") == 1
    assert len(underway.members(tmp_path / "out")) == 2
    with Store.open(str(tmp_path / "seen.db")) as kept:  # by the first place alone
        assert sorted(record.metric for record in kept.records()) == ["throughput", "time"]

    refused = subprocess.run([*command, "--here", "g"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert refused.returncode and "--here: torchrun says where this process is" in refused.stderr
