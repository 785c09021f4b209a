"""One emulated chip of benchmarks/mix/pace.py: takes commands as JSON lines on stdin and answers on stdout.

    {"do": "profile", "out": FILE}              its own times, as `sapper mix profile` measures them
    {"do": "network", "sizes": [BYTES, ...]}    seconds of an all-reduce and of a message, by size
    {"do": "solo", "batch": N, "steps": N}      the whole batch on this chip alone; the others wait
    {"do": "joint", "plan": FILE, "steps": N, "share": SHARE or null}    steps together, re-planned where a share is given
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

import torch
from sapper.mix.measure import Question, measure
from sapper.mix.plan import MixPlan, Pipeline, Stage, read_plan, seats
from sapper.mix.profiles import write_own
from sapper.mix.run.comm import Alone, GlooComm
from sapper.mix.run.job import Job
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.runner import Runner

TIMEOUT_S = 120.0


class Drawn:
    """Sequences of drawn tokens, made once: the benchmark times training, not drawing."""

    def __init__(self, *, vocab: int, seq: int) -> None:
        self._pool = torch.randint(0, vocab, (64, seq), generator=torch.Generator().manual_seed(0))

    def batch(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """See :class:`sapper.mix.run.data.Data`."""
        ids = self._pool[[number % len(self._pool) for number in numbers]]
        return {"input_ids": ids, "labels": ids}

    def weight(self, inputs: Any) -> float:
        """Labels."""
        return float(inputs["labels"][:, 1:].numel())


class Worker:
    """A rank."""

    def __init__(self, config: dict[str, Any], *, seq: int) -> None:
        self.rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(host, port, size, is_master=self.rank == 0, timeout=timedelta(seconds=TIMEOUT_S))
        self.comms = {seat: self._comm(seat, size) for seat in (self.rank, 1 - self.rank)}
        """By own rank: the seat of a chip differs from plan to plan."""
        self.comm = self.comms[self.rank]
        self.seq = seq
        self.model = ConfigModel(config=config, name="pace")
        self.data = Drawn(vocab=config["vocab_size"], seq=seq)
        self.blocks = int(config["num_hidden_layers"])
        self.runners: dict[str, Runner] = {}
        self.solo(batch=2, steps=1)

    def _comm(self, seat: int, size: int) -> GlooComm:
        # rank 0 of one communicator is rank 1 of the other
        first_sits = seat == self.rank
        store = dist.PrefixStore("straight" if first_sits else "crossed", self.store)
        return GlooComm(store, rank=seat, size=size, timeout_s=TIMEOUT_S)

    def profile(self, *, out: str, sizes: Sequence[int], seconds: float, name: str) -> dict[str, Any]:
        """Its profile; the others measure theirs at the same time, each in its own share."""
        question = Question(
            model=self.model, data=self.data, seq_len=self.seq, micro_batches=tuple(sizes), seconds=seconds, name=name,
            conditions=os.environ.get("SAPPER_MIX_EMULATED", ""),
        )  # fmt: skip
        write_own(out, measure(question))
        return {}

    def network(self, *, sizes: Sequence[int], repeats: int) -> dict[str, Any]:
        """Seconds of an all-reduce and of a message there and back, halved; medians."""
        found: dict[str, Any] = {"reduce_s": [], "send_s": []}
        for size in sizes:
            block = torch.zeros(size // 4)
            times: dict[str, list[float]] = {"reduce_s": [], "send_s": []}
            for _ in range(repeats):
                self.comm.sum([0.0])
                start_s = time.perf_counter()
                self.comm.reduce(block, members=(0, 1)).wait()
                times["reduce_s"].append(time.perf_counter() - start_s)
                self.comm.sum([0.0])
                start_s = time.perf_counter()
                if self.rank == 0:
                    self.comm.send([block], to=1, tag="probe")
                    self.comm.receive(source=1, tag="probe")
                else:
                    self.comm.send(self.comm.receive(source=0, tag="probe"), to=0, tag="probe")
                self.comm.flush()
                times["send_s"].append((time.perf_counter() - start_s) / 2.0)
            for what, taken in times.items():
                found[what].append(sorted(taken)[len(taken) // 2])
        return found

    def solo(self, *, batch: int, steps: int) -> dict[str, Any]:
        """Sequences a second of this chip alone."""
        part = Stage(group="alone", first=0, last=self.blocks + 2)
        plan = self._plan((Pipeline(stages=(part,), micro_batch=1, micro_batches=batch),), batch)
        runner = self.runners.get("solo")
        if runner is None:
            runner = self.runners["solo"] = Runner(self._job(plan), Alone())
        runner.follow(plan)
        start_s = time.perf_counter()
        for _ in range(steps):
            runner.step()
        return {"per_s": batch * steps / (time.perf_counter() - start_s)}

    def joint(self, *, plan: str, steps: int, share: float | None) -> dict[str, Any]:
        """Steps of all chips together; rows by step."""
        asked = read_plan(plan)
        seat = next(one for one in seats(asked) if one.group == f"chip{self.rank}")
        part, comm = asked.pipelines[seat.pipeline].stages[seat.stage], self.comms[seat.rank]
        key = f"{seat.rank}: {part.first}-{part.last}, {share}"
        runner = self.runners.get(key)
        if runner is None:
            runner = self.runners[key] = Runner(self._job(asked), comm)
        runner.follow(asked)
        if share is not None:
            runner.replan(share)
        rows = []
        comm.sum([0.0])
        start_s = time.perf_counter()
        for _ in range(steps):
            counts, cpu_s = [one.micro_batches for one in runner.job.plan.pipelines], time.process_time()
            log = runner.step()
            times = {name: getattr(log, name) for name in ("step_s", "compute_s", "update_s", "reduce_s")}
            rows.append({"counts": counts, "cpu_s": time.process_time() - cpu_s, **times})
            if share is not None:
                print(json.dumps({"step": log.step}), flush=True)
        return {"per_s": asked.global_batch * steps / (time.perf_counter() - start_s), "rows": rows}

    def _plan(self, pipelines: tuple[Pipeline, ...], batch: int) -> MixPlan:
        return MixPlan(
            model="pace", model_digest="", cluster="pace", cluster_digest="", layers=self.blocks, seq_len=self.seq, global_batch=batch,
            precision="fp32", pipelines=pipelines,
        )  # fmt: skip

    def _job(self, plan: MixPlan) -> Job:
        return Job(plan=plan, model=self.model, data=self.data, steps=1)


def main() -> None:
    """Answer until stdin closes."""
    torch.set_num_threads(1)
    setting = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    worker = Worker(setting["config"], seq=setting["seq"])
    print(json.dumps({"ready": worker.rank}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(worker, command.pop("do"))(**command)
        print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    main()
