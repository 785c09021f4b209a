"""All seats of a plan as threads of one process: for checks of small models, where starting processes takes longer than the job."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from sapper.mix.run.comm import Channel, Comm, Done, Pending, narrowed
from sapper.mix.run.job import Job
from sapper.mix.run.log import Log
from sapper.mix.run.recompute import one_of_several
from sapper.mix.run.runner import Runner
from sapper.mix.run.stage import dissect
from sapper.mix.wire.faults import Overdue, PeerLost

LIMIT_S = 600.0
T = TypeVar("T")


class World:
    """What the threads share.

    Args:
        size: Threads.
        limit_s: How long one waits for another.
    """

    def __init__(self, size: int, *, limit_s: float = LIMIT_S) -> None:
        self.size, self.limit_s = size, limit_s
        self.lost: int | None = None
        """The first rank that failed."""
        self._queues: dict[tuple[int, int], queue.SimpleQueue[list[torch.Tensor] | None]] = {
            (source, to): queue.SimpleQueue() for source in range(size) for to in range(size)
        }
        self._parts: dict[Hashable, dict[int, torch.Tensor]] = {}
        self._taken: dict[Hashable, int] = {}
        self._changed = threading.Condition()

    def put(self, tensors: list[torch.Tensor], *, source: int, to: int) -> None:
        """Leave tensors for ``to``."""
        self._queues[source, to].put(tensors)

    def take(self, *, source: int, to: int) -> list[torch.Tensor]:
        """The next tensors from ``source``."""
        try:
            found = self._queues[source, to].get(timeout=self.limit_s)
        except queue.Empty:
            raise Overdue("SP-MIX-104", ranks=str(source), reason="-") from None
        if found is None:
            raise self._gone()
        return found

    def add(self, tensor: torch.Tensor, *, key: Hashable, rank: int) -> None:
        """Give one's part of what bears the name ``key``."""
        with self._changed:
            self._parts.setdefault(key, {})[rank] = tensor
            self._changed.notify_all()

    def parts(self, *, key: Hashable, givers: Sequence[int], takers: int) -> list[torch.Tensor]:
        """The parts of all ``givers``, when they are there; kept until that many have taken them."""
        with self._changed:
            parts = self._parts.setdefault(key, {})
            there = self._changed.wait_for(lambda: len(parts) == len(givers) or self.lost is not None, timeout=self.limit_s)
            if self.lost is not None and len(parts) < len(givers):
                raise self._gone()
            if not there:
                missing = ", ".join(str(one) for one in givers if one not in parts)
                raise Overdue("SP-MIX-104", ranks=missing, reason="-")
            self._taken[key] = self._taken.get(key, 0) + 1
            if self._taken[key] == takers:
                del self._parts[key], self._taken[key]
        return [parts[one] for one in givers]

    def fail(self, rank: int) -> None:
        """Let all that wait, or will, learn that ``rank`` is gone."""
        with self._changed:
            self.lost = rank if self.lost is None else self.lost
            self._changed.notify_all()
        for (source, _), one in self._queues.items():
            if source == rank:
                one.put(None)

    def _gone(self) -> PeerLost:
        return PeerLost("SP-MIX-103", rank=self.lost, ranks=str(self.lost), reason="-")


class LocalComm:
    """One thread's end of a :class:`World`; see :class:`~sapper.mix.run.comm.Comm`."""

    def __init__(self, world: World, rank: int) -> None:
        self.rank, self.size, self._world = rank, world.size, world
        self._turns: dict[tuple[int, ...], int] = {}

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """All threads are connected already."""

    def group(self, members: tuple[int, ...], *, purpose: str) -> Any:
        """See :class:`~sapper.mix.run.comm.Comm`: what is asked of a process group, among threads."""
        return Group(self._world, members, rank=self.rank, purpose=purpose)

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return _Channel(self._world, members, rank=self.rank, purpose=purpose)

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        self._world.put([narrowed(one.detach(), wire).cpu().clone() for one in tensors], source=self.rank, to=to)

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return self._world.take(source=source, to=self.rank)

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """See :class:`~sapper.mix.run.comm.Comm`; 16-bit numbers are summed in fp32."""
        turn = self._turns[members] = self._turns.get(members, -1) + 1
        part = narrowed(tensor.detach(), wire).cpu()
        self._world.add(part.float() if part.element_size() < 4 else part.clone(), key=(members, turn), rank=self.rank)
        return _Sum(self._world, members, key=(members, turn), target=tensor)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        total = torch.tensor(list(values), dtype=torch.float64)
        self.reduce(total, members=tuple(range(self.size))).wait()
        return [float(one) for one in total]

    def flush(self) -> None:
        """All that was sent has left."""

    def close(self) -> None:
        """Nothing is open."""


