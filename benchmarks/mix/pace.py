"""Two unlike processes under real limits: how much of their summed speed a mix keeps, and how soon it finds the best split.

    python benchmarks/mix/pace.py              # a table, under five minutes; --json FILE keeps the figures

Each process is held to a share of a core (sapper.mix.emulate says by what). The plan comes from `search` on profiles that the processes
measure under their limits. Solo and joint runs alternate; figures are medians over rounds. The machine's load stands beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sapper.mix.balance import Lane, best_counts
from sapper.mix.emulate import Limits, Link, World
from sapper.mix.emulate.job import free_port
from sapper.mix.plan import MixPlan, Pipeline, Stage, write_plan
from sapper.mix.problem import Problem
from sapper.mix.profiles import problem_of, read_own
from sapper.mix.profiles.problem import Fleet
from sapper.mix.search import search
from sapper.mix.simulate import simulate

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "src"
CONFIG = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
SEQ = 128
BATCH = 66
"""Sequences of a step: 44 to 22 and 54 to 12, so that rounding is not what is measured."""
RATIOS = {"2:1": (0.8, 0.4), "4.5:1": (0.9, 0.2)}
LINK = Link(rate_bytes_per_s=25e6)
BARS = {"2:1": 0.97, "4.5:1": 0.93, "link": 0.85}
SLOWER = 0.7
"""What is left of a chip's speed when it slows in the middle."""


@dataclass(frozen=True)
class Line:
    """The measured connection of two chips; a :class:`sapper.mix.problem.Network`."""

    reduce_latency_s: float
    reduce_bytes_per_s: float
    send_latency_s: float
    send_bytes_per_s: float

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """One message."""
        return self.send_latency_s + size_bytes / self.send_bytes_per_s

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """Over both chips."""
        return 0.0 if sum(members.values()) < 2 else self.reduce_latency_s + size_bytes / self.reduce_bytes_per_s


