"""What members of a job tell each other when the membership changes."""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.plan import MixPlan


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the job. Its number is its own for the life of the job and never given again."""

    number: int
    host: str
    """Address that it listens at."""
    port: int
    group: str
    """Group of chips that it has one of."""
    machine: str
    """Name of the machine, shared by the members that are lost together with it."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a seat answers for of the state of the layers ``first`` to ``last`` (excluded) after ``step`` steps, in somebody's memory."""

    step: int
    first: int
    last: int
    tp: int = 1
    shard: int = 0
    """Of the tensor parallel group of ``tp`` chips."""
    shares: int = 1
    """Chips that share the states of these layers by ZeRO."""
    share: int = 0
    """Of these, which: it has the weights that it owns, and their states."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a member knows and has, to whoever leads the change."""

    number: int
    turn: int
    """Counts the reports of this member; the answer names it."""
    epoch: int
    """The last membership that it worked in."""
    begun: int
    """Steps that it had begun."""
    lost: tuple[int, ...]
    """Members that it cannot reach."""
    held: tuple[Held, ...]
    ledger: Ledger
    factors: dict[int, tuple[float, int]] = msgspec.field(default_factory=dict)
    """Step -> state of the factor of losses."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """State that one member gives to another."""

    source: int
    target: int
    held: Held
    """That the source has it from."""
    first: int
    """First layer that is given."""
    last: int
    """One past the last."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A membership, and how it begins."""

    epoch: int
    turns: dict[int, int]
    """Member -> the turn of the report that this answers."""
    members: tuple[Member, ...]
    """By rank of the plan's seats; those beyond the last seat are spare."""
    plan: MixPlan
    step: int
    """Steps that are in the weights."""
    moves: tuple[Move, ...] = ()
    source: str = "members"
    """Where the state comes from: ``members``, ``checkpoint`` or ``start`` (the seed); ``outside``: this member waits to be let in."""
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    scale: tuple[float, int] | None = None
    """State of the factor of losses; None: that of a beginning."""
    reason: str = ""
    planned: str = ""
    """How the plan came about: see :data:`sapper.mix.survive.planner.How`; empty: it is that of the start."""
    follows: bool = False
    """Made by each member for itself from the view before, so that whoever leaves that one in another way leaves this one too."""

    def rank_of(self, number: int) -> int | None:
        """Rank of a member; None where it has no seat or is not in the view."""
        seats = sum(self.plan.chips.values())
        for rank, member in enumerate(self.members[:seats]):
            if member.number == number:
                return rank
        return None

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those whose end is the end of this view."""
        return (self.epoch - 1, self.epoch) if self.follows else (self.epoch,)

    @property
    def seated(self) -> tuple[Member, ...]:
        """Members with a seat, by rank."""
        return self.members[: sum(self.plan.chips.values())]


def may_go_on(before: Iterable[int], *, alive: Set[int], dead: Set[int]) -> bool:
    """Whether the members ``alive`` may go on without the rest of those ``before``.

    Members that are known to be dead (their machine says that the process is gone) do not count. Of the others more than half are
    needed, or half with the lowest number: of two parts that a cut cable leaves alive, one goes on at most.
    """
    counted = set(before) - dead
    have = counted & alive
    return 2 * len(have) > len(counted) or (2 * len(have) == len(counted) and bool(have) and min(counted) in have)
