"""One process of a run: ``python -m sapper.mix.survive.worker FOLDER``, started by the launcher or by torchrun.

It writes what happens to ``member-NUMBER.jsonl`` in the folder of the run, and to no pipe: whoever started it may be gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from sapper.errors import BadFile, SapperError
from sapper.mix.checkpoint import manifest
from sapper.mix.checkpoint.read import open_checkpoint
from sapper.mix.plan import digest, seats
from sapper.mix.run.job import Job
from sapper.mix.run.log import StepLog
from sapper.mix.survive.join import Address, Origin, knock, start
from sapper.mix.survive.member import View
from sapper.mix.survive.spec import NAME, Spec, read_spec
from sapper.mix.survive.trainer import Change, Saving, Trainer, Watch
from sapper.mix.wire.link import Limits

RANK, MEET, DOORS, GROUP, MACHINE = (f"SAPPER_MIX_{name}" for name in ("RANK", "MEET", "DOORS", "GROUP", "MACHINE"))
"""Variables by which the launcher tells a worker who it is."""
_STORE_KEY = "sapper/mix/meet"


class Journal:
    """Lines of JSON of one member, each with the system when the call returns, so that a kill takes none away."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / f"member-{number:05d}.jsonl"

    def write(self, kind: str, **values: Any) -> None:
        """One line."""
        with open(self._path, "ab") as file:
            file.write(msgspec.json.encode({"kind": kind, **values}) + b"\n")


def work(folder: Path) -> None:
    """Take part in the run of ``folder`` to its end.

    Raises:
        SapperError: It cannot be taken part in.
    """
    spec = read_spec(folder / NAME)
    job, planner = spec.job(), spec.planner()
    limits = Limits(beat_s=min(0.25, spec.silent_s / 8), silent_s=spec.silent_s, meet_s=max(120.0, spec.silent_s))
    saving = Saving(Path(spec.checkpoints), every=spec.every, keep=spec.keep) if spec.checkpoints else None
    peers, view, origin = _come(job, spec, limits)
    journal = Journal(folder, peers.number)
    journal.write("door", number=peers.number, door=peers.address, pid=os.getpid(), group=origin.group)
    watch = Watch(
        step=lambda log, at: _step(journal, log, at), change=lambda one: _change(journal, one),
        fault=lambda error: journal.write("fault", code=error.code, text=str(error)),
    )  # fmt: skip
    trainer = Trainer(job, peers, origin=origin, saving=saving, watch=watch, planner=planner)
    journal.write("view", members=[[one.number, one.host, one.port] for one in view.members], epoch=view.epoch)
    trainer.run(view)
    journal.write("end", step=trainer.ledger.step, sample=trainer.ledger.sample, undone=len(trainer.ledger.undone))
    peers.close()


def _come(job: Job, spec: Spec, limits: Limits) -> tuple[Any, View, Origin]:
    """At the start with all, or later by a door."""
    model = digest({"model": spec.model, "config": dict(getattr(job.model, "config", {}))})
    machine = os.environ.get(MACHINE) or os.uname().nodename
    doors = os.environ.get(DOORS)
    if doors:
        origin = Origin(group=os.environ[GROUP], machine=machine, plan=job.plan.digest, model=model)
        return *knock([address(one) for one in doors.split(",")], origin=origin, limits=limits), origin
    rank, at = _place()
    taken = seats(job.plan)
    if rank >= len(taken):
        raise BadFile("SP-MIX-203", where=spec.plan, seats=len(taken), rank=rank)
    origin = Origin(group=taken[rank].group, machine=machine, plan=job.plan.digest, model=model)
    whole = manifest.whole(Path(spec.checkpoints)) if spec.checkpoints else []
    ledger = open_checkpoint(spec.checkpoints, step=whole[-1]).about.ledger if spec.checkpoints and whole else None
    return *start(job.plan, rank, at=at, origin=origin, limits=limits, step=whole[-1] if whole else 0, ledger=ledger), origin


def _place() -> tuple[int, Address]:
    """Rank, and where rank 0 is met: as the launcher says, else by the store of torchrun."""
    if MEET in os.environ:
        return int(os.environ[RANK]), address(os.environ[MEET])
    if "RANK" not in os.environ:
        raise SapperError("SP-MIX-204")
    import torch.distributed as dist

    from sapper.mix.wire.meet import listen

    rank, host = int(os.environ["RANK"]), os.environ["MASTER_ADDR"]
    store = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    key = f"{_STORE_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == 0:
        with listen(host) as free:
            store.set(key, str(free.getsockname()[1]))
    return rank, (host, int(store.get(key)))


def address(text: str) -> Address:
    """``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def _step(journal: Journal, log: StepLog, view: View) -> None:
    journal.write("step", epoch=view.epoch, **msgspec.to_builtins(log))


def _change(journal: Journal, one: Change) -> None:
    journal.write(
        "change", epoch=one.epoch, reason=one.reason, count=len(one.members), step=one.step, undone=one.undone, source=one.source,
        took_s=one.took_s, planned=one.planned, plan=msgspec.to_builtins(one.plan),
        members=[[who.number, who.host, who.port] for who in one.members],
    )  # fmt: skip


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]))
    except SapperError as error:
        sys.exit(error.render())
