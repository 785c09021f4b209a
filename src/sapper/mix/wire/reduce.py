"""Weighted sums of large arrays over unlike members, by threads, while the caller computes.

Every array is cut into parts, one for each member, its owner: members send the owners their parts, an owner adds them up in the
order of the members and sends the sum to all. That is the reduce-scatter and all-gather of a ring with the same bytes,
2 (n - 1) / n of the array for each of n members, but each number is rounded to the wire's dtype once on the way in and once on
the way out however many members there are, and all members end with the same bits: the owner keeps what it sent, not what it had.

Members on unlike links own unlike parts. With a share o of the array a member moves 1 + (n - 2) o times its bytes in each
direction; :func:`shares` makes the slowest end soonest. A member that owns nothing moves each byte only once each way.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from sapper.mix.wire.dtypes import Array, round_to
from sapper.mix.wire.hub import Hub


def shares(speeds: Sequence[float]) -> list[float]:
    """The part of the array that each member owns.

    Args:
        speeds: Bandwidth of each member's link in any unit.
    """
    n = len(speeds)
    if n <= 2:
        return [1.0 / n] * n
    owns = list(range(n))
    while True:
        # The time (1 + (n - 2) o_i) / speed_i is equal for all owners, and the o_i add up to 1.
        pace = (len(owns) + n - 2) / sum(speeds[i] for i in owns)
        too_slow = [i for i in owns if pace * speeds[i] < 1.0]
        if not too_slow:
            return [(pace * speeds[i] - 1.0) / (n - 2) if i in owns else 0.0 for i in range(n)]
        owns = [i for i in owns if i not in too_slow]


def cuts(size: int, part: Sequence[float]) -> list[slice]:
    """``size`` elements cut by the shares ``part``."""
    ends = [0, *(round(size * float(end)) for end in np.cumsum(part) / sum(part))]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


@dataclass
class _Job:
    tag: str
    array: Array
    members: Sequence[int]
    parts: list[slice]
    wire: str
    own: Array | None = None
    """The sum of the part that this member owns."""
    done: Future[Array] = field(default_factory=Future)


class Reducer:
    """Sums arrays over members of a hub; jobs of all members must come in the same order for each set of members."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._counts: dict[tuple[int, ...], int] = {}
        # Three steps, each with its own queue: the parts of the next array go out while the sums of this one come in.
        steps = (self._scatter, self._add, self._gather)
        self._queues: list[queue.SimpleQueue[_Job | None]] = [queue.SimpleQueue() for _ in steps]
        self._threads = [
            threading.Thread(target=self._work, args=(at, step), name=f"wire-reduce-{at}", daemon=True)
            for at, step in enumerate(steps)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, array: Array, members: Sequence[int], *, wire: str = "fp32", weight: float = 1.0, part: Sequence[float] | None = None
    ) -> Future[Array]:
        """Begin the sum of ``weight`` times ``array`` over ``members``; what is added is fp32, or fp64 where the arrays are.

        Args:
            array: Contiguous floating point of one dimension, as long on all members; it must not change until the sum is there.
            members: Ranks, this one among them, in the same order everywhere.
            wire: Dtype on the way.
            weight: Of this member.
            part: The share that each member owns, as :func:`shares` gives it; None: equal ones.

        Returns:
            The sum, the same bits on all members. It raises PeerLost or Overdue as receiving does.
        """
        key = tuple(members)
        count = self._counts[key] = self._counts.get(key, -1) + 1
        floats = array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
        if weight != 1.0:
            floats = floats * floats.dtype.type(weight)
        job = _Job(f"sum/{'-'.join(map(str, key))}/{count}", floats, key, cuts(floats.size, part or [1.0] * len(key)), wire)
        self._queues[0].put(job)
        return job.done

    def close(self) -> None:
        """End the threads after what was submitted."""
        self._queues[0].put(None)
        for thread in self._threads:
            thread.join(self._hub.limits.message_s)

    def _work(self, at: int, step: Callable[[_Job], None]) -> None:
        while True:
            job = self._queues[at].get()
            if job is not None and not job.done.done():
                try:
                    step(job)
                except Exception as error:  # belongs to whoever waits for the sum
                    job.done.set_exception(error)
            if at + 1 < len(self._queues):
                self._queues[at + 1].put(job)
            if job is None:
                return

    def _scatter(self, job: _Job) -> None:
        for owner, part in zip(job.members, job.parts, strict=True):
            if owner != self._hub.rank and part.stop > part.start:
                self._hub.send(owner, job.tag, array=job.array[part], wire=job.wire)

    def _add(self, job: _Job) -> None:
        mine = job.parts[job.members.index(self._hub.rank)]
        if mine.stop == mine.start:
            return
        total = np.zeros(mine.stop - mine.start, job.array.dtype)
        for member in job.members:
            total += job.array[mine] if member == self._hub.rank else self._hub.receive(member, job.tag)
        total = round_to(total, job.wire)
        for member in job.members:
            if member != self._hub.rank:
                self._hub.send(member, f"{job.tag}/done", array=total, wire=job.wire)
        job.own = total

    def _gather(self, job: _Job) -> None:
        whole = np.empty_like(job.array)
        for owner, part in zip(job.members, job.parts, strict=True):
            if part.stop > part.start:
                whole[part] = job.own if owner == self._hub.rank else self._hub.receive(owner, f"{job.tag}/done")
        job.done.set_result(whole)
