"""Kill what torchrun started, on two hosts and in every phase of a step: a worker, a keeper, an agent, the store's host as a whole.

    python benchmarks/mix/torchrun_faults.py                  # needs the right to make network namespaces; about 20 s for each case
    python benchmarks/mix/torchrun_faults.py --what "store's host" --phase reduce

Each host is a network namespace with a host name of its own, in which torchrun starts two keepers (``-m sapper.mix.survive.worker``); the
first host's agent holds the store. The kill is SIGKILL from inside a worker at the first moment of a phase: of that worker itself, of its
keeper, of its host's agent, or of every process of its host at once. Then the rest of the run is waited for, and its last checkpoint and
all its losses are held against one process that nobody disturbed. The time to go on is from the kill until the last survivor can begin
its next step; where no member is lost there is no such change, and the longest time between two steps that a worker begins says it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sapper.mix.checkpoint.read import open_checkpoint
from sapper.mix.emulate import Link
from sapper.mix.emulate.network import Island, lay
from sapper.mix.plan import MixPlan, Pipeline, Stage, write_plan
from sapper.mix.survive import notes
from sapper.mix.survive.spec import NAME, Spec
from sapper.mix.survive.trainer import PHASES

CONFIG = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
WHAT = ("worker", "keeper", "agent", "store's agent", "host", "store's host")
STEPS, EVERY, STEP, AFTER_CHECKPOINT = 8, 2, 3, 4
WORLD, ON_HOST = 4, 2
LIMIT_S = 240.0
HOOK = "SAPPER_BENCHMARK_FAULT"


@dataclass(frozen=True)
class Case:
    """One kill, from inside the worker of ``rank``."""

    what: str
    phase: str
    rank: int

    @property
    def victims(self) -> tuple[int, ...]:
        """Ranks that are lost."""
        first = self.rank // ON_HOST * ON_HOST
        if self.what == "worker":
            return (self.rank,)
        return tuple(range(first, first + ON_HOST)) if self.what in ("host", "store's host") else ()


def cases(whats: Sequence[str], phases: Sequence[str]) -> Iterator[Case]:
    """Each in each phase; the rank goes round, on the host that it has to be on."""
    for what in whats:
        for at, phase in enumerate(phases):
            first = 0 if what.startswith("store's") else ON_HOST if what in ("agent", "host") else None
            yield Case(what, phase, at % WORLD if first is None else first + at % ON_HOST)


def plan_of(*, alone: bool) -> MixPlan:
    """Two pipelines of unequal stages and micro-batches, one for each host; or one process with the whole batch."""
    if alone:
        pipelines = (Pipeline(stages=(Stage(group="fast", first=0, last=6),), micro_batch=1, micro_batches=8),)
    else:
        pipelines = tuple(
            Pipeline(
                stages=(Stage(group=group, first=0, last=cut), Stage(group=group, first=cut, last=6)), micro_batch=size, micro_batches=count
            )
            for group, cut, size, count in (("fast", 4, 2, 3), ("slow", 2, 1, 2))
        )
    return MixPlan(
        model="llama", model_digest="", cluster="c", cluster_digest="", layers=4, seq_len=16, precision="fp64", wire="fp64",
        global_batch=8, pipelines=pipelines,
    )  # fmt: skip


def prepare(folder: Path, *, alone: bool) -> None:
    """The folder of a run."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    write_plan(folder / "plan.json", plan_of(alone=alone))
    spec = Spec(
        plan=str(folder / "plan.json"), model=str(folder / "config.json"), steps=STEPS, clip=0.5, lr=1e-2,
        checkpoints=str(folder / "checkpoints"), every=EVERY, keep=STEPS,
    )  # fmt: skip
    (folder / NAME).write_bytes(msgspec.json.encode(spec))


