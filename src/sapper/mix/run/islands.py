"""Communication of a job whose groups share no library: the vendor's inside each island, the wire between them.

An island is the processes of one group of the plan; they run one build of PyTorch. A sum over members of several islands goes
inside first, then across by one leader of each island, then back inside; leaders take turns, so that every network card has its
part. All of it runs in threads, so that it overlaps what the caller computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from sapper.mix.run.comm import Channel, GlooComm, Pending, narrowed
from sapper.mix.run.exchange import Group
from sapper.mix.run.groups import Groups
from sapper.mix.run.sums import Sums
from sapper.mix.wire import Hub, Limits, Meeting, Overdue, PeerLost, Reducer

LEADERS = 4
"""Members of an island that take turns; each is linked to those of the other islands."""
_NUMPY = {torch.bfloat16: "bf16"}
"""Dtypes that NumPy has not, by what the wire calls them."""


class IslandsComm:
    """The communication of one process; see :class:`~sapper.mix.run.comm.Comm`.

    Args:
        meeting: What came of the start.
        islands: Ranks of each island, rising.
        groups: Of this process's island.
        inside: Sends inside the island; its ranks count from the island's first.
        limits: Times of the wire.
    """

    def __init__(self, meeting: Meeting, *, islands: Sequence[Sequence[int]], groups: Groups, inside: GlooComm, limits: Limits) -> None:
        self.rank, self.size = meeting.rank, len(meeting.members)
        self.groups = groups
        self._inside = inside
        self._meeting, self._limits = meeting, limits
        self._place = {rank: place for island in islands for place, rank in enumerate(island)}
        self._island_of = {rank: index for index, island in enumerate(islands) for rank in island}
        self._hub: Hub | None = None
        self._reducer: Reducer | None = None
        self._sums: dict[tuple[int, ...], Sums] = {}

    def prepare(self, sets: Sequence[tuple[int, ...]], *, neighbours: Sequence[int]) -> None:
        """Connect; every member of the job calls it once.

        Args:
            sets: Members that will reduce together, this one among them.
            neighbours: Ranks that this one sends to or receives from.

        Raises:
            WireError: One of them cannot be reached.
        """
        everyone = tuple(range(self.size))
        peers = set(neighbours)
        for members in {*sets, everyone}:
            turns = self._leaders(members)
            if self.rank in {one for leaders in turns for one in leaders}:
                peers |= {one for leaders in turns for one in leaders}
        self._hub = Hub(self._meeting, peers={one for one in peers if not self._same_island(one)}, limits=self._limits)
        self._reducer = Reducer(self._hub)
        # One total order, so that no two members wait for each other in unlike groups.
        for members in sorted({*sets, everyone}, key=lambda one: (-len(one), one)):
            if self.rank in members and len(members) > 1:
                self._sums[members] = self._summed(members)

    def group(self, members: tuple[int, ...], *, purpose: str) -> Group:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return self.groups.of(members, purpose=purpose)

    def channel(self, members: tuple[int, ...], *, purpose: str) -> Channel:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        return self._inside.channel(tuple(self._place[one] for one in members), purpose=purpose)

    def send(self, tensors: Sequence[torch.Tensor], *, to: int, tag: str, wire: str | None = None) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`; inside an island through host memory as well."""
        if self._same_island(to):
            with self._own_names():
                self._inside.send(tensors, to=self._place[to], tag=tag, wire=wire)
            return
        self._link.send(to, tag, array=torch.tensor([len(tensors)]).numpy())
        for one in tensors:
            ready = narrowed(one.detach(), wire).cpu().contiguous()
            holds = _NUMPY.get(ready.dtype)
            self._link.send(to, tag, array=(ready.view(torch.int16) if holds else ready).numpy(), holds=holds)

    def receive(self, *, source: int, tag: str) -> list[torch.Tensor]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        if self._same_island(source):
            with self._own_names():
                return self._inside.receive(source=self._place[source], tag=tag)
        count = int(self._link.receive(source, tag)[0])
        found = []
        for _ in range(count):
            frame = self._link.frame(source, tag)
            one = torch.from_numpy(frame.array.view("<i2") if frame.dtype == "bf16" else frame.array)
            found.append(one.view(torch.bfloat16) if frame.dtype == "bf16" else one)
        return found

    def reduce(self, tensor: torch.Tensor, *, members: tuple[int, ...], wire: str | None = None) -> Pending:
        """See :class:`~sapper.mix.run.comm.Comm`; what is narrower than fp32 is summed in it."""
        return self._sums[members].begin(tensor, wire=wire)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        total = torch.tensor(list(values), dtype=torch.float64)
        self.reduce(total, members=tuple(range(self.size)), wire="fp64").wait()
        return [float(one) for one in total.tolist()]

    def flush(self) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        with self._own_names():
            self._inside.flush()
        self._link.flush()

    def close(self) -> None:
        """See :class:`~sapper.mix.run.comm.Comm`."""
        for sums in self._sums.values():
            sums.close()
        if self._hub is not None:
            self._hub.close()  # before the reducer, which may wait for a peer that is gone
        if self._reducer is not None:
            self._reducer.close()
        self._inside.close()
        self.groups.close()

    @property
    def moved_bytes(self) -> dict[int, tuple[int, int]]:
        """Peer of another island -> bytes sent and received so far."""
        return self._link.moved_bytes

    @property
    def _link(self) -> Hub:
        assert self._hub is not None, "prepare() comes before the first message"
        return self._hub

    @contextlib.contextmanager
    def _own_names(self) -> Iterator[None]:
        """Let an error name a member by its rank in the job, not by its place in the island."""
        try:
            yield
        except (PeerLost, Overdue) as error:
            island = [rank for rank in range(self.size) if self._same_island(rank)]
            named = ", ".join(str(island[int(place)]) for place in str(error.values["ranks"]).split(", "))
            rank = error.values.get("rank", -1)
            values = error.values | {"ranks": named} | ({"rank": island[rank] if rank >= 0 else rank} if "rank" in error.values else {})
            raise type(error)(error.code, where=error.where, **values) from error

    def _same_island(self, rank: int) -> bool:
        return self._island_of[rank] == self._island_of[self.rank]

    def _summed(self, members: tuple[int, ...]) -> Sums:
        parts = self._parts(members)
        reducer = self._reducer if len(parts) > 1 else None
        return Sums(parts, turns=self._leaders(members), rank=self.rank, groups=self.groups, reducer=reducer)

    def _leaders(self, members: tuple[int, ...]) -> list[list[int]]:
        """Of each island that has members, those that take turns; only the first one for a sum over all."""
        most = 1 if len(members) == self.size else LEADERS
        return [inside[:most] for inside in self._parts(members)]

    def _parts(self, members: tuple[int, ...]) -> list[list[int]]:
        parts: dict[int, list[int]] = {}
        for one in members:
            parts.setdefault(self._island_of[one], []).append(one)
        return [parts[island] for island in sorted(parts)]
