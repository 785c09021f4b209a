"""Agreement on the next membership: reports to the member with the lowest number, its decision to all; again whenever one more is lost.

There is no server whose loss could end the job: the leader is whoever is left with the lowest number, found by each member from what
its own links say. A decision counts for a member only if it answers the member's latest report, so that one made before a further
loss is passed over by all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sapper.mix.survive.member import Member, Report, View, may_go_on
from sapper.mix.survive.peers import Peers
from sapper.mix.wire.faults import WireError

_POLL_S = 0.005
_VIEW = "view"


class Outcast(WireError):
    """The others may be going on without this member: it is cut off from more than half of them."""


@dataclass(frozen=True)
class Setting:
    """What a member goes by."""

    peers: Peers
    members: Sequence[Member]
    """Of the last membership, with those who wait to join."""
    report: Callable[[int, Iterable[int]], Report]
    """Makes a report from the turn and the members that are lost."""
    decide: Callable[[Sequence[Member], dict[int, Report]], View]
    """Of the leader."""
    turns: Mapping[int, int]
    """The reports that the last membership answered."""
    silent_s: float
    """For a report of a member that has not been lost."""
    host: int | None = None
    """Who lets this member in, while it is not in yet: nobody else knows of it."""


class Regroup:
    """Leads or follows, as it comes."""

    def __init__(self) -> None:
        self._turn = 0
        self._first = 0
        """Of the change that is under way."""

    def agree(self, setting: Setting) -> View:
        """The next membership.

        Raises:
            Outcast: This member is cut off, or the others go on without it.
        """
        peers = setting.peers
        numbers = {one.number for one in setting.members}
        excluded: set[int] = set()
        self._first = self._turn + 1
        dead: set[int] = set()
        due = time.monotonic() + 4 * setting.silent_s
        while time.monotonic() < due:
            lost = peers.lost(numbers) | excluded
            if setting.host in lost:
                raise Outcast("SP-MIX-196", number=setting.host)
            alive = numbers - lost
            if not may_go_on(numbers, alive=alive, dead=dead):
                # Asked only where it matters: a process that hangs does not answer, which takes a while.
                dead |= peers.dead(lost - dead)
            if not may_go_on(numbers, alive=alive, dead=dead):
                raise Outcast("SP-MIX-195", alive=len(alive), total=len(numbers), lost=", ".join(map(str, sorted(lost))))
            self._turn += 1
            leader = min(alive)
            if leader == peers.number:
                found = self._lead(setting, alive, lost, excluded)
            else:
                found = self._follow(setting, leader, alive, lost)
            if found is not None:
                return found
        raise Outcast("SP-MIX-195", alive=len(numbers - peers.lost(numbers)), total=len(numbers), lost="-")

    def _lead(self, setting: Setting, alive: set[int], lost: set[int], excluded: set[int]) -> View | None:
        """Gather, decide, tell; None: one more was lost meanwhile."""
        peers = setting.peers
        reports = {peers.number: setting.report(self._turn, lost)}
        due = time.monotonic() + setting.silent_s
        while len(reports) < len(alive):
            came = peers.reported(setting.turns)
            reports |= {number: came[number] for number in alive & came.keys()}
            if peers.lost(alive):
                return None
            if time.monotonic() > due:
                # Alive by its beats, but its work does not come to an end.
                excluded |= alive - set(reports)
                return None
            time.sleep(_POLL_S)
        apart = _apart(reports)
        if apart is not None:
            excluded.add(apart)
            return None
        view = setting.decide([one for one in setting.members if one.number in alive], reports)
        for number in alive - {peers.number}:
            peers.tell(number, _VIEW, view)
        return view

    def _follow(self, setting: Setting, leader: int, alive: set[int], lost: set[int]) -> View | None:
        """Report and wait; None: somebody was lost meanwhile."""
        peers = setting.peers
        peers.report(leader, setting.report(self._turn, lost))
        due = time.monotonic() + 3 * setting.silent_s
        while time.monotonic() < due:
            view = peers.told(leader, _VIEW, View)
            # What this member holds is the same in all its reports of one change.
            if view is not None and view.turns.get(peers.number, 0) >= self._first:
                return view
            if peers.lost(alive):
                return None
            time.sleep(_POLL_S)
        raise Outcast("SP-MIX-196", number=leader)


def _apart(reports: dict[int, Report]) -> int | None:
    """Of members that cannot reach each other though the leader reaches both, the one that most cannot reach."""
    missed: dict[int, int] = {}
    for report in reports.values():
        for number in report.lost:
            if number in reports:
                missed[number] = missed.get(number, 0) + 1
    return max(missed, key=lambda number: (missed[number], number), default=None)