def inside() -> None:
    """In each worker, called by ``sitecustomize``: tell the moments of its phases, and kill at the one that is asked for."""
    from sapper.mix.survive.trainer import Trainer, Watch

    asked = msgspec.json.decode(os.environ[HOOK])
    rank = int(os.environ.get("SAPPER_MIX_RANK", "-1"))
    made = Trainer.__init__

    def init(self: Trainer, *args: Any, **values: Any) -> None:
        made(self, *args, **values)
        watch = self.watch

        def write(kind: str, **more: Any) -> None:
            with open(asked["told"], "ab") as file:
                file.write(msgspec.json.encode({"kind": kind, "rank": rank, "pid": os.getpid(), "at_s": time.monotonic(), **more}) + b"\n")

        def phase(name: str, step: int) -> None:
            if name == "between":
                write("begins", step=step)
            if (name, step, rank) == (asked["phase"], asked["step"], asked["rank"]):
                write("kill")
                _kill(asked["what"], Path(asked["folder"]))

        def change(one: Any) -> None:
            write("change", undone=one.undone, source=one.source, members=len(one.members), step=one.step)
            watch.change(one)

        self.watch = Watch(phase=phase, step=watch.step, change=change, fault=watch.fault)

    Trainer.__init__ = init  # type: ignore[method-assign]


def _kill(what: str, folder: Path) -> None:
    own = os.getpid()
    if what == "worker":
        os.kill(own, signal.SIGKILL)
    elif what in ("keeper", "agent", "store's agent"):
        note = next(one for one in notes.living(folder) if one.worker.pid == own)
        os.kill(note.keeper.pid if what == "keeper" else note.agent.pid, signal.SIGKILL)
    else:
        space = os.readlink("/proc/self/ns/net")
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns/net") == space:
                    found.append(int(entry.name))
        for pid in sorted(found, key=lambda one: one == own):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def islands() -> Iterator[list[Island]]:
    """Two hosts that reach each other at 1 Gbit/s."""
    made: list[str] = []
    try:
        yield lay([str(at) for at in range(WORLD // ON_HOST)], Link(rate_bytes_per_s=125e6), made=made.append)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def agents(case: Case, folder: Path, hosts: Sequence[Island]) -> list[subprocess.Popen[bytes]]:
    """Torchrun on each host."""
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if {'SAPPER_MIX_RANK', 'SAPPER_MIX_DOORS'} & os.environ.keys():\n"
        f"    sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "    import torchrun_faults\n"
        "    torchrun_faults.inside()\n",
        "utf-8",
    )
    step = AFTER_CHECKPOINT if case.phase == "checkpoint" else STEP
    asked = {
        "what": case.what, "phase": case.phase, "step": step, "rank": case.rank, "folder": str(folder), "told": str(folder / "told.jsonl"),
    }  # fmt: skip
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]), HOOK: json.dumps(asked), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    found = []
    for at, host in enumerate(hosts):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(hosts)), "--nproc-per-node", str(ON_HOST), "--node-rank",
            str(at), "--master-addr", hosts[0].address, "--master-port", "29400", "-m", "sapper.mix.survive.worker", str(folder),
        ]  # fmt: skip
        line = host.command(["unshare", "--uts", "sh", "-c", f'hostname host{at}; exec "$@"', "sh", *command])
        with open(folder / f"agent-{at}.txt", "wb") as said:
            found.append(subprocess.Popen(line, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said))
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """What has been written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def journals(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Of all members."""
    return {path.stem: lines(path) for path in sorted(folder.glob("member-*.jsonl"))}


def run(case: Case, folder: Path, truth: Path) -> dict[str, Any]:
    """One case."""
    with islands() as hosts:
        prepare(folder, alone=False)
        started = agents(case, folder, hosts)
        try:
            due = time.monotonic() + LIMIT_S
            while not _is_over(case, folder):
                if time.monotonic() > due:
                    return {"survived": False, "why": f"no end within {LIMIT_S:g} s"}
                time.sleep(0.1)
            codes = _codes(started)
        finally:
            _end(folder, started)
    return _judged(case, folder, truth) | {"torchrun": codes}


def _is_over(case: Case, folder: Path) -> bool:
    """Whether all of the first members that were not killed came to the end."""
    ended = sum(any(one["kind"] == "end" for one in told) for name, told in journals(folder).items() if int(name[7:]) < WORLD)
    return ended == WORLD - len(case.victims)