class Pair:
    """Two processes and the pipes to them."""

    def __init__(self, world: World, shares: Sequence[float], folder: Path) -> None:
        self.shares, self.folder = tuple(shares), folder
        setting = folder / "setting.json"
        setting.write_text(json.dumps({"config": CONFIG, "seq": SEQ}), "utf-8")
        env = {
            "WORLD_SIZE": "2", "MASTER_ADDR": world.address("0"), "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        command = [sys.executable, str(HERE / "pace_worker.py"), str(setting)]
        # They start at full speed and are held to their shares once PyTorch is loaded.
        self.chips = [
            world.start(
                str(rank), command, limits=Limits(cpu_share=1.0), island=str(rank), env={**env, "RANK": str(rank)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for rank in range(2)
        ]  # fmt: skip
        for rank in range(2):
            self._line(rank)
        self.hold(self.shares)

    def hold(self, shares: Sequence[float]) -> None:
        """Hold the chips to shares of a core."""
        for chip, share in zip(self.chips, shares, strict=True):
            chip.slow_to(share)

    def tell(self, rank: int, **command: Any) -> None:
        """Send a command."""
        pipe = self.chips[rank].process.stdin
        assert pipe is not None
        pipe.write(json.dumps(command).encode() + b"\n")
        pipe.flush()

    def answer(self, rank: int) -> Any:
        """The answer to the last command, whatever else is said before it."""
        while "answer" not in (line := self._line(rank)):
            pass
        return line["answer"]

    def both(self, **command: Any) -> list[Any]:
        """The same command to both."""
        for rank in range(2):
            self.tell(rank, **command)
        return [self.answer(rank) for rank in range(2)]

    def solo(self, rank: int, *, steps: int) -> float:
        """Sequences a second of one chip, while the other waits for its next command."""
        self.tell(rank, do="solo", batch=BATCH, steps=steps)
        return float(self.answer(rank)["per_s"])

    def joint(self, plan: MixPlan, *, steps: int, share: float | None = None) -> list[Any]:
        """Steps together."""
        path = self.folder / "plan.json"
        write_plan(path, plan)
        return self.both(do="joint", plan=str(path), steps=steps, share=share)

    def problem(self) -> Problem:
        """What the planner is told: both profiles and the connection, measured under the limits."""
        for rank in range(2):
            self.tell(rank, do="profile", out=str(self.folder / f"{rank}.json"), sizes=[1, 2], seconds=2.5, name=f"chip{rank}")
        for rank in range(2):
            self.answer(rank)
        profiles = [read_own(self.folder / f"{rank}.json") for rank in range(2)]
        gradient_bytes = int(4 * sum(profiles[0].held[0].params[kind] for kind in profiles[0].layers))
        small, large = 4096, gradient_bytes
        told = self.both(do="network", sizes=[small, large], repeats=7)
        fits = {what: _line_of(small, large, [max(one[what][at] for one in told) for at in (0, 1)]) for what in ("reduce_s", "send_s")}
        line = Line(*fits["reduce_s"], *fits["send_s"])
        fleets = [Fleet(name=f"chip{rank}", profile=profiles[rank], chips=1, chips_per_node=1, capacity_bytes=2**32) for rank in range(2)]
        return problem_of(fleets, line, global_batch=BATCH)

    def _line(self, rank: int) -> dict[str, Any]:
        pipe = self.chips[rank].process.stdout
        assert pipe is not None
        text = pipe.readline()
        if not text:
            raise SystemExit(f"process {rank} ended with {self.chips[rank].process.wait()}")
        return json.loads(text)  # type: ignore[no-any-return]


def _line_of(small: int, large: int, times_s: Sequence[float]) -> tuple[float, float]:
    """Latency and rate of a straight line through two sizes."""
    rate = (large - small) / max(times_s[1] - times_s[0], 1e-9)
    return max(times_s[0] - small / rate, 0.0), rate


@contextlib.contextmanager
def pair(shares: Sequence[float], *, link: Link | None = None) -> Iterator[Pair]:
    """Two processes, joined by ``link`` or by the machine's own loopback."""
    with tempfile.TemporaryDirectory() as folder, World(islands=["0", "1"] if link else [], link=link) as world:
        yield Pair(world, shares, Path(folder))


def kept(name: str, shares: Sequence[float], *, rounds: int, link: Link | None = None) -> dict[str, Any]:
    """Share of the summed solo speeds, and how the plan's promise held."""
    with pair(shares, link=link) as chips:
        problem = chips.problem()
        planned = search(problem)
        plan = planned.best
        assert plan is not None and plan.expected is not None
        clock_s = simulate(problem, plan).step_s
        chips.joint(plan, steps=1)
        solos: tuple[list[float], list[float]] = ([], [])
        joint, shares_kept = [], []
        for _ in range(rounds):
            for rank in range(2):
                solos[rank].append(chips.solo(rank, steps=1))
            told = chips.joint(plan, steps=2)
            joint.append(min(one["per_s"] for one in told))
            shares_kept.append(joint[-1] / (solos[0][-1] + solos[1][-1]))
        measured_s = BATCH / statistics.median(joint)
        used = chips.chips[0].used
    return {
        "rows": [one["rows"][-1] for one in told],
        "case": name, "chips": list(shares), "cpu": used.cpu, "wire": used.wire, "cut": shown(plan),
        "solo_per_s": [statistics.median(one) for one in solos], "joint_per_s": statistics.median(joint),
        "share_of_solo": statistics.median(shares_kept), "rounds": shares_kept,
        "planned_s": plan.expected.step_time.mid, "clock_s": clock_s, "measured_s": measured_s,
        "of_the_plan": plan.expected.step_time.mid / measured_s, "load": os.getloadavg()[0],
    }  # fmt: skip


def adapts(shares: Sequence[float], *, steps: int) -> dict[str, Any]:
    """From an even start, and when the first chip slows down in the middle."""
    with pair(shares) as chips:
        plan = even(BATCH)
        chips.joint(plan, steps=1)
        phases = []
        for start, held in ((plan, shares), (None, (shares[0] * SLOWER, shares[1]))):
            if start is not None:
                path = chips.folder / "even.json"
                write_plan(path, start)
                for rank in range(2):
                    chips.tell(rank, do="joint", plan=str(path), steps=2 * steps, share=0.02)
            chips.hold(held)
            for _ in range(steps):
                chips._line(0)
        rows = [chips.answer(rank)["rows"] for rank in range(2)]
        for phase in range(2):
            phases.append(distances([one[phase * steps : (phase + 1) * steps] for one in rows]))
        return {"chips": list(shares), "cpu": chips.chips[0].used.cpu, "even_start": phases[0], "slows": phases[1]}


def distances(rows: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Of each step: its split's time over the best split's, minus 1, by the chips' own times over the whole phase."""
    passes_s = [statistics.median(one["compute_s"] / one["counts"][rank] for one in rows[rank][1:]) for rank in range(2)]
    lanes = [Lane(passes_s=(passes_s[rank],), fixed_s=statistics.median(one["update_s"] for one in rows[rank])) for rank in range(2)]
    best = best_counts(lanes, BATCH)
    assert best is not None

    def end_s(counts: Sequence[int]) -> float:
        return max(lane.time_s(count) for lane, count in zip(lanes, counts, strict=True))

    found = [end_s(row["counts"]) / end_s(best) - 1.0 for row in rows[0]]
    counts, steps_s = ([row[name] for row in rows[0]] for name in ("counts", "step_s"))
    return {"best": list(best), "counts": counts, "distance": found, "step_s": steps_s}


def even(batch: int) -> MixPlan:
    """Half for each."""
    blocks = int(CONFIG["num_hidden_layers"])  # type: ignore[call-overload]
    parts = [Stage(group=f"chip{rank}", first=0, last=blocks + 2) for rank in range(2)]
    pipelines = tuple(Pipeline(stages=(part,), micro_batch=1, micro_batches=batch // 2) for part in parts)
    return MixPlan(
        model="pace", model_digest="", cluster="pace", cluster_digest="", layers=blocks, seq_len=SEQ, global_batch=batch, precision="fp32",
        pipelines=pipelines,
    )  # fmt: skip


def shown(plan: MixPlan) -> str:
    """A plan in a few characters: counts x size of each pipeline, stages by layers."""
    parts = []
    for one in plan.pipelines:
        stages = "+".join(f"{stage.group}[{stage.first}:{stage.last}]" for stage in one.stages)
        parts.append(f"{one.micro_batches}x{one.micro_batch} {stages}")
    return " | ".join(parts)


def table(found: dict[str, Any]) -> Iterator[str]:
    """What a person reads."""
    yield f"{found['cores']} cores, {found['kernel']}, held by {found['kept'][0]['cpu']}; {found['took_s']:.0f} s"
    for one in found["kept"]:
        yield (
            f"{one['case']:>12}: {one['share_of_solo']:.3f} of the sum of solo speeds; {one['of_the_plan']:.3f} of the plan's speed "
            f"(planned {one['planned_s']:.3f} s, simulated clock {one['clock_s']:.3f} s, measured {one['measured_s']:.3f} s); "
            f"{one['cut']}; load {one['load']:.1f}"
        )
    for name in ("even_start", "slows"):
        phase = found["adapts"][name]
        yield f"{name:>12}: " + ", ".join(
            f"{a}:{b} +{d:.1%}" for (a, b), d in zip(phase["counts"], phase["distance"], strict=True)
        ) + f"; best {phase['best'][0]}:{phase['best'][1]}"


def main() -> None:
    """Run, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", choices=[*RATIOS, "link", "adapts"], default=None)
    parser.add_argument("--json", default=None, metavar="FILE")
    arguments = parser.parse_args()
    start_s = time.monotonic()
    only = arguments.only
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "kernel": platform.release(), "kept": []}
    for name, shares in RATIOS.items():
        if only in (None, name):
            found["kept"].append(kept(name, shares, rounds=arguments.rounds))
            print(json.dumps(found["kept"][-1]), file=sys.stderr, flush=True)
    if only in (None, "link"):
        found["kept"].append(kept("2:1, 200 Mb/s", RATIOS["2:1"], rounds=arguments.rounds, link=LINK))
        print(json.dumps(found["kept"][-1]), file=sys.stderr, flush=True)
    if only in (None, "adapts"):
        found["adapts"] = adapts(RATIOS["2:1"], steps=8)
    found["took_s"] = time.monotonic() - start_s
    if only is None:
        print("\n".join(table(found)))
    else:
        print(json.dumps(found, indent=1))
    if arguments.json:
        Path(arguments.json).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
