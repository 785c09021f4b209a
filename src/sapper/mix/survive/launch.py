"""The launcher: starts the workers of one host, tells how the run goes, and puts a new worker in the place of one that is lost.

Nothing hangs on it. Workers are processes of sessions of their own that write to files; when the launcher is killed they go on, and
when one of them is killed the others go on whether or not a launcher is there to start another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sapper.errors import BadValue
from sapper.mix.plan import MixPlan, seats
from sapper.mix.survive.names import DOORS, GROUP, MACHINE, MEET, OUTCAST, RANK

_POLL_S = 0.1
_AGAIN_S = 1.0
"""Before a lost worker's place is taken by a new one."""


JOURNALS, ERRORS = "member-*.jsonl", "errors-*.txt"
"""Files of a run, each of one worker."""


class Process(Protocol):
    """Of a worker: started here, or found by another launcher's note."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """None: it runs, when last looked at."""

    def poll(self) -> int | None:
        """Look at it; its exit code, or the signal that ended it below 0."""

    def wait(self) -> int:
        """Until it has ended."""


@dataclass
class Worker:
    """One worker of this host."""

    process: Process
    group: str
    left: int
    """How often its place is taken by a new one."""
    errors: Path
    """What it says on stderr."""


@dataclass(frozen=True)
class Here:
    """What this host starts."""

    ranks: tuple[int, ...] = ()
    """Seats of the plan, at the start of a run."""
    meet: str = ""
    """Where rank 0 is met: ``HOST:PORT``."""
    guests: tuple[str, ...] = ()
    """Groups of chips that come to a run that is under way, one worker each."""
    doors: tuple[str, ...] = ()
    """Members of that run."""
    living: tuple[Worker, ...] = ()
    """Workers that are there already."""
    machine: str = ""
    again: int = 3
    """How often the place of a lost worker is taken by a new one, for each."""


def ranks_here(plan: MixPlan, groups: Sequence[str]) -> tuple[int, ...]:
    """Ranks of the seats that ``groups`` name: ``GROUP`` or ``GROUP:FIRST-LAST`` (places in the group, from 0); none: all.

    Raises:
        BadValue: A group or chips that the plan does not have.
    """
    taken = seats(plan)
    if not groups:
        return tuple(seat.rank for seat in taken)
    found: list[int] = []
    for text in groups:
        name, _, span = text.partition(":")
        own = [seat.rank for seat in taken if seat.group == name]
        if not own:
            raise BadValue("SP-MIX-205", where="--here", group=name, known=", ".join(plan.chips))
        first, _, last = span.partition("-")
        if span and not (first.isdigit() and (last or first).isdigit() and int(first) <= int(last or first) < len(own)):
            raise BadValue("SP-MIX-209", where="--here", span=span, group=name, last=len(own) - 1)
        found += own[int(first) : int(last or first) + 1] if span else own
    return tuple(sorted(set(found)))


def clean(folder: Path) -> None:
    """Remove what earlier runs of this folder wrote."""
    for old in (*folder.glob(JOURNALS), *folder.glob(ERRORS)):
        old.unlink()


class Launcher:
    """The workers of one host.

    Args:
        folder: Of the run; holds its specification.
        plan: Its plan.
        here: What to start.
        told: Hears each line of the journals of the members of this host.
        started: Hears of each worker that is started.
    """

    def __init__(
        self, folder: Path, plan: MixPlan, here: Here, *, told: Callable[[Mapping[str, Any]], None],
        started: Callable[[Worker], None] = lambda worker: None,
    ) -> None:  # fmt: skip
        self._folder, self._plan, self._here, self._told = folder, plan, here, told
        self._workers: list[Worker] = list(here.living)
        self._started = started
        self._pids = {one.process.pid for one in here.living}
        """Of all workers so far."""
        self._read: dict[Path, int] = {}
        self._doors: list[str] = list(here.doors)
        self._ended = 0
        self._came: set[int] = set()
        """Processes that became members."""
        self._own: set[int] = set()
        """Members that this launcher started."""
        self._elsewhere = False
        """Whether there were members on other hosts when last heard."""
        self._lost: list[tuple[float, Worker]] = []

    def pass_over(self) -> None:
        """Let be what the journals hold of earlier runs."""
        self._read = {path: path.stat().st_size for path in self._folder.glob(JOURNALS)}

    def run(self) -> bool:
        """Until all workers have ended; whether the run came to its end here."""
        taken = seats(self._plan)
        if not self._here.doors:
            self._hear()  # whoever comes to a run that goes on here finds its doors in the journals
        try:
            for rank in self._here.ranks:
                self._start(taken[rank].group, {RANK: str(rank), MEET: self._here.meet}, left=self._here.again)
            for group in self._here.guests:
                self._start(group, self._guest(group), left=self._here.again)
            while self._workers or self._lost:
                self._look()
                time.sleep(_POLL_S)
            self._look()
        finally:
            for worker in self._workers:
                _stop(worker)
        return self._ended > 0

    def _guest(self, group: str) -> dict[str, str]:
        return {DOORS: ",".join(self._doors), GROUP: group}

    def _start(self, group: str, more: Mapping[str, str], *, left: int) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SAPPER_MIX_")}
        environment |= {MACHINE: self._here.machine or socket.gethostname(), **more}
        # As torchrun has it: else each worker takes all cores.
        environment.setdefault("OMP_NUM_THREADS", "1")
        errors = self._folder / f"errors-{group}-{len(self._workers)}-{time.monotonic_ns()}.txt"
        with open(errors, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "sapper.mix.survive.worker", str(self._folder)], env=environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        worker = Worker(process, group, left, errors)
        self._workers.append(worker)
        self._pids.add(process.pid)
        self._started(worker)

    def _hear(self) -> None:
        for line in self._lines():
            if line["kind"] in ("change", "view"):
                self._doors = [f"{host}:{port}" for _, host, port in line["members"]]
                self._elsewhere = not {number for number, _, _ in line["members"]} <= self._own
            self._ended += line["kind"] == "end"
            if line["kind"] == "door":
                self._came.add(line["pid"])
                if line["pid"] in self._pids:
                    self._own.add(line["member"])
            self._told(line)

    def _look(self) -> None:
        self._hear()
        if self._ended:
            self._dismiss()
        for worker in [one for one in self._workers if one.process.poll() is not None]:
            self._workers.remove(worker)
            # A run that never began, or whose other workers came to the end, takes nobody in.
            if worker.process.returncode != 0 and worker.left > 0 and self._doors and not self._ended:
                self._lost.append((time.monotonic() + _AGAIN_S, worker))
            elif worker.process.returncode != 0:
                self._told({"kind": "lost", **_ended(worker)})
                self._hear()  # all may have met since
                if not self._doors and self._workers:
                    self._never_met()
        for due, worker in list(self._lost):
            if time.monotonic() >= due:
                self._lost.remove((due, worker))
                if not self._ended and (self._workers or self._is_cut_off(worker)):
                    self._told({"kind": "again", **_ended(worker)})
                    self._start(worker.group, self._guest(worker.group), left=worker.left - 1)

    def _is_cut_off(self, worker: Worker) -> bool:
        """Whether others may be going on elsewhere without this host's last worker; one that fails by itself would fail again."""
        return self._elsewhere and (worker.process.returncode == OUTCAST or (worker.process.returncode or 0) < 0)

    def _never_met(self) -> None:
        """End the others of this host when one ended before all had met: they would wait for it until their time is over."""
        self._told({"kind": "early", "count": len(self._workers)})
        for worker in self._workers:
            _stop(worker)
            worker.process.wait()
        self._workers.clear()

    def _dismiss(self) -> None:
        """End those who come too late: nobody opens to them any more, and they would knock for minutes."""
        for worker in [one for one in self._workers if one.process.pid not in self._came and one.process.poll() is None]:
            self._workers.remove(worker)
            _stop(worker)
            worker.process.wait()

    def _lines(self) -> Iterator[dict[str, Any]]:
        """New lines of all journals."""
        for path in sorted(self._folder.glob(JOURNALS)):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if line.endswith(b"\n"):
                        self._read[path] = self._read.get(path, 0) + len(line)
                        yield {**json.loads(line), "member": int(path.stem[7:])}


def _stop(worker: Worker) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGTERM)


def _ended(worker: Worker) -> dict[str, Any]:
    """How a worker ended, and what it said last: the error itself, and not the next step that follows it."""
    said = [line for line in worker.errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    named = [line for line in said if line.startswith("error: ")]
    code = worker.process.returncode or 0
    silent = signal.Signals(-code).name if -code in set(signal.Signals) else "-"
    return {"group": worker.group, "code": code, "reason": (named or said or [silent])[-1].removeprefix("error: ")}
