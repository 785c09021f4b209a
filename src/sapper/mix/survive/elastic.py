"""Under torchrun: what torchrun starts keeps a worker and is none, so that what torchrun does to its processes does not end the run.

torchrun ends all processes of a host by SIGTERM when one of them ends with an error, when the host of its store is gone, and, with
``--max-restarts``, when its agents change; then it starts all of them anew. The worker is therefore a process of a session of its own,
of which torchrun knows nothing: where it is killed a new one takes its place, and torchrun goes on waiting. Where the keeper itself is
ended, the worker goes on, and the next keeper of the same place finds it by a note in the run's folder (:mod:`.notes`). SIGINT (Ctrl-C,
which torchrun hands on as it does SIGHUP and SIGQUIT) ends the worker too.

Workers that never met have nothing to lose: the next start ends them and begins anew. Once they have met, whoever is started comes to them
(:mod:`.underway`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sapper import messages
from sapper.errors import BadFile
from sapper.mix.plan import MixPlan, read_plan, seats
from sapper.mix.survive import notes, underway
from sapper.mix.survive.launch import Here, Launcher, Worker, clean
from sapper.mix.survive.notes import Found
from sapper.mix.survive.spec import NAME, read_spec, seat_of
from sapper.mix.wire.meet import listen

_STORE_KEY = "sapper/mix/meet"
_LOOK_S = 0.5
_MEET_S = 300.0
"""For rank 0 to say where it is met; torchrun's own limit."""
_LEAVES = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""After these the worker goes on."""


def keep(folder: Path, *, told: Callable[[Mapping[str, Any]], None] | None = None) -> bool:
    """Keep the worker of this place of torchrun to its end; whether the run came to its end here.

    Args:
        folder: Of the run.
        told: Hears each line of the journals that lie there; None: what is lost and what comes in its place is said.

    Raises:
        SapperError: The folder holds no run, or its plan has fewer seats.
    """
    for number in _LEAVES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _leave)
    plan = read_plan(read_spec(folder / NAME).plan)
    here = _here(folder, plan)
    launcher = Launcher(folder, plan, here, told=told or _tell, started=lambda worker: _note(folder, worker))
    if not here.living:
        launcher.pass_over()
    return launcher.run()


def _here(folder: Path, plan: MixPlan) -> Here:
    """What this place has to start."""
    rank = int(os.environ["RANK"])
    group = seat_of(plan, rank, where=str(folder)).group
    with notes.alone(folder):
        doors = _doors(folder)
        if not doors:
            for note in notes.living(folder):
                if not note.is_kept:  # of a start that failed
                    notes.end(note)
            doors = _doors(folder)  # the last of them may have met the others meanwhile
        if doors:
            return _at(folder, group, doors)
    world, due = int(os.environ.get("WORLD_SIZE", "0")), len(seats(plan))
    if world and world != due:
        raise BadFile("SP-MIX-211", where=str(folder), seats=due, world=world)
    if rank == 0:  # before the others hear where it is met
        clean(folder)
    meet = _meet(rank, or_else=lambda: bool(_doors(folder)))
    if meet is not None:
        return Here(ranks=(rank,), meet=meet)
    with notes.alone(folder):
        return _at(folder, group, _doors(folder))


def _doors(folder: Path) -> tuple[str, ...]:
    return underway.doors(folder, host=notes.own_host(), pids={note.worker.pid for note in notes.living(folder)})


def _at(folder: Path, group: str, doors: tuple[str, ...]) -> Here:
    """In a run that is under way: the worker of this place where there is one that nobody keeps, else a new one that comes by ``doors``."""
    local = os.environ.get("LOCAL_RANK", "0")
    free = [note for note in notes.living(folder) if note.local == local and not note.is_kept]
    if not free:
        return Here(guests=(group,), doors=doors)
    note = min(free, key=lambda one: one.group != group)
    notes.release(note)
    found = Found(note.worker, has_ended=lambda: underway.has_ended(folder, host=note.host, pid=note.worker.pid))
    worker = Worker(found, note.group, Here.again, Path(note.errors))
    _note(folder, worker)
    return Here(living=(worker,))


def _note(folder: Path, worker: Worker) -> None:
    notes.write(folder, notes.own_note(worker.process.pid, group=worker.group, errors=str(worker.errors)))


def _meet(rank: int, *, or_else: Callable[[], bool]) -> str | None:
    """Where rank 0 is met, by the store of torchrun, which is not needed again; None: ``or_else`` came first."""
    import torch.distributed as dist

    host = os.environ["MASTER_ADDR"]
    store = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    key = f"{_STORE_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == 0:
        with listen(host) as free:
            store.set(key, str(free.getsockname()[1]))
    due = time.monotonic() + _MEET_S
    while not store.check([key]) and time.monotonic() < due:
        if or_else():
            return None
        time.sleep(_LOOK_S)
    store.set_timeout(timedelta(seconds=1))
    return f"{host}:{int(store.get(key))}"


def _leave(number: int, _: object) -> None:
    """The worker goes on; the handler of a signal says no more than it must."""
    sys.stderr.write(messages.text("mix.run.kept", signal=signal.Signals(number).name) + "\n")
    sys.stderr.flush()
    os._exit(128 + number)


def _tell(line: Mapping[str, Any]) -> None:
    if line["kind"] in ("lost", "again"):
        sys.stderr.write(messages.text(f"mix.run.{line['kind']}", **{name: str(line[name]) for name in ("group", "code", "reason")}) + "\n")
