"""Kill every rank of a mixed job in every phase of a step: who survives, how soon, what is lost, and whether the weights are right.

    python benchmarks/mix/faults.py                 # all ranks, all phases, three shapes of plan
    python benchmarks/mix/faults.py --quick         # one rank for each phase
    python benchmarks/mix/faults.py --hang          # SIGSTOP in place of SIGKILL: a process that is there and says nothing
    python benchmarks/mix/faults.py --several       # several losses, in recovery too, and all of them coming back

A process is killed by SIGKILL from inside, at the first moment of the phase in the chosen step. The time to go on is from that moment
until the last survivor can begin its next step (new plan, new seats, state restored), on one clock of the machine. Weights are
compared with the same job on one device that nobody disturbed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sapper.mix.balance.shift import Passes
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.shard import OPTIMIZER, Box
from sapper.mix.emulate.job import free_port
from sapper.mix.plan import MixPlan, Pipeline, Stage, seats
from sapper.mix.run import follow
from sapper.mix.run.data import Tokens
from sapper.mix.run.job import Job
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.runner import Reference
from sapper.mix.survive.join import Origin, knock, start
from sapper.mix.survive.member import View
from sapper.mix.survive.peers import Peers
from sapper.mix.survive.state import live
from sapper.mix.survive.trainer import PHASES, Change, Saving, Trainer, Watch, take_part
from sapper.mix.wire.link import Limits

LIMIT_S = 90.0
CONFIG = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def chain(*edges: int, group: str, micro_batch: int = 1, micro_batches: int = 2, copies: int = 1, **degrees: int) -> Pipeline:
    """A pipeline whose stages end where ``edges`` say."""
    stages = tuple(Stage(group=group, first=first, last=last, **degrees) for first, last in itertools.pairwise((0, *edges)))
    return Pipeline(stages=stages, micro_batch=micro_batch, micro_batches=micro_batches, copies=copies)


PLANS = {
    "two unequal pipelines": (chain(4, 6, group="fast", micro_batch=2, micro_batches=3), chain(2, 6, group="slow")),
    "one pipeline, mirrored": (chain(2, 4, 6, group="fast", micro_batches=4),),
    "data parallel 5:2:1": (
        chain(6, group="fast", micro_batches=5), chain(6, group="slow", micro_batches=2), chain(6, group="slow", micro_batches=1)
    ),
    "tensor parallel 2 beside 1": (chain(3, 6, group="fast", tp=2, micro_batches=3), chain(6, group="slow")),
    "states shared by three": (chain(6, group="fast", zero=1, copies=2), chain(6, group="fast", zero=1, micro_batches=1)),
    "weights shared by two": (chain(3, 6, group="fast", zero=3, copies=2), chain(6, group="slow", micro_batches=1)),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One fault; ``rank`` -1: none."""

    plan: str
    rank: int
    phase: str
    step: int = 3
    steps: int = 6
    how: int = signal.SIGKILL
    silent_s: float = 10.0
    """Without a sign of life a member counts as lost."""
    also: tuple[tuple[int, str, int], ...] = ()
    """Further losses: rank, phase (also ``regroup`` and ``restore``, in which the others recover) and step."""
    back: bool = False
    """Whether processes come in the place of those that were lost, all at once."""
    replan: float | None = None
    """See :attr:`sapper.mix.run.job.Job.replan`."""
    slow: tuple[tuple[int, float], ...] = ()
    """Ranks that tell that they are slowed down, and to what share of their speed; all ranks tell times without noise then, since on a
    machine that others use as well layers rightly stay where they are."""

    @property
    def lost(self) -> tuple[int, ...]:
        """Ranks that are lost."""
        return tuple(rank for rank in (self.rank, *(one[0] for one in self.also)) if rank >= 0)


class Changed(NamedTuple):
    """A change that a member has behind it."""

    at_s: float
    epoch: int
    step: int
    undone: int
    source: str
    members: int
    planned: str
    cuts: list[list[int]]
    took_s: float