class Group:
    """What the runtime asks of a process group, among threads; each call is over when its ``wait`` is.

    Args:
        world: Of the threads.
        members: Ranks, in the order of the group.
        rank: Own rank.
        purpose: Tells groups of the same members apart.
    """

    def __init__(self, world: World, members: tuple[int, ...], *, rank: int, purpose: str) -> None:
        self._world, self._members, self._rank, self._purpose, self._turn = world, members, rank, purpose, -1

    def size(self) -> int:
        """Number of members."""
        return len(self._members)

    def rank(self) -> int:
        """Own place among them."""
        return self._members.index(self._rank)

    def allreduce(self, tensors: list[torch.Tensor]) -> Pending:
        """Begin to sum the one tensor in place."""
        key = self._next()
        self._world.add(tensors[0].detach().clone(), key=key, rank=self._rank)
        return _Sum(self._world, self._members, key=key, target=tensors[0])

    def allgather(self, found: list[list[torch.Tensor]], tensors: list[torch.Tensor]) -> Pending:
        """Begin to give the one tensor to all."""
        key = self._next()
        self._world.add(tensors[0].detach().clone(), key=key, rank=self._rank)
        return _Copies(self._world, self._members, key=key, takers=self.size(), targets=found[0])

    def broadcast(self, tensors: list[torch.Tensor], options: Any) -> Pending:
        """Begin to give the root's one tensor to all."""
        key, root = self._next(), self._members[options.rootRank]
        if root == self._rank:
            self._world.add(tensors[0].detach().clone(), key=key, rank=root)
        return _Copies(self._world, (root,), key=key, takers=self.size(), targets=tensors)

    def _next(self) -> Hashable:
        self._turn += 1
        return self._purpose, self._members, self._turn


class _Channel:
    def __init__(self, world: World, members: tuple[int, ...], *, rank: int, purpose: str) -> None:
        self._world, self._members, self._rank, self._purpose = world, members, rank, purpose

    def send(self, tensor: torch.Tensor, *, to: int, key: int) -> Pending:
        """See :class:`~sapper.mix.run.comm.Channel`; threads share memory, so that nobody need wait."""
        self._world.add(tensor.clone(), key=(self._purpose, self._rank, self._members[to], key), rank=self._rank)
        return Done()

    def receive(self, into: torch.Tensor, *, source: int, key: int) -> None:
        """See :class:`~sapper.mix.run.comm.Channel`."""
        sender = self._members[source]
        (found,) = self._world.parts(key=(self._purpose, sender, self._rank, key), givers=(sender,), takers=1)
        into.copy_(found)


class _Sum:
    def __init__(self, world: World, members: tuple[int, ...], *, key: Hashable, target: torch.Tensor) -> None:
        self._world, self._members, self._key, self._target = world, members, key, target

    def wait(self) -> None:
        """Added up in the order of ranks; see :class:`~sapper.mix.run.comm.Pending`."""
        first, *others = self._world.parts(key=self._key, givers=self._members, takers=len(self._members))
        total = first.clone()
        for one in others:
            total += one
        self._target.copy_(total)


class _Copies:
    def __init__(self, world: World, givers: tuple[int, ...], *, key: Hashable, takers: int, targets: list[torch.Tensor]) -> None:
        self._world, self._givers, self._key, self._takers, self._targets = world, givers, key, takers, targets

    def wait(self) -> None:
        """See :class:`~sapper.mix.run.comm.Pending`."""
        for target, part in zip(self._targets, self._world.parts(key=self._key, givers=self._givers, takers=self._takers), strict=True):
            target.copy_(part)


def together(size: int, task: Callable[[Comm], T]) -> list[T]:
    """``task`` for each rank in a thread of its own, and what they return, by rank.

    Raises:
        BaseException: What the first thread to fail raised.
    """
    world, found, faults = World(size), {}, []

    def work(rank: int) -> None:
        try:
            with one_of_several() if size > 1 else contextlib.nullcontext():
                found[rank] = task(LocalComm(world, rank))
        except BaseException as error:
            faults.append(error)
            world.fail(rank)

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(size)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if faults:
        raise faults[0]
    return [found[rank] for rank in range(size)]


def run_locally(job: Job, *, each: Callable[[Runner], Any] | None = None, steps: int | None = None) -> list[Log]:
    """All steps of a job, every seat of its plan in a thread of this process.

    Args:
        job: The job.
        each: Called with each seat's runner after the last step.
        steps: To take before that; None: all of the job's.

    Raises:
        SapperError: See :class:`~sapper.mix.run.runner.Runner`.
    """
    size = sum(job.plan.chips.values())
    anatomy = dissect(job, whole=all(len(one.stages) == 1 for one in job.plan.pipelines))

    building = threading.Lock()  # drawing weights uses PyTorch's one generator

    def task(comm: Comm) -> Log:
        with building:
            runner = Runner(job, comm, anatomy=anatomy)
        log = Log(rank=comm.rank, group=runner.group, steps=tuple(runner.step() for _ in range(job.steps if steps is None else steps)))
        if each is not None:
            each(runner)
        return log

    return together(size, task)
