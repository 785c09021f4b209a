"""Coming to a job: all together at its start, or alone, later, to take the place of what was lost."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from sapper import __version__
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.plan import MixPlan, seats
from sapper.mix.survive.member import Member, View
from sapper.mix.survive.peers import Peers
from sapper.mix.wire.faults import BadFrame, PeerLost, WireError
from sapper.mix.wire.link import Limits
from sapper.mix.wire.meet import hear, listen, meet, say

LIMITS = Limits(beat_s=0.25, silent_s=10.0)
"""A member of which nothing is heard for 10 s counts as lost; the end of a process is known at once."""
MUST = ("sapper", "plan", "model")
_RETRY_S = 0.2
_CALL_S = 0.01
"""Between looks for the leader's call."""
Address = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a process is, to be let in."""

    group: str
    machine: str
    plan: str
    """Digest of the plan for all chips."""
    model: str
    """Digest of the model."""

    @property
    def card(self) -> dict[str, str]:
        """For the others to see."""
        return {**dataclasses.asdict(self), "sapper": __version__, "python": platform.python_version()}


def start(
    plan: MixPlan, rank: int, *, at: Address, origin: Origin, limits: Limits = LIMITS, step: int = 0, ledger: Ledger | None = None
) -> tuple[Peers, View]:  # fmt: skip
    """Come together with all members of ``plan`` at the start of a job.

    Args:
        plan: For all chips.
        rank: Seat of this process.
        at: Where rank 0 can be met, once; later nothing hangs on that place.
        origin: Of this process.
        limits: Times.
        step: Steps in the checkpoint that all begin from; 0: there is none.
        ledger: Of that checkpoint.

    Raises:
        Disagreement: A member has another plan, model or version.
        WireError: Somebody did not come.
    """
    meeting = meet(rank, len(seats(plan)), at=at, card={**origin.card, "step": str(step)}, must=(*MUST, "step"), limits=limits)
    peers = Peers(meeting.job, meeting.listener, limits=limits)
    peers.number = rank
    members = tuple(
        Member(number=one.rank, host=one.host, port=one.port, group=one.card["group"], machine=one.card["machine"])
        for one in meeting.members
    )
    source = "checkpoint" if step else "start"
    return peers, View(epoch=0, turns={}, members=members, plan=plan, step=step, source=source, ledger=ledger or Ledger())


def knock(doors: Sequence[Address], *, origin: Origin, limits: Limits = LIMITS, within_s: float = 60.0) -> tuple[Peers, View]:
    """Come to a job that is running.

    Args:
        doors: Addresses of members, of whom one at least is still there.
        origin: Of this process.
        limits: Times.
        within_s: To be let in.

    Returns:
        The links, and a view in which this member has no seat and from which it goes on to the next.

    Raises:
        WireError: Nobody of the job is there, or it does not let this process in.
    """
    due = time.monotonic() + within_s
    known = list(dict.fromkeys(doors))
    while time.monotonic() < due:
        for door in list(known):
            with contextlib.suppress(OSError, BadFrame), socket.create_connection(door, timeout=limits.silent_s) as sock:
                listener = listen(sock.getsockname()[0])
                host, port = listener.getsockname()[:2]
                say(sock, {"guest": {**origin.card, "host": host, "port": port}})
                answer = hear(sock, within_s=within_s)
                if "refused" in answer:
                    raise WireError("SP-MIX-198", where=f"{door[0]}:{door[1]}", field=answer["refused"])
                if "leader" in answer:
                    listener.close()
                    known.insert(0, (answer["leader"][0], answer["leader"][1]))
                    break
                try:
                    return _joined(answer, listener, origin=origin, limits=limits)
                except WireError:  # a member was lost while this one came: who is left says with whom to go on
                    known += [(one["host"], one["port"]) for one in answer["view"]["members"]]
                    due = max(due, time.monotonic() + limits.silent_s)
        known = list(dict.fromkeys(known))
        time.sleep(_RETRY_S)
    raise WireError("SP-MIX-199", doors=", ".join(f"{host}:{port}" for host, port in doors), limit_s=f"{within_s:g}")


def _joined(answer: dict[str, Any], listener: socket.socket, *, origin: Origin, limits: Limits) -> tuple[Peers, View]:
    """Be linked to all members and wait for the leader's call to regroup.

    Raises:
        WireError: The leader is lost, or a member of its view is not to be reached.
    """
    view = msgspec.convert(answer["view"], View, strict=False)
    peers = Peers(answer["job"], listener, limits=limits)
    peers.number = answer["number"]
    leader = min(view.members, key=lambda one: one.number)
    try:
        # The leader first: where it is gone the number that it gave may be given again, and nobody else is to know it.
        peers.connect([leader], within_s=limits.silent_s)
        peers.connect(view.members, within_s=limits.silent_s)
        peers.tell(leader.number, "here", True)
        while not peers.alarmed([leader.number], [view.epoch]):
            if peers.lost([leader.number]):
                raise PeerLost("SP-MIX-150", rank=leader.number, reason=peers.why(leader.number))
            time.sleep(_CALL_S)
    except WireError:
        peers.close()
        raise
    host, port = peers.address
    own = Member(number=peers.number, host=host, port=port, group=origin.group, machine=origin.machine)
    return peers, msgspec.structs.replace(view, members=(*view.members, own), source="outside", follows=False)


class Guest(NamedTuple):
    """A process that waits to be let in."""

    member: Member
    epoch: int
    """Of the membership that it was told of: it may be over by the time that it is let in."""


class Door:
    """Lets guests in, at the leader; elsewhere it says who leads."""

    def __init__(self, peers: Peers, origin: Origin) -> None:
        self._peers, self._origin = peers, origin
        self._coming: dict[int, Guest] = {}
        self._highest = 0

    def admit(self, view: View) -> list[Guest]:
        """Guests who are linked to all members and may be counted in; called between steps."""
        # A leader that is gone may have given numbers to guests who are linked here and in no view yet.
        self._highest = max(self._highest, *(one.number for one in view.members), *self._peers.known())
        leader = min(view.members, key=lambda one: one.number)
        while not self._peers.guests.empty():
            sock, card = self._peers.guests.get()
            with contextlib.suppress(OSError), sock:
                if leader.number != self._peers.number:
                    say(sock, {"leader": [leader.host, leader.port]})
                else:
                    self._answer(sock, card, view)
        here = [number for number in self._coming if self._peers.told(number, "here", bool)]
        return [self._coming.pop(number) for number in here]

    def _answer(self, sock: socket.socket, card: dict[str, Any], view: View) -> None:
        own = self._origin.card
        apart = next((field for field in MUST if card.get(field) != own[field]), None)
        if apart is not None:
            say(sock, {"refused": apart})
            return
        self._highest += 1
        number = self._highest
        self._coming[number] = Guest(
            Member(number=number, host=card["host"], port=int(card["port"]), group=card["group"], machine=card["machine"]), view.epoch
        )
        say(sock, {"number": number, "job": self._peers.job, "view": msgspec.to_builtins(view, str_keys=True)})
