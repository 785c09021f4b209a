"""Unlike chips from like cores: what holds a process, and that nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapper.errors import BadValue
from sapper.mix.emulate import Allowed, Limits, Link, Pace, Toll, World, cgroup, network, probe
from sapper.mix.emulate.duty import clock_of
from sapper.mix.emulate.job import chip_of, free_port
from sapper.mix.emulate.limits import link_of
from support import Run, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups, duty cycles and namespaces are Linux's")

ALLOWED = probe() if sys.platform == "linux" else None
SPIN = "while True: pass"
SHARE = "import time; s = time.monotonic()\nwhile time.monotonic() - s < 0.8: pass\nprint(time.process_time() / 0.8)"


def allowed() -> Allowed:
    assert ALLOWED is not None
    return ALLOWED


def python(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


def until(true: Callable[[], bool], *, limit_s: float = 10.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not true() and time.monotonic() < end_s:
        time.sleep(0.02)
    return true()


@pytest.mark.slow
@pytest.mark.parametrize("means", ["cgroup-v1", "cgroup-v2", "duty-cycle"])
def test_a_process_gets_its_share_of_a_core_and_no_more(means: cgroup.Version) -> None:
    if means not in allowed().cpu:
        pytest.skip(f"{means}: {allowed().refused.get(f'cpu {means}')}")
    with World(cpu=means, allowed=allowed()) as world:
        started = [
            world.start(name, python(SHARE), limits=Limits(cpu_share=share), stdout=subprocess.PIPE)
            for name, share in (("slow", 0.2), ("slower/one", 0.1))
        ]
        shares = [float(one.process.communicate(timeout=30)[0]) for one in started]

    assert [one.used.cpu for one in started] == [means, means]
    assert shares[0] < 0.3 and shares[1] < 0.17  # a busy machine gives less; nothing gives more


def test_a_share_can_change_while_the_process_runs() -> None:
    means = next(one for one in allowed().cpu if one != "paced")
    with World(cpu=means, allowed=allowed()) as world:
        one = world.start("chip", python(SPIN), limits=Limits(cpu_share=0.9))
        one.slow_to(0.05)
        time.sleep(0.1)
        before_s = time.clock_gettime(clock_of(one.process.pid))
        time.sleep(0.4)
        assert time.clock_gettime(clock_of(one.process.pid)) - before_s < 0.1


def test_what_paces_itself_cannot_be_slowed_from_outside() -> None:
    with World(cpu="paced", allowed=allowed()) as world:
        text = "import os; print(os.environ['SAPPER_MIX_PACE'])"
        one = world.start("chip", python(text), limits=Limits(cpu_share=0.25), stdout=subprocess.PIPE)
        assert one.process.communicate(timeout=30)[0].split() == [b"0.25"]
        with pytest.raises(BadValue) as caught:
            one.slow_to(0.1)
    assert caught.value.code == "SP-MIX-222"
    assert Pace.of_environment({"SAPPER_MIX_PACE": "0.25"}).share == 0.25 and Pace.of_environment({}).share == 1.0


def test_memory_beyond_the_limit_is_not_to_be_had() -> None:
    with World(allowed=allowed()) as world:
        one = world.start("chip", python("bytearray(300 << 20)"), limits=Limits(memory_bytes=64 << 20), stderr=subprocess.DEVNULL)
        assert one.process.wait(timeout=30) != 0
        assert one.used.memory == allowed().memory[0]


SETS_UP = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
from sapper.mix.emulate import Limits, Link, World
with World(islands=["a", "b"], link=Link(rate_bytes_per_s=1e7)) as world:
    one = world.start("chip", [sys.executable, "-c", "while True: pass"], limits=Limits(cpu_share=0.05, memory_bytes=1 << 30), island="a")
    print(one.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_however_it_ends(end: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SETS_UP], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    mark = f"sapper-{parent.pid}"
    parent.send_signal(end)
    try:
        parent.communicate(timeout=30)
    finally:
        parent.kill()

    assert until(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    assert until(lambda: not list(cgroup.ROOT.glob(f"**/{mark}-*")))
    assert until(lambda: not list(Path("/run/netns").glob(f"{mark}-*")))


def test_islands_reach_each_other_and_nothing_else() -> None:
    if "tbf" not in allowed().wire:
        pytest.skip(str(allowed().refused.get("wire tbf")))
    ask = "import socket, sys; s = socket.create_connection((sys.argv[1], 5000), 5); print(s.recv(9).decode())"
    answer = "import socket; s = socket.create_server(('', 5000)); print(flush=True); s.accept()[0].sendall(b'here')"
    with World(islands=["a", "b"], link=Link(rate_bytes_per_s=25e6), allowed=allowed()) as world:
        one = world.start("server", python(answer), island="a", stdout=subprocess.PIPE)
        assert one.process.stdout is not None
        one.process.stdout.readline()
        other = world.start("client", [*python(ask), world.address("a")], island="b", stdout=subprocess.PIPE)
        assert other.process.communicate(timeout=30)[0].split() == [b"here"]
        assert other.used.wire == "tbf"
        one.process.communicate(timeout=30)


def test_a_toll_holds_messages_to_the_rate_and_the_latency() -> None:
    toll = Toll(rate_bytes_per_s=1e6, latency_s=0.01)
    start_s = time.monotonic()
    toll.pay(20_000)
    toll.pay(20_000)

    assert time.monotonic() - start_s >= 0.05
    assert Toll.of_environment({}) is None
    read = Toll.of_environment({"SAPPER_MIX_TOLL": "25000000.0,0.001"})
    assert read is not None and (read.rate_bytes_per_s, read.latency_s) == (25e6, 0.001)


def test_a_paced_piece_of_work_takes_what_a_slower_chip_would() -> None:
    start_s, own_s = time.monotonic(), time.thread_time()
    with Pace(0.25).work():
        while time.thread_time() - own_s < 0.02:
            pass
    assert time.monotonic() - start_s >= 0.08


def test_version_2_is_written_as_its_documentation_says(tmp_path: Path) -> None:
    """On a copy of its files: which version a machine has is not for a test to choose."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    made: list[str] = []
    group = cgroup.make("cgroup-v2", "cpu", name="one", limits=Limits(cpu_share=0.4), root=tmp_path, made=made.append)

    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (group.path / "cpu.max").read_text() == "8000 20000"
    assert made == [str(tmp_path / "one")]


