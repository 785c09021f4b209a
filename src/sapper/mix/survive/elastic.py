"""Under torchrun: what torchrun starts keeps a worker and is none, so that what torchrun does to its processes does not end the run.

torchrun ends all processes of a host by SIGTERM when one of them ends with an error, when the host of its store is gone, and, with
``--max-restarts``, when its agents change; then it starts all of them anew. The worker is therefore a process of a session of its own,
of which torchrun knows nothing: where it is killed a new one takes its place, and torchrun goes on waiting. Where the keeper itself is
ended by SIGKILL or SIGTERM, the worker goes on, and the next keeper of the same place finds it by a note in the run's folder. SIGINT
(Ctrl-C, which torchrun hands on) ends the worker too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sapper import messages
from sapper.files import write_atomic
from sapper.mix.plan import MixPlan, read_plan
from sapper.mix.survive.launch import Here, Launcher, Worker, clean
from sapper.mix.survive.spec import NAME, read_spec, seat_of
from sapper.mix.wire.meet import listen

_STORE_KEY = "sapper/mix/meet"
_LOOK_S = 0.1


class Note(msgspec.Struct, frozen=True):
    """Of the worker of a place."""

    pid: int
    born: str
    """See :func:`born`."""
    group: str
    errors: str
    launch: str
    """See :func:`_launch`."""


class Found:
    """A worker that another keeper started; a :class:`~sapper.mix.survive.launch.Process`."""

    def __init__(self, note: Note) -> None:
        self.pid, self._born = note.pid, note.born
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """See :class:`~sapper.mix.survive.launch.Process`; how it ended is not known, and one that came to the end has said so before."""
        if self.returncode is None and born(self.pid) != self._born:
            self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self) -> int:
        """See :class:`~sapper.mix.survive.launch.Process`."""
        while (code := self.poll()) is None:
            time.sleep(_LOOK_S)
        return code


def keep(folder: Path) -> bool:
    """Keep the worker of this place of torchrun to its end; whether the run came to its end here.

    Raises:
        SapperError: The folder holds no run, or its plan has fewer seats.
    """
    signal.signal(signal.SIGTERM, _leave)
    plan = read_plan(read_spec(folder / NAME).plan)
    place = f"{os.uname().nodename}-{os.environ.get('GROUP_RANK', '0')}-{os.environ.get('LOCAL_RANK', '0')}"
    path = folder / f"kept-{place}.json"
    here, fresh = _here(folder, path, plan)
    launcher = Launcher(folder, plan, here, told=_tell, started=lambda worker: _note(path, worker))
    if fresh:
        launcher.pass_over()
    return launcher.run()


def born(pid: int) -> str | None:
    """When a process was started, in ticks of its system, as a later one may have its number; None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _here(folder: Path, path: Path, plan: MixPlan) -> tuple[Here, bool]:
    """What this place has to start, and whether the run begins with it."""
    note = _living(path)
    if note is not None:
        return Here(living=(Worker(Found(note), note.group, Here.again, Path(note.errors)),)), False
    rank = int(os.environ["RANK"])
    group = seat_of(plan, rank, where=str(folder)).group
    others = [_living(other) for other in folder.glob("kept-*.json")]
    if any(one is not None and one.launch != _launch() for one in others):  # of an earlier start, and still under way
        return Here(guests=(group,)), False
    if rank == 0:  # before the others hear where it is met
        clean(folder)
    return Here(ranks=(rank,), meet=_meet(rank)), True


def _launch() -> str:
    """Of which start of torchrun's processes this one is."""
    return "/".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"))


def _living(path: Path) -> Note | None:
    """Of a worker that is still there."""
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None
    return note if born(note.pid) == note.born else None


def _note(path: Path, worker: Worker) -> None:
    pid = worker.process.pid
    note = Note(pid=pid, born=born(pid) or "", group=worker.group, errors=str(worker.errors), launch=_launch())
    write_atomic(path, msgspec.json.encode(note))


def _meet(rank: int) -> str:
    """Where rank 0 is met, by the store of torchrun, which is not needed again."""
    import torch.distributed as dist

    host = os.environ["MASTER_ADDR"]
    store = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    key = f"{_STORE_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == 0:
        with listen(host) as free:
            store.set(key, str(free.getsockname()[1]))
    return f"{host}:{int(store.get(key))}"


def _leave(*_: object) -> None:
    """The worker goes on; the handler of a signal says no more than it must."""
    sys.stderr.write(messages.text("mix.run.kept") + "\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _tell(line: Mapping[str, Any]) -> None:
    if line["kind"] in ("lost", "again"):
        sys.stderr.write(messages.text(f"mix.run.{line['kind']}", **{name: str(line[name]) for name in ("group", "code", "reason")}) + "\n")