def _codes(started: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """How the agents ended; None: one that did not within some seconds."""
    found: list[int | None] = []
    for one in started:
        try:
            found.append(one.wait(20))
        except subprocess.TimeoutExpired:
            found.append(None)
    return found


def _end(folder: Path, started: Sequence[subprocess.Popen[bytes]]) -> None:
    for one in started:
        if one.poll() is None:
            one.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(20)
        one.kill()
        one.wait()
    for path in folder.glob("kept-*.json"):
        note = msgspec.json.decode(path.read_bytes(), type=notes.Note)
        for known in (note.keeper, note.worker):
            if known.lives:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(known.pid, signal.SIGKILL)


def _judged(case: Case, folder: Path, truth: Path) -> dict[str, Any]:
    told = lines(folder / "told.jsonl")
    killed_s = [one["at_s"] for one in told if one["kind"] == "kill"]
    if not killed_s:
        return {"survived": False, "why": "nothing was killed"}
    changes = [one for one in told if one["kind"] == "change" and one["members"] < WORLD]
    first = min((one["members"] for one in changes), default=0)
    apart = 0.0
    one, other = (open_checkpoint(at / "checkpoints", step=STEPS) for at in (folder, truth))
    if set(one.weights) != set(other.weights):
        return {"survived": False, "why": f"weights {sorted(set(one.weights) ^ set(other.weights))}"}
    for name in one.weights:
        apart = max(apart, float((one.tensor(name) - other.tensor(name)).abs().max()))
    losses, due = losses_of(folder), losses_of(truth)
    if losses.keys() != due.keys():
        return {"survived": False, "why": f"losses of steps {sorted(losses)}"}
    return {
        "survived": True, "why": "", "apart": apart, "loss_apart": max(abs(losses[step] - due[step]) for step in due),
        "on_s": max((one["at_s"] for one in changes if one["members"] == first), default=killed_s[0]) - killed_s[0] if changes else None,
        "longest_s": _longest_s(told, killed_s[0]), "lost_steps": max((one["undone"] for one in changes), default=0),
        "changes": len(changes), "members": min((one["members"] for one in changes), default=WORLD),
    }  # fmt: skip


def losses_of(folder: Path) -> dict[int, float]:
    """Step -> loss."""
    return {one["step"]: one["loss"] for told in journals(folder).values() for one in told if one["kind"] == "step"}


def _longest_s(told: Sequence[dict[str, Any]], since_s: float) -> float:
    """Between two steps that a worker begins, the later one after ``since_s``."""
    found = 0.0
    for pid in {one["pid"] for one in told}:
        begun_s = [one["at_s"] for one in told if one["kind"] == "begins" and one["pid"] == pid]
        found = max([found, *(later - earlier for earlier, later in itertools.pairwise(begun_s) if later > since_s)])
    return found


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--what", choices=WHAT, action="append", default=None)
    parser.add_argument("--phase", choices=PHASES, action="append", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="folder in which the runs are kept")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = asked.keep or Path(name)
        truth = root / "alone"
        prepare(truth, alone=True)
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        subprocess.run([*command, "-m", "sapper.mix.survive.worker", str(truth)], check=True, env=env, capture_output=True)
        head = f"{'goes on, s':>10} {'longest step, s':>15} {'lost':>4} {'|dw| max':>9}  load"
        print(f"{'SIGKILL of':14} {'in':11} {'rank':>4} {'survives':8} {head}")
        for at, case in enumerate(cases(asked.what or WHAT, asked.phase or PHASES)):
            found = run(case, root / f"case-{at}", truth)
            rows.append({"what": case.what, "phase": case.phase, "rank": case.rank, "load": os.getloadavg()[0], **found})
            end = found["why"]
            if found["survived"]:
                on = "-" if found["on_s"] is None else f"{found['on_s']:.2f}"
                end = f"{on:>10} {found['longest_s']:15.2f} {found['lost_steps']:4} {found['apart']:9.1e}"
            survives = "yes" if found["survived"] else "NO"
            print(f"{case.what:14} {case.phase:11} {case.rank:4} {survives:8} {end}  {os.getloadavg()[0]:.1f}", flush=True)
    fine = [row for row in rows if row["survived"]]
    print(f"{len(fine)} of {len(rows)} survive; slowest {max((row['on_s'] or 0.0 for row in fine), default=0.0):.2f} s")
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0 if len(fine) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
