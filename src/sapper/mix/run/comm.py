"""What the runtime asks of its communication, and its plainest form: Gloo among all processes of one PyTorch.

A member that is gone or silent surfaces as :class:`~sapper.mix.wire.faults.PeerLost` (or ``Overdue``, where nobody is known to be
gone) from whichever call meets it. A :class:`Comm` that has raised is given up: the survivors make a new one among themselves.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch.distributed as dist

import torch
from sapper.mix.wire.faults import Overdue, PeerLost

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of the wire, by the names of plans."""
TIMEOUT_S = 600.0
_CODES = (
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_HEADER = 128
"""Numbers in the first message of a sending: how many follow, then dtype, dims and sizes of each tensor."""


class Pending(Protocol):
    """A sum under way."""

    def wait(self) -> None:
        """Until it is there.

        Raises:
            WireError: A member is gone, or silent for too long.
        """


class Channel(Protocol):
    """Messages of several threads among some members, by place among them; tensors on the CPU, of shapes that both ends know."""

    def send(self, tensor: torch.Tensor, *, to: int, key: int) -> Pending:
        """Send some time soon; what returns waits until it has been taken."""

    def receive(self, into: torch.Tensor, *, source: int, key: int) -> None:
        """The message of ``key``.

        Raises:
            WireError: The sender is gone or silent.
        """


class Comm(Protocol):
    """Communication of one process with the others of its job; ranks are those of the plan's seats."""

    rank: int
    size: int

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """Send some time soon; returns at once. The tensors must not change before :meth:`flush`.

        Args:
            tensors: What to send, on any device.
            to: Rank of the receiver.
            tag: What it asks for; sendings of one pair are also received in the order in which they were sent.
            wire: Dtype of floating ones on the way, where they are wider; None: as they are.
        """

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """The next sending of ``tag`` from ``source``, on the CPU, in the dtype of the wire."""

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """Begin to sum ``tensor`` (one dim) over ``members``, in place; each member names the same ones, in the same order of calls."""

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """Connect; each member calls it once, before anything else but :meth:`group`.

        Args:
            sets: Members that will :meth:`reduce` together, this one among them.
            neighbours: Ranks that this one sends to or receives from.

        Raises:
            WireError: One of them cannot be reached.
        """

    def group(self, members: tuple[int, ...], *, purpose: str) -> Any:
        """A process group of members of one island, for collectives on the device; all of them ask for it in the same order."""

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """Messages among members of one island; all of them ask for it in the same order."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all members, in fp64."""

    def flush(self) -> None:
        """Until all that was sent has left."""

    def close(self) -> None:
        """Leave, without waiting for anybody."""


@contextlib.contextmanager
def faults(peers: Sequence[int]) -> Iterator[None]:
    """Turn what PyTorch raises of a lost connection into ours; ``peers`` are those waited for."""
    try:
        yield
    except RuntimeError as error:  # dist.DistBackendError and its kin are RuntimeErrors too
        text = str(error)
        named = re.search(r"peer (?:rank )?(\d+)", text)
        rank = int(named.group(1)) if named and int(named.group(1)) in peers else peers[0] if len(peers) == 1 else -1
        if re.search(r"time[d ]*out|Timeout", text):
            raise Overdue("SP-MIX-104", ranks=", ".join(map(str, peers)), reason=text.splitlines()[0][:200]) from error
        raise PeerLost("SP-MIX-103", rank=rank, ranks=", ".join(map(str, peers)), reason=text.splitlines()[0][:200]) from error


class GlooComm:
    """Gloo groups of our own over a store, so that a job can make new ones after a member is gone.

    Args:
        store: A store that all members reach.
        rank: Own rank.
        size: Members.
        groups: Sets of members that will :meth:`reduce` together; each member names the same ones.
        timeout_s: How long to wait for anybody.

    Raises:
        WireError: Not all members came.
    """

    def __init__(
        self, store: Any, *, rank: int, size: int, groups: Sequence[tuple[int, ...]] = (), timeout_s: float = TIMEOUT_S
    ) -> None:  # fmt: skip
        self.rank, self.size = rank, size
        self._store, self._timeout = store, datetime.timedelta(seconds=timeout_s)
        self._everyone = tuple(range(size))
        self._sending: list[tuple[Any, int, Any]] = []
        self._groups: dict[tuple[int, ...], Any] = {}
        # one total order of rendezvous, so that no two members wait for each other in different groups
        for members in sorted({self._everyone, *groups}, key=lambda one: (-len(one), one)):
            if rank in members and len(members) > 1:
                self._groups[members] = self._group(members)

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """See :class:`Comm`. Groups are made now: one that is made when it is first used can find a member waiting for another."""
        for members in sorted(set(sets), key=lambda one: (-len(one), one)):
            if members not in self._groups:
                self._groups[members] = self._group(members)

    def group(self, members: tuple[int, ...], *, purpose: str) -> Any:
        """See :class:`Comm`."""
        return self._group(members, purpose=purpose)

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """See :class:`Comm`."""
        return GlooChannel(self._group(members, purpose=purpose))

    def _group(self, members: tuple[int, ...], *, purpose: str = "members") -> Any:
        store = dist.PrefixStore(f"{purpose} " + ",".join(map(str, members)), self._store)
        with faults([one for one in members if one != self.rank]):
            return dist.ProcessGroupGloo(store, members.index(self.rank), len(members), self._timeout)

    @property
    def _world(self) -> Any:
        return self._groups[self._everyone]

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """See :class:`Comm`."""
        ready = [narrowed(one.detach(), wire).cpu().contiguous() for one in tensors]
        for message in (*_headers(ready), *(_plain(one) for one in ready if one.numel())):
            with faults([to]):
                self._sending.append((self._world.send([message], to, 0), to, message))

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """See :class:`Comm`."""
        head = self._received(torch.empty(_HEADER, dtype=torch.int64), source).tolist()
        if head[0] > _HEADER:
            head += self._received(torch.empty(head[0] - _HEADER, dtype=torch.int64), source).tolist()
        found = []
        for dtype, shape in _shapes(head):
            one = torch.empty(shape, dtype=dtype)
            if one.numel():
                self._received(_plain(one), source)
            found.append(one)
        return found

    def _received(self, into: torch.Tensor, source: int) -> torch.Tensor:
        with faults([source]):
            self._world.recv([into], source, 0).wait()
        return into

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """See :class:`Comm`; 16-bit numbers are gathered and summed in fp32, the order of ranks the same on each member."""
        others = [one for one in members if one != self.rank]
        if not others:
            return Done()
        if members not in self._groups:
            self._groups[members] = self._group(members)
        group = self._groups[members]
        moved = narrowed(tensor, wire).cpu().contiguous()
        with faults(others):
            if moved.element_size() > 2:
                return _Sum(group.allreduce([moved]), others, moved, tensor)
            parts = [torch.empty_like(moved) for _ in members]
            return _Sum(group.allgather([parts], [moved]), others, parts, tensor)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`Comm`."""
        total = torch.tensor(list(values), dtype=torch.float64)
        self.reduce(total, members=self._everyone).wait()
        return total.tolist()  # type: ignore[no-any-return]

    def flush(self) -> None:
        """See :class:`Comm`."""
        for work, to, _ in self._sending:
            with faults([to]):
                work.wait()
        self._sending.clear()

    def close(self) -> None:
        """See :class:`Comm`."""
        self._sending.clear()
        self._groups.clear()


class Alone:
    """A job of one process."""

    rank = 0
    size = 1

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """Nobody is there."""

    def group(self, members: tuple[int, ...], *, purpose: str) -> Any:
        """Nobody is there."""
        raise AssertionError("a job of one process has no groups")

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """Nobody is there."""
        raise AssertionError("a job of one process has no channels")

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """Nobody is there."""
        raise AssertionError("a job of one process sends nothing")

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """Nobody is there."""
        raise AssertionError("a job of one process receives nothing")

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """The tensor is the sum."""
        return Done()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values are the sums."""
        return [float(one) for one in values]

    def flush(self) -> None:
        """Nothing was sent."""

    def close(self) -> None:
        """Nothing is open."""


class Done:
    """A sum that needs nobody else."""

    def wait(self) -> None:
        """It is there."""


class GlooChannel:
    """See :class:`Channel`.

    Args:
        group: A Gloo group of the members that nothing else uses.
    """

    def __init__(self, group: Any) -> None:
        self._group = group

    def send(self, tensor: torch.Tensor, *, to: int, key: int) -> Pending:
        """See :class:`Channel`."""
        with faults([to]):
            return _Sending(self._group.send([tensor], to, key), to, tensor)

    def receive(self, into: torch.Tensor, *, source: int, key: int) -> None:
        """See :class:`Channel`."""
        with faults([source]):
            self._group.recv([into], source, key).wait()


class _Sending:
    """A message on its way, whose tensor has to stay until it has left."""

    def __init__(self, work: Any, to: int, tensor: torch.Tensor) -> None:
        self._work, self._to, self._tensor = work, to, tensor

    def wait(self) -> None:
        """See :class:`Pending`."""
        with faults([self._to]):
            self._work.wait()


class _Sum:
    """A sum of one tensor on its way, or of parts that are added when they are there."""

    def __init__(self, work: Any, others: Sequence[int], moved: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> None:
        self._work, self._others, self._moved, self._target = work, others, moved, target

    def wait(self) -> None:
        """See :class:`Pending`."""
        with faults(self._others):
            self._work.wait()
        if isinstance(self._moved, list):
            total = self._moved[0].float()
            for one in self._moved[1:]:
                total += one.float()
            self._target.copy_(total)
        elif self._moved.data_ptr() != self._target.data_ptr():
            self._target.copy_(self._moved)


def narrowed(tensor: torch.Tensor, wire: str | None) -> torch.Tensor:
    """``tensor`` in the dtype of the wire, where it is floating and wider."""
    if wire is None or not tensor.is_floating_point() or tensor.element_size() <= DTYPES[wire].itemsize:
        return tensor
    return tensor.to(DTYPES[wire])


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, which they share."""
    return tensor.view(-1).view(torch.uint8)


def _headers(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    numbers = [0, len(tensors)]
    for one in tensors:
        numbers += [_CODES.index(one.dtype), one.dim(), *one.shape]
    numbers[0] = len(numbers)
    numbers += [0] * (_HEADER - len(numbers))
    whole = torch.tensor(numbers, dtype=torch.int64)
    return [whole] if len(numbers) == _HEADER else [whole[:_HEADER].clone(), whole[_HEADER:].clone()]


def _shapes(head: Sequence[int]) -> Iterator[tuple[torch.dtype, tuple[int, ...]]]:
    at = 2
    for _ in range(head[1]):
        dims = head[at + 1]
        shape = tuple(head[at + 2 : at + 2 + dims])
        assert math.prod(shape) >= 0
        yield _CODES[head[at]], shape
        at += 2 + dims
