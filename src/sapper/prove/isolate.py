"""Isolation: jobs run in worker processes, and whatever a stack does to its process costs one case and is itself the answer.

A worker is a fresh interpreter that runs a setup once (import PyTorch, find the device) and then job after job. A function
that is a generator sends each thing that it yields at once: the time limit counts from the last of them, and when the process
dies, all that it had yielded is kept. Jobs and answers travel as JSON lines through pipes of their own, so that a stack may
print what it likes.
"""

from __future__ import annotations

import errno
import os
import re
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import msgspec

from sapper.errors import SapperError
from sapper.prove.process import Process

Status = Literal["done", "raised", "crash", "hang", "memory"]
SETUP_LIMIT_S = 300.0
"""A stack may compile its kernels when it is first imported."""
RESTARTS = 3
"""Starts of a worker that may fail in a row before the campaign gives up: a device that is gone does not come back."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TICK_S = 0.05
"""How often memory and time are looked at: a core writes less than 200 MB of fresh memory in that time."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call in a worker."""

    id: str
    function: str
    """``module:function``, called with ``payload``; returns JSON, or yields it part by part."""
    payload: dict[str, Any] = {}
    fresh: bool = False
    """In a process that has run nothing before."""
    limit_s: float | None = None
    """In place of the pool's."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job."""

    id: str
    status: Status
    value: Any = None
    """What the function returned; None where it did not."""
    parts: tuple[Any, ...] = ()
    """What it had yielded, also before it died."""
    said: str | None = None
    """The error, or the signal and the last words on stderr."""
    wall_s: float = 0.0
    trace: str | None = None
    """Traceback of an error."""

    def no_room(self) -> str | None:
        """What the system said where nothing more could be written; None where that did not end the job."""
        refused = re.match(r"OSError: \[Errno (\d+)\]", self.said or "")
        return os.strerror(int(refused[1])) if refused is not None and int(refused[1]) in _NO_ROOM else None


OnPart = Callable[[str, Any], None]
"""Told each part as it comes, with the id of its job."""


class Runner(Protocol):
    """What runs jobs, here or on other machines."""

    def start(self) -> Any:
        """Start a worker and wait until it is ready; its setup's value."""

    def run(self, jobs: Iterable[Job], on_part: OnPart | None = None) -> Iterator[Answer]:
        """Answers as they come, in any order; jobs are asked for as workers fall idle."""

    def close(self) -> None:
        """End all workers."""


class Stopped(Exception):
    """The pool was stopped from another thread."""