def plan_of(name: str) -> MixPlan:
    """A plan of :data:`PLANS`."""
    pipelines = PLANS[name]
    return MixPlan(
        model="llama", model_digest="0", cluster="c", cluster_digest="1", layers=4, seq_len=16, precision="fp64", wire="fp64",
        global_batch=sum(one.sequences for one in pipelines), pipelines=pipelines,
    )  # fmt: skip


def job_of(case: Case) -> Job:
    """The job of a case."""
    data = Tokens(vocab=96, seq=16, masked=0.2, ragged=True)
    model = ConfigModel(config=CONFIG)
    return Job(plan=plan_of(case.plan), model=model, data=data, steps=case.steps, clip=0.5, lr=1e-2, replan=case.replan)


def member(case: Case, rank: int, *, port: int, folder: str, answers: Any, doors: list[tuple[str, int]] | None = None) -> None:
    """One process of a case."""
    torch.set_num_threads(1)
    job = job_of(case)
    at: list[Trainer] = []
    if case.slow:
        pace = dict(case.slow).get(rank, 1.0)
        follow.parts_of = lambda passes_s: Passes((_layers(at[-1]) / pace,) * 2)
    origin = Origin(group=seats(job.plan)[rank].group, machine=f"machine {rank}", plan=job.plan.digest, model="0")
    limits = Limits(beat_s=0.25, silent_s=case.silent_s, meet_s=60.0)

    def phase(name: str, step: int) -> None:
        if doors is None and (rank, name, step) in ((case.rank, case.phase, case.step), *case.also):
            answers.put(("fault", rank, time.monotonic()))
            time.sleep(0.05)  # for the queue's thread
            os.kill(os.getpid(), case.how)

        if case.back and name == "between" and step > case.step:
            time.sleep(0.4)  # so that those who come back find the run still under way

    def change(one: Change) -> None:
        cuts = [[stage.last for stage in pipeline.stages] for pipeline in one.plan.pipelines]
        answers.put(("change", rank, Changed(
            time.monotonic(), epoch=one.epoch, step=one.step, undone=one.undone, source=one.source, members=len(one.members),
            planned=one.planned, cuts=cuts, took_s=one.took_s,
        )))  # fmt: skip

    watch = Watch(phase=phase, change=change)

    def come() -> tuple[Peers, View]:
        if doors is not None:
            return knock(doors, origin=origin, limits=limits)
        peers, view = start(job.plan, rank, at=("127.0.0.1", port), origin=origin, limits=limits, ledger=Ledger())
        answers.put(("door", rank, peers.address))
        return peers, view

    try:
        saving = Saving(Path(folder), every=2)
        trainer = take_part(come, lambda peers: made(at, Trainer(job, peers, origin=origin, saving=saving, watch=watch)))
    except BaseException as error:
        answers.put(("failed", rank, f"{type(error).__name__}: {error}"))
        raise
    held = [] if trainer.runner is None else [
        (name, tuple(one.box), one.tensor.detach().clone()) for name, shards in live(trainer.runner).items()
        if not name.startswith(OPTIMIZER) for one in shards
    ]  # fmt: skip
    ledger = trainer.ledger
    torch.save((held, ledger.step, ledger.sample, len(ledger.undone)), Path(folder) / f"end-{rank}{'' if doors is None else '-back'}.pt")
    answers.put(("end", rank if doors is None else -1 - rank, None))
    trainer.peers.close()


def made(into: list[Trainer], trainer: Trainer) -> Trainer:
    """``trainer``, kept in ``into``."""
    into.append(trainer)
    return trainer


def _layers(trainer: Trainer) -> int:
    assert trainer.runner is not None
    seat = seats(trainer.runner.job.plan)[trainer.runner.comm.rank]
    return len(trainer.runner.job.plan.pipelines[seat.pipeline].stages[seat.stage].layers)


def within(box: Box) -> tuple[slice, ...]:
    """Where a box lies in its tensor."""
    return tuple(slice(start, start + size) for start, size in zip(box.offset, box.size, strict=True))


