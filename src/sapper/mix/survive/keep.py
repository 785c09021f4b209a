"""Copies of the last two states in host memory: of a member's own layers, and of a neighbour's that nobody else holds.

Why two are enough. No rank passes the sum of scalars of step t + 1 (the gate, after which weights change) before every rank has come
to it, and a rank comes to it only when its copy of the state after t steps is made and has arrived at its mirror. So when any rank is
beyond the gate of step t + 1, the state after t steps of every layer is in the memory of two members; who is ahead has it still as the
older of its two copies. Copies are made and sent by a thread during the passes, in which weights do not change.
(In-memory checkpoints at a neighbour: Gemini, SOSP 2023, https://doi.org/10.1145/3600006.3613145, there without the gate.)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

import torch
from sapper.mix.checkpoint.shard import Box, Shard, State
from sapper.mix.plan import MixPlan, seats
from sapper.mix.survive.circle import Circle
from sapper.mix.survive.cover import givers, part_of
from sapper.mix.survive.member import Held, Member
from sapper.mix.survive.state import copied
from sapper.mix.wire.faults import WireError

_KEPT = 2


@dataclass
class Snapshot:
    """A state after some steps; ``owner`` is the member whose it is."""

    owner: int
    epoch: int
    held: Held
    state: State


def mirrors(plan: MixPlan, members: Sequence[Member]) -> dict[int, int]:
    """Rank -> rank that keeps a copy of its state: for those whose state members of other machines could not put together.

    A copy lies on another machine where there is one, else at another member; nobody mirrors where there is but one member.
    """
    ranks = range(len(seats(plan)))
    parts = [part_of(plan, rank, step=0) for rank in ranks]
    machines = [member.machine for member in members[: len(parts)]]
    apart = len(set(machines)) > 1
    found: dict[int, int] = {}
    load = dict.fromkeys(ranks, 0)
    for rank, part in enumerate(parts):
        others = [other for other in ranks if other != rank and (not apart or machines[other] != machines[rank])]
        left = {other: [parts[other]] for other in others}
        if not others or all(givers(layer, part, left) is not None for layer in range(part.first, part.last)):
            continue
        best = min(others, key=lambda other: (load[other], (other - rank) % len(ranks)))
        found[rank] = best
        load[best] += part.last - part.first
    return found


class Keeper:
    """The snapshots that one member holds, over all memberships."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._lock = threading.Lock()
        self._circle: Circle | None = None
        self._numbers: list[int] = []
        self._mirror: int | None = None
        self._copying: threading.Thread | None = None
        self._fault: WireError | None = None

    def enter(self, circle: Circle, plan: MixPlan) -> None:
        """Begin to mirror in a new membership."""
        self._circle, self._fault, self._copying = circle, None, None
        self._numbers = [one.number for one in circle.view.members]
        pairs = mirrors(plan, circle.view.members)
        self._mirror = pairs.get(circle.rank)
        for owner, keeper in pairs.items():
            if keeper == circle.rank:
                threading.Thread(target=self._mirror_of, args=(circle, owner), name=f"mirror-{owner}", daemon=True).start()

    def copy(self, state: State, held: Held) -> None:
        """Begin to copy ``state``, which does not change before :meth:`settle`."""
        self._copying = threading.Thread(target=self._copy, args=(state, held), name="copy", daemon=True)
        self._copying.start()

    def settle(self) -> None:
        """Until the copy under way is made and has arrived.

        Raises:
            WireError: A member is gone.
        """
        if self._copying is not None:
            self._copying.join()
            self._copying = None
        if self._fault is not None:
            raise self._fault

    def passed(self) -> None:
        """All ranks of this membership have come to a gate: what was kept of earlier ones is not needed any more."""
        assert self._circle is not None
        with self._lock:
            self.snapshots = [one for one in self.snapshots if one.epoch == self._circle.view.epoch]

    def find(self, held: Held) -> State | None:
        """The state that ``held`` describes."""
        with self._lock:
            return next((one.state for one in self.snapshots if one.held == held), None)

    def held(self) -> tuple[Held, ...]:
        """What there is."""
        with self._lock:
            return tuple(one.held for one in self.snapshots)

    def _copy(self, state: State, held: Held) -> None:
        circle = self._circle
        assert circle is not None
        try:
            own = copied(state)
            self._add(Snapshot(self._numbers[circle.rank], circle.view.epoch, held, own))
            if self._mirror is not None:
                send(circle, self._mirror, "mirror", state=own, about=held)
                circle.get(self._mirror, f"mirrored {held.step}")
        except WireError as error:
            self._fault = error

    def _mirror_of(self, circle: Circle, owner: int) -> None:
        with contextlib.suppress(WireError):
            while True:
                about, state = receive(circle, owner, "mirror")
                self._add(Snapshot(self._numbers[owner], circle.view.epoch, about, state))
                circle.put(owner, f"mirrored {about.step}", torch.tensor([about.step]))

    def _add(self, snapshot: Snapshot) -> None:
        with self._lock:
            own = [one for one in self.snapshots if (one.owner, one.epoch) == (snapshot.owner, snapshot.epoch)]
            self.snapshots.append(snapshot)
            for gone in own[: len(own) + 1 - _KEPT]:
                self.snapshots.remove(gone)


def send(circle: Circle, peer: int, tag: str, *, state: State, about: Held) -> None:
    """Send a state: what it is, the names and boxes of its shards, then their tensors. It must not change before they have arrived."""
    index = msgspec.json.encode({"about": about, "boxes": {name: [one.box for one in held] for name, held in state.items()}})
    circle.put(peer, tag, torch.frombuffer(bytearray(index), dtype=torch.uint8))
    for held in state.values():
        for one in held:
            circle.put(peer, tag, one.tensor)


def receive(circle: Circle, peer: int, tag: str) -> tuple[Held, State]:
    """What :func:`send` sent."""
    index = msgspec.json.decode(bytes(circle.get(peer, tag, timeout_s=float("inf")).numpy()))
    boxes = msgspec.convert(index["boxes"], dict[str, list[Box]])
    state = {name: tuple(Shard(circle.get(peer, tag), box) for box in held) for name, held in boxes.items()}
    return msgspec.convert(index["about"], Held), state