class Pool:
    """Worker processes on this machine; a context manager.

    Args:
        setup: ``module:function``, called once in each worker with ``setup_payload``; what it returns is :attr:`setup_value`.
        setup_payload: JSON.
        workers: Processes at a time.
        limit_s: Wall time that a job, or a part of one, may take.
        memory_bytes: Resident memory that a worker may have; None: no limit.
    """

    def __init__(
        self,
        setup: str,
        setup_payload: dict[str, Any],
        *,
        workers: int = 1,
        limit_s: float = 30.0,
        memory_bytes: int | None = None,
        setup_limit_s: float = SETUP_LIMIT_S,
    ) -> None:
        self.setup_value: Any = None
        self._setup, self._setup_payload = setup, setup_payload
        self._count, self._limit_s, self._memory_bytes, self._setup_limit_s = workers, limit_s, memory_bytes, setup_limit_s
        self._processes: list[Process] = []
        self._failures = 0
        self._stopped = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        while self._processes:
            self._processes.pop().kill()

    def stop(self) -> None:
        """Have :meth:`run` give up, in whichever thread it is: that thread ends the workers, since it holds their pipes."""
        self._stopped = True

    def start(self) -> Any:
        """Start a worker and wait until it is ready; its setup's value.

        Raises:
            SapperError: The setup raises, or ends its process.
        """
        for _ in self.run(()):
            pass
        return self.setup_value

    def run(self, jobs: Iterable[Job], on_part: OnPart | None = None) -> Iterator[Answer]:
        """Answers as they come, in any order; jobs are asked for as workers fall idle.

        Args:
            jobs: An iterator that is asked late may hold what became known since.
            on_part: Without it, parts come with the answer alone.

        Raises:
            SapperError: No worker comes up; answers that were given stay valid.
            Stopped: Another thread wants no more of it.
        """
        source, again = iter(jobs), deque[Job]()
        exhausted = False
        whole = False
        try:
            while True:
                if self._stopped:
                    raise Stopped
                while not exhausted and len(again) < self._idle():
                    job = next(source, None)
                    if job is None:
                        exhausted = True
                    else:
                        again.append(job)
                self._fill(len(again))
                self._assign(again)
                if exhausted and not again and not any(one.job for one in self._processes) and self.setup_value is not None:
                    break
                yield from self._wait(on_part)
            whole = True
        finally:
            if not whole:  # an error, Ctrl-C, or a caller that lost interest
                self.close()

    def ask(self, job: Job) -> Answer:
        """The answer of one job; the worker stays for the next (a caller that leaves :meth:`run` in the middle ends them all).

        Raises:
            SapperError: No worker comes up.
        """
        [answer] = self.run([job])
        return answer

    def _idle(self) -> int:
        """Workers that could take a job, those included that are not started yet."""
        return self._count - sum(one.job is not None for one in self._processes)

    def _fill(self, waiting: int) -> None:
        """Start workers as far as there is work for them, one at least."""
        busy = sum(one.job is not None for one in self._processes)
        while len(self._processes) < min(self._count, max(busy + waiting, 1)):
            self._processes.append(Process(self._setup, self._setup_payload, limit_s=self._setup_limit_s))

    def _assign(self, waiting: deque[Job]) -> None:
        for process in list(self._processes):
            if process.job is not None or not process.ready:
                continue
            at = next((at for at, job in enumerate(waiting) if not (job.fresh and process.used)), None)
            if at is not None:
                job = waiting[at]
                if process.give(job, self._limit_s if job.limit_s is None else job.limit_s):
                    del waiting[at]
                else:  # it has died since
                    self._drop(process)
            elif sum(not one.used for one in self._processes) < len(waiting):
                self._drop(process)  # makes room for a fresh one
                self._fill(len(waiting))

    def _wait(self, on_part: OnPart | None) -> list[Answer]:
        """What the workers say, and what time and memory say about them."""
        found: list[Answer] = []
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                for stream in process.streams:
                    selector.register(stream, selectors.EVENT_READ)
            selector.select(_TICK_S)
        for process in list(self._processes):
            for message in process.messages():
                answer = self._heard(process, message, on_part)
                found += [answer] if answer else []
            if process.dead():
                found += self._ended(process, "crash", process.last_words())
            elif self._memory_bytes is not None and process.rss_bytes() > self._memory_bytes:
                found += self._ended(process, "memory", f"rss > {self._memory_bytes} bytes")
            elif time.monotonic() > process.deadline_s:
                found += self._ended(process, "hang", f"> {process.limit_s:g} s")
        return found

    def _heard(self, process: Process, message: dict[str, Any], on_part: OnPart | None) -> Answer | None:
        if "ready" in message:
            process.ready, process.deadline_s, self._failures = True, float("inf"), 0
            self.setup_value = {} if message["ready"] is None else message["ready"]
        elif "unready" in message:
            raise SapperError("SP-RUN-001", setup=self._setup, problem=message["unready"])
        elif "part" in message:
            process.part(message["part"])
            if on_part is not None and process.job is not None:
                on_part(process.job.id, message["part"])
        elif process.job is not None:
            answer = Answer(id=process.job.id, parts=tuple(process.parts), **message)
            process.free()
            if self._memory_bytes is not None and process.rss_bytes() > self._memory_bytes // 2:
                self._drop(process)  # what it has gathered must not count against the next job
            return answer
        return None

    def _ended(self, process: Process, status: Status, said: str) -> list[Answer]:
        """A worker that died or has to: the answer of its job, if it had one."""
        if process not in self._processes:  # dropped a moment ago
            return []
        if status == "crash" and process.killed_for_memory():
            status = "memory"
        job, parts, wall_s = process.job, tuple(process.parts), process.wall_s()
        self._drop(process)
        if job is not None:
            return [Answer(id=job.id, status=status, parts=parts, said=said, wall_s=wall_s)]
        if not process.ready:
            self._failures += 1
            if self._failures >= RESTARTS or self.setup_value is None:
                raise SapperError("SP-RUN-002", setup=self._setup, problem=said)
        return []

    def _drop(self, process: Process) -> None:
        self._processes.remove(process)
        process.kill()