def test_a_means_that_does_not_work_here_is_refused_by_name() -> None:
    nothing = Allowed(
        cpu=("paced",), memory=("rlimit",), wire=("toll",), wire_latency=("toll",), cores=1, load=None, kernel="-",
        refused={"cpu cgroup-v1": "Permission denied"},
    )  # fmt: skip
    with pytest.raises(BadValue, match="Permission denied") as caught:
        World(cpu="cgroup-v1", allowed=nothing)
    assert caught.value.code == "SP-MIX-220"


@pytest.mark.parametrize("text", ["fast", "fast=", "=0.5", "fast=0", "fast=0.5,no"])
def test_a_chip_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        chip_of(text, where="--chip")


def test_chips_and_links_are_read() -> None:
    assert chip_of("slow=0.4,2GiB", where="-").limits == Limits(cpu_share=0.4, memory_bytes=2 << 30)
    assert chip_of("slow=150%", where="-").limits == Limits(cpu_share=1.5)
    assert link_of("200Mb/s,1ms", where="-") == Link(rate_bytes_per_s=25e6, latency_s=0.001)
    assert network.Island(name="a", namespace="n", address="10.213.0.1").command(["true"])[-1] == "true"
    assert free_port() != free_port()


@pytest.mark.slow
def test_the_command_runs_as_ranks_and_says_what_held_them(run_sapper: Run) -> None:
    chips = ("--chip", "fast=0.9", "--chip", "slow=0.5")
    done = run_sapper("mix", "emulate", *chips, "--", "sh", "-c", "echo $RANK of $WORLD_SIZE")
    assert sorted(done.stdout.split("\n")) == ["", "0 of 2", "1 of 2"] and done.returncode == 0
    assert "rank 1, slow: 0.5 of a core by" in done.stderr

    done = run_sapper("mix", "emulate", *chips, "--by", "paced", "--", "sh", "-c", "[ $RANK = 0 ] && sleep 60; exit 3")
    assert done.returncode == 1 and "slow (1): 3" in done.stderr

    assert run_sapper("mix", "emulate", "--", "true").returncode == 2
    assert "duty-cycle" in run_sapper("mix", "emulate").stdout
