"""Worker processes: whatever a job does to its process costs that job alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sapper.errors import SapperError
from sapper.prove.isolate import Answer, Job, Pool, Stopped
from support import environment

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def job(function: str, *, id: str = "job", fresh: bool = False, **payload) -> Job:
    return Job(id=id, function=f"isolated_jobs:{function}", payload=payload, fresh=fresh)


def answers(jobs: Sequence[Job], **options) -> dict[str, Answer]:
    with Pool("isolated_jobs:setup", {}, **options) as pool:
        return {one.id: one for one in pool.run(jobs)}


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, *, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(pid)


def test_a_worker_is_used_again_and_a_fresh_job_gets_one_of_its_own():
    jobs = [job("pid", id="1"), job("pid", id="2"), job("pid", id="3", fresh=True), job("pid", id="4")]
    found = answers(jobs)

    assert found["1"].value == found["2"].value != found["3"].value == found["4"].value


def test_what_a_stack_prints_is_no_answer():
    assert answers([job("noisy")])["job"].value == "quiet"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("segfault", "SIGSEGV"), ("fpe", "SIGFPE"), ("abort", "SIGABRT"), ("kill", "SIGKILL"), ("exit", "exit 7"),
    ],
)  # fmt: skip
def test_a_death_is_the_answer_of_its_job_alone(how: str, said: str):
    found = answers([job("add", id="before", a=1, b=2), job("die", how=how), job("add", id="after", a=3, b=4)])

    assert (found["before"].value, found["after"].value) == (3, 7)
    assert found["job"].status == "crash"
    assert found["job"].said is not None and found["job"].said.startswith(said)
    assert "last words of the stack" in found["job"].said


def test_sys_exit_is_a_crash_and_an_error_is_none():
    found = answers([
        job("die", id="exit", how="sysexit"), job("fail", id="value", kind="value"), job("fail", id="memory", kind="memory"),
        job("not_json", id="object"),
    ])  # fmt: skip

    assert {name: one.status for name, one in found.items()} == {
        "exit": "crash", "value": "raised", "memory": "memory", "object": "raised",
    }  # fmt: skip
    assert found["value"].said == "ValueError: no such mode"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_hang_is_ended(deaf: bool):
    found = answers([job("hang", deaf=deaf), job("add", id="after", a=1, b=1)], limit_s=0.5)

    assert (found["job"].status, found["after"].value) == ("hang", 2)
    assert 0.5 <= found["job"].wall_s < 5


def test_memory_that_swells_is_ended():
    found = answers([job("eat", size_bytes=2**29), job("add", id="after", a=1, b=1)], memory_bytes=2**28)

    assert (found["job"].status, found["after"].value) == ("memory", 2)


def test_memory_that_a_worker_has_gathered_does_not_count_against_the_next_job():
    found = answers([job("eat", id=str(n), size_bytes=2**27, hold_s=0.2) for n in range(3)], memory_bytes=2**28)

    assert [one.status for one in found.values()] == ["done"] * 3


def test_parts_before_a_death_are_kept_and_each_has_the_whole_limit():
    found = answers(
        [
            job("parts", id="whole", count=4, each_s=0.3), job("parts", id="dies", count=4, die_at=2),
            job("parts", id="hangs", count=4, hang_at=1),
        ],
        limit_s=1.0, workers=2,
    )  # fmt: skip

    assert (found["whole"].status, found["whole"].parts) == ("done", (0, 1, 2, 3))
    assert (found["dies"].status, found["dies"].parts) == ("crash", (0, 1))
    assert (found["hangs"].status, found["hangs"].parts) == ("hang", (0,))


def test_jobs_of_many_workers_are_all_answered_once():
    found = answers([job("add", id=str(n), a=n, b=n) for n in range(300)], workers=3)

    assert {name: one.value for name, one in found.items()} == {str(n): 2 * n for n in range(300)}


def test_jobs_are_asked_for_only_as_workers_fall_idle():
    asked = []

    def source():
        for n in range(50):
            asked.append(n)
            yield job("add", id=str(n), a=n, b=0)

    with Pool("isolated_jobs:setup", {}, workers=2) as pool:
        stream = pool.run(source())
        next(stream)
        assert len(asked) <= 4


@pytest.mark.parametrize(("payload", "words"), [({"raise": 1}, "libhccl.so"), ({"die": 1}, "SIGABRT")])
def test_a_setup_that_fails_is_an_error_and_not_the_end(payload: dict, words: str):
    with pytest.raises(SapperError, match=words), Pool("isolated_jobs:setup", payload) as pool:
        pool.start()


def test_no_worker_is_left_behind():
    with Pool("isolated_jobs:setup", {}, workers=2) as pool:
        pids = {one.value for one in pool.run([job("pid", id=str(n)) for n in range(8)])}
        assert all(is_alive(pid) for pid in pids)
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(how: signal.Signals, tmp_path: Path):
    path = tmp_path / "pid"
    code = (
        "from sapper.prove.isolate import Job, Pool\n"
        f"job = Job(id='1', function='isolated_jobs:write_then_sleep', payload={{'path': {str(path)!r}}})\n"
        "list(Pool('isolated_jobs:setup', {}).run([job]))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(PYTHONPATH=os.pathsep.join(sys.path)), stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 20
    while not (path.exists() and path.read_text("utf-8")) and time.monotonic() < end:
        time.sleep(0.05)
    worker = int(path.read_text("utf-8"))
    assert is_alive(worker)
    parent.send_signal(how)
    parent.wait()

    assert gone(worker)


def test_parts_are_told_as_they_come():
    told = []
    with Pool("isolated_jobs:setup", {}) as pool:
        for answer in pool.run([job("parts", count=3, die_at=2)], on_part=lambda id, part: told.append((id, part))):
            assert (answer.status, told) == ("crash", [("job", 0), ("job", 1)])


def test_a_pool_stopped_from_another_thread_gives_up_and_ends_its_workers():
    with Pool("isolated_jobs:setup", {}) as pool:
        pid = pool.ask(job("pid")).value
        threading.Timer(0.3, pool.stop).start()
        with pytest.raises(Stopped):
            pool.ask(job("hang"))
        assert gone(pid)
