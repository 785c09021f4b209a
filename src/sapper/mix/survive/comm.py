"""What the runtime asks of its communication, over links that outlive a membership."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from sapper.mix.run.comm import Channel, Pending, narrowed
from sapper.mix.survive.circle import NAMES, Circle
from sapper.mix.survive.groups import Groups
from sapper.mix.wire.dtypes import Array
from sapper.mix.wire.faults import WireError
from sapper.mix.wire.reduce import Reducer


class ViewComm:
    """See :class:`sapper.mix.run.comm.Comm`.

    Args:
        circle: The members.
        at_sum: Called before and after the sum of scalars, which every rank takes part in once a step before weights change.
        told: Hears what is being done: ``forward``, ``backward`` or ``reduce``.
    """

    def __init__(self, circle: Circle, *, at_sum: tuple[Callable[[], None], Callable[[], None]], told: Callable[[str], None]) -> None:
        self.circle = circle
        self.rank, self.size = circle.rank, len(circle.view.seated)
        self._before, self._after = at_sum
        self._told = told
        self._groups = Groups(circle)
        self._reducer = Reducer(circle)  # type: ignore[arg-type]  # a hub in all that it uses

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        self._told(tag.split()[0])
        self.circle.put(to, tag, torch.tensor([len(tensors)]))
        for one in tensors:
            self.circle.put(to, tag, narrowed(one.detach(), wire).cpu())

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        self._told(tag.split()[0])
        return [self.circle.get(source, tag) for _ in range(int(self.circle.get(source, tag)))]

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        self._told("reduce")
        if members == (self.rank,):
            return _Sum(None, tensor, self.circle)
        moved = tensor.detach().cpu()
        floats = moved if moved.dtype == torch.float64 else moved.float()
        name = NAMES[narrowed(moved, wire).dtype]
        return _Sum(self._reducer.submit(floats.contiguous().numpy().copy(), members, wire=name), tensor, self.circle)

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`; all members are linked already."""

    def group(self, members: tuple[int, ...], *, purpose: str) -> Any:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return self._groups.get(members, purpose)

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return _Channel(self.circle, members, purpose)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        self._told("reduce")
        self._before()
        total = torch.tensor(list(values), dtype=torch.float64)
        self.reduce(total, members=tuple(range(self.size))).wait()
        self._after()
        return total.tolist()  # type: ignore[no-any-return]

    def flush(self) -> None:
        """Nothing to do: what was handed over is a copy or stays as it is until the sum of scalars shows that it arrived."""

    def close(self) -> None:
        """Leave this membership; the links stay."""
        self.circle.broken.set()
        threading.Thread(target=self._reducer.close, daemon=True).start()


class _Channel:
    """See :class:`sapper.mix.run.comm.Channel`."""

    def __init__(self, circle: Circle, members: tuple[int, ...], purpose: str) -> None:
        self._circle, self._members, self._purpose = circle, members, purpose

    def send(self, tensor: torch.Tensor, *, to: int, key: int) -> Pending:
        """See :class:`~sapper.mix.run.comm.Channel`."""
        peer, tag = self._members[to], f"{self._purpose}/{key}"
        self._circle.put(peer, tag, tensor)
        return _Taken(self._circle, peer, f"{tag}/taken")

    def receive(self, into: torch.Tensor, *, source: int, key: int) -> None:
        """See :class:`~sapper.mix.run.comm.Channel`."""
        peer, tag = self._members[source], f"{self._purpose}/{key}"
        into.copy_(self._circle.get(peer, tag))
        self._circle.put(peer, f"{tag}/taken", torch.tensor([key]))


class _Taken:
    def __init__(self, circle: Circle, peer: int, tag: str) -> None:
        self._circle, self._peer, self._tag = circle, peer, tag

    def wait(self) -> None:
        """See :class:`~sapper.mix.run.comm.Pending`."""
        self._circle.get(self._peer, self._tag)


class _Sum:
    def __init__(self, done: Future[Array] | None, target: torch.Tensor, circle: Circle) -> None:
        self._done, self._target, self._circle = done, target, circle

    def wait(self) -> None:
        """See :class:`~sapper.mix.run.comm.Pending`."""
        if self._done is not None:
            try:
                found = self._done.result()
            except WireError:
                self._circle.broken.set()
                raise
            self._target.copy_(torch.from_numpy(found))