class World:
    """Processes of one case after another, forked from one that has imported everything."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["transformers.models.llama.modeling_llama", "sapper.mix.survive.trainer"])
        self._truths: dict[tuple[str, int], dict[str, torch.Tensor]] = {}

    def truth(self, case: Case) -> dict[str, torch.Tensor]:
        """The weights of the undisturbed job on one device."""
        key = case.plan, case.steps
        if key not in self._truths:
            runner = Reference(job_of(case))
            for _ in range(case.steps):
                runner.step()
            self._truths[key] = {name: one.detach().clone() for name, one in runner.stage.masters.items()}
        return self._truths[key]

    def run(self, case: Case, folder: Path) -> dict[str, Any]:
        """What came of a case."""
        answers: Any = self.context.Queue()
        world = sum(plan_of(case.plan).chips.values())
        port = free_port()
        processes = [self._process(case, rank, port=port, folder=folder, answers=answers) for rank in range(world)]
        try:
            return self._watched(case, answers, processes, folder)
        finally:
            for one in processes:
                one.kill()
                one.join()

    def _process(self, case: Case, rank: int, **more: Any) -> Any:
        more["folder"] = str(more["folder"])
        process = self.context.Process(target=member, args=(case, rank), kwargs=more, daemon=True)
        process.start()
        return process

    def _watched(self, case: Case, answers: Any, processes: list[Any], folder: Path) -> dict[str, Any]:
        world = len(processes)
        due = set(range(world)) - set(case.lost) | ({-1 - rank for rank in case.lost} if case.back else set())
        faults_s: list[float] = []
        changes: list[Changed] = []
        ended, doors = set(), {}
        limit = time.monotonic() + LIMIT_S
        while ended < due and time.monotonic() < limit:
            try:
                kind, rank, value = answers.get(timeout=0.5)
            except queue.Empty:
                continue
            if kind == "fault":
                faults_s.append(value)
            elif kind == "change":
                changes.append(value)
                if case.back and len(processes) == world:
                    alive = [doors[one] for one in doors if one not in case.lost]
                    processes += [self._process(case, one, port=0, folder=folder, answers=answers, doors=alive) for one in case.lost]
            elif kind == "door":
                doors[rank] = value
            elif kind == "failed":
                return {"survived": False, "why": f"rank {rank}: {value}"}
            else:
                ended.add(rank)
        if ended < due:
            return {"survived": False, "why": f"ranks {sorted(due - ended)} did not end within {LIMIT_S:g} s"}
        return self._judged(case, folder, changes, faults_s)

    def _judged(self, case: Case, folder: Path, changes: list[Changed], faults_s: list[float]) -> dict[str, Any]:
        truth, apart, steps = self.truth(case), 0.0, set()
        seen: dict[str, dict[Any, int]] = {}
        for path in folder.glob("end-*.pt"):
            held, step, sample, _ = torch.load(path)
            if held:  # a spare member has none, and its ledger stops where it lost its seat
                steps.add((step, sample))
            for name, box, one in held:
                seen.setdefault(name, {})[box] = one.numel()
                apart = max(apart, float((one - truth[name][within(Box(*box))]).abs().max()))
        whole = {name for name, boxes in seen.items() if sum(boxes.values()) >= truth[name].numel()}
        batch = plan_of(case.plan).global_batch
        fine = whole == set(truth) and steps == {(case.steps, case.steps * batch)} and len(faults_s) >= min(1, len(case.lost))
        why = "" if fine else f"{len(faults_s)} lost, weights of {len(whole)}/{len(truth)}, ledger {steps}"
        return {
            "survived": fine, "why": why, "apart": apart,
            "on_s": goes_on_s(changes, faults_s, world=sum(plan_of(case.plan).chips.values())),
            "lost_steps": max((one.undone for one in changes), default=0), "source": "/".join(sorted({one.source for one in changes})),
            "moved": [{"step": one.step, "cuts": one.cuts, "took_s": one.took_s} for one in changes if one.planned == "measured"],
        }  # fmt: skip


_TWO, _CHAIN = "two unequal pipelines", "one pipeline, mirrored"
_MOVING = tuple((2, "restore", step) for step in range(1, 8))
"""Whenever layers move: the first membership is entered in step 0."""
SEVERAL = {
    "two at once": Case(plan=_TWO, rank=1, phase="backward", also=((2, "backward", 3),)),
    "one after the other, the leader first": Case(plan=_TWO, rank=0, phase="reduce", also=((3, "forward", 5),), steps=8),
    "one more while the others regroup": Case(plan=_TWO, rank=3, phase="backward", also=((0, "regroup", 3), (0, "regroup", 4))),
    "one more while state is handed on": Case(plan=_TWO, rank=3, phase="backward", also=((1, "restore", 3), (1, "restore", 4))),
    "two at once, and both come back at once": Case(
        plan=_TWO, rank=1, phase="backward", also=((2, "backward", 3),), back=True, steps=30
    ),
    "one while layers move": Case(plan=_CHAIN, rank=2, phase="restore", step=8, also=_MOVING, steps=9, replan=0.02, slow=((0, 0.3),)),
    "one that hangs, known after 2 s": Case(plan=_TWO, rank=2, phase="backward", how=signal.SIGSTOP, silent_s=2.0),
    "the leader hangs, known after 2 s": Case(plan=_TWO, rank=0, phase="reduce", how=signal.SIGSTOP, silent_s=2.0),
}  # fmt: skip


def goes_on_s(changes: Sequence[Changed], faults_s: Sequence[float], *, world: int) -> float:
    """The longest time from a fault until the last survivor can begin a step without the lost member.

    Of losses that were met by one change, that change counts for each.
    """
    found = [0.0]
    for lost, fault_s in enumerate(sorted(faults_s), 1):
        without = [one for one in changes if one.members <= world - lost and one.at_s > fault_s and one.planned != "measured"]
        first = min((one.epoch for one in without), default=0)
        found.append(max((one.at_s for one in without if one.epoch == first), default=fault_s) - fault_s)
    return max(found)


def cases(plans: Sequence[str], *, quick: bool, hang: bool) -> Iterator[Case]:
    """What is tried."""
    how = signal.SIGSTOP if hang else signal.SIGKILL
    for plan in plans:
        shape = plan_of(plan)
        for at, phase in enumerate(PHASES):
            # A stage that is the whole model sends nothing in its passes, so nothing marks them.
            is_marked = phase not in ("forward", "backward")
            ranks = [seat.rank for seat in seats(shape) if is_marked or len(shape.pipelines[seat.pipeline].stages) > 1]
            # Checkpoints are written after every second step.
            step = 4 if phase == "checkpoint" else 3
            for rank in [ranks[at % len(ranks)]] if quick and ranks else ranks:
                yield Case(plan=plan, rank=rank, phase=phase, step=step, how=how)


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--several", action="store_true")
    parser.add_argument("--plan", choices=list(PLANS), action="append", default=None)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    world, rows = World(), []
    print(f"{'plan':24} {'phase':11} {'rank':>4} {'survives':8} {'goes on, s':>10} {'steps lost':>10} {'|dw| max':>9}  from")
    alone = cases(asked.plan or list(PLANS), quick=asked.quick, hang=asked.hang)
    for name, case in SEVERAL.items() if asked.several else (("", case) for case in alone):
        if name:
            print(f"{name}:")
        with tempfile.TemporaryDirectory() as folder:
            found = world.run(case, Path(folder))
        rows.append({"name": name, "plan": case.plan, "phase": case.phase, "rank": case.rank, **found})
        if found["survived"]:
            end = f"{found['on_s']:10.2f} {found['lost_steps']:10} {found['apart']:9.1e}  {found['source']}"
        else:
            end = found["why"]
        print(f"{case.plan:24} {case.phase:11} {case.rank:4} {'yes' if found['survived'] else 'NO':8} {end}", flush=True)
    fine = [row for row in rows if row["survived"]]
    worst = max((row["on_s"] for row in fine), default=0.0)
    apart = max((row["apart"] for row in fine), default=0.0)
    lost = max((row["lost_steps"] for row in fine), default=0)
    print(f"{len(fine)} of {len(rows)} survive; slowest {worst:.2f} s; most steps lost {lost}; largest difference of a weight {apart:.1e}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0 if len(fine) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
