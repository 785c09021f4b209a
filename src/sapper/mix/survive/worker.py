"""One process of a run: ``python -m sapper.mix.survive.worker FOLDER``, started by the launcher; by torchrun, see :mod:`.elastic`.

It writes what happens to ``member-NUMBER.jsonl`` in the folder of the run, and to no pipe: whoever started it may be gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from sapper.errors import SapperError
from sapper.mix.checkpoint import manifest
from sapper.mix.checkpoint.read import open_checkpoint
from sapper.mix.plan import digest
from sapper.mix.run.job import Job
from sapper.mix.run.log import StepLog
from sapper.mix.survive.join import Address, Origin, knock, start
from sapper.mix.survive.member import View
from sapper.mix.survive.names import DOORS, GROUP, MACHINE, MEET, OUTCAST, RANK
from sapper.mix.survive.peers import Peers
from sapper.mix.survive.regroup import Outcast
from sapper.mix.survive.spec import NAME, Spec, read_spec, seat_of
from sapper.mix.survive.trainer import Change, Saving, Trainer, Watch, take_part
from sapper.mix.wire.link import Limits


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
    origin, knocks = _origin(job, spec)

    def come() -> tuple[Peers, View]:
        peers, view = _come(job, spec, limits, origin=origin, knocks=knocks)
        journal = Journal(folder, peers.number)
        journal.write(
            "door", number=peers.number, door=peers.address, host=os.uname().nodename, pid=os.getpid(), group=origin.group,
        )  # fmt: skip
        journal.write("view", members=[[one.number, one.host, one.port] for one in view.members], epoch=view.epoch)
        return peers, view

    def trainer(peers: Peers) -> Trainer:
        watch = watch_of(Journal(folder, peers.number))
        return Trainer(job, peers, origin=origin, saving=saving, watch=watch, planner=planner)

    done = take_part(come, trainer)
    journal = Journal(folder, done.peers.number)
    journal.write("end", step=done.ledger.step, sample=done.ledger.sample, undone=len(done.ledger.undone))
    done.peers.close()


def watch_of(journal: Journal) -> Watch:
    """Writes what happens into ``journal``."""
    return Watch(
        step=lambda log, at: _step(journal, log, at), change=lambda one: _change(journal, one),
        fault=lambda error: journal.write("fault", code=error.code, text=str(error)),
    )  # fmt: skip


def _come(job: Job, spec: Spec, limits: Limits, *, origin: Origin, knocks: bool) -> tuple[Peers, View]:
    """At the start with all, or later by a door."""
    if knocks:
        return knock([address(one) for one in os.environ[DOORS].split(",")], origin=origin, limits=limits)
    rank, at = _rank(), address(os.environ[MEET])
    whole = manifest.whole(Path(spec.checkpoints)) if spec.checkpoints else []
    ledger = open_checkpoint(spec.checkpoints, step=whole[-1]).about.ledger if spec.checkpoints and whole else None
    return start(job.plan, rank, at=at, origin=origin, limits=limits, step=whole[-1] if whole else 0, ledger=ledger)


def _origin(job: Job, spec: Spec) -> tuple[Origin, bool]:
    """What this process is, and whether it comes by a door."""
    model = digest({"model": spec.model, "config": dict(getattr(job.model, "config", {}))})
    machine = os.environ.get(MACHINE) or os.uname().nodename
    knocks = bool(os.environ.get(DOORS))
    group = os.environ[GROUP] if knocks else seat_of(job.plan, _rank(), where=spec.plan).group
    return Origin(group=group, machine=machine, plan=job.plan.digest, model=model), knocks


def _rank() -> int:
    """As the launcher says."""
    found = os.environ.get(RANK)
    if found is None:
        raise SapperError("SP-MIX-204")
    return int(found)


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
        if not {MEET, DOORS} & os.environ.keys() and "TORCHELASTIC_RUN_ID" in os.environ:
            from sapper.mix.survive.elastic import keep

            sys.exit(0 if keep(Path(sys.argv[1])) else 1)
        work(Path(sys.argv[1]))
    except Outcast as error:
        sys.stderr.write(error.render() + "\n")
        sys.exit(OUTCAST)
    except SapperError as error:
        sys.exit(error.render())
