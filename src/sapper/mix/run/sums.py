"""Sums over members of several islands: inside each first, across by leaders, back inside; a bucket at each step at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

import torch
from sapper.mix.run.comm import faults
from sapper.mix.run.groups import Groups
from sapper.mix.wire import Reducer


@dataclass
class _Job:
    target: torch.Tensor
    moved: torch.Tensor
    """What is summed: on the device, in fp32 or fp64."""
    wire: str
    leaders: tuple[int, ...]
    """Of each island, one."""
    lead: int
    """The own island's, counted inside the group."""
    inside: Any
    """The sum inside the island, under way."""
    across: Future[Any] | None = None
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def wait(self) -> None:
        """Until the sum is in the target."""
        self.done.wait()
        if self.error is not None:
            raise self.error


class Sums:
    """The sums over one set of members, in order.

    Args:
        parts: Of each island that has members, these, rising; the same on all.
        turns: Of each island, those that lead in turn.
        rank: Own rank.
        groups: Of the own island.
        reducer: Across; None where all members are of one island.
    """

    def __init__(
        self, parts: Sequence[Sequence[int]], *, turns: Sequence[Sequence[int]], rank: int, groups: Groups, reducer: Reducer | None
    ) -> None:  # fmt: skip
        self._rank, self._turns, self._reducer = rank, turns, reducer
        self._inside = next(list(part) for part in parts if rank in part)
        self._count = 0
        # Groups of its own, since other sets may share this island's part; and two, so that no sum waits on its way up for one on its
        # way down.
        whole = ",".join(str(rank) for part in parts for rank in part)
        self._up, self._down = (
            groups.of(self._inside, purpose=f"{way} {whole}") if len(self._inside) > 1 else None for way in ("up", "down")
        )
        steps = (self._cross, self._return) if reducer is not None else (self._arrive,)
        self._queues: list[queue.SimpleQueue[_Job | None]] = [queue.SimpleQueue() for _ in steps]
        self._threads = [
            threading.Thread(target=self._work, args=(at, step), name=f"sum-{at}", daemon=True) for at, step in enumerate(steps)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, tensor: torch.Tensor, *, wire: str | None) -> _Job:
        """Begin to sum ``tensor`` in place."""
        moved = tensor.detach()
        moved = moved.float() if moved.element_size() < 4 else moved
        wire = "fp64" if moved.dtype == torch.float64 and wire in {None, "fp64"} else "fp32" if wire in {None, "fp64"} else wire
        leaders = tuple(turns[self._count % len(turns)] for turns in self._turns)
        self._count += 1
        lead = next((self._inside.index(one) for one in leaders if one in self._inside), 0)
        inside = None
        if self._up is not None:
            with faults(self._others):
                if self._reducer is None:
                    inside = self._up.allreduce([moved])
                else:
                    options = dist.ReduceOptions()
                    options.rootRank = lead
                    inside = self._up.reduce([moved], options)
        job = _Job(tensor, moved, wire, leaders, lead, inside)
        self._queues[0].put(job)
        return job

    def close(self) -> None:
        """End the threads; sums under way are given up by the groups they wait for."""
        for waiting in self._queues:
            waiting.put(None)

    @property
    def _others(self) -> list[int]:
        return [one for one in self._inside if one != self._rank]

    def _work(self, at: int, step: Callable[[_Job], None]) -> None:
        while (job := self._queues[at].get()) is not None:
            if job.error is None:
                try:
                    step(job)
                except Exception as error:  # belongs to whoever waits for the sum
                    job.error = error
            if at + 1 < len(self._queues):
                self._queues[at + 1].put(job)
            else:
                job.done.set()

    def _arrive(self, job: _Job) -> None:
        """All members are of one island."""
        self._settle(job)
        if job.moved is not job.target:
            job.target.copy_(job.moved)

    def _settle(self, job: _Job) -> None:
        if job.inside is not None:
            with faults(self._others):
                job.inside.wait()

    def _cross(self, job: _Job) -> None:
        """The leader's part; the others' sums have left them."""
        self._settle(job)
        if self._rank in job.leaders:
            assert self._reducer is not None
            job.across = self._reducer.submit(job.moved.cpu().numpy(), job.leaders, wire=job.wire)

    def _return(self, job: _Job) -> None:
        if job.across is not None:
            job.moved.copy_(torch.from_numpy(job.across.result()))
        if self._down is not None:
            options = dist.BroadcastOptions()
            options.rootRank = job.lead
            with faults(self._others):
                self._down.broadcast([job.moved], options).wait()
        if job.moved.data_ptr() != job.target.data_ptr():
            job.target.copy_(job.moved)
