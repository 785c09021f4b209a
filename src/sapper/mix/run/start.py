"""The start of a run over islands: who sits where, whether all may work together, and how they are joined."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist

import torch
from sapper import __version__
from sapper.errors import BadValue
from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.comm import GlooComm
from sapper.mix.run.groups import Groups
from sapper.mix.run.islands import IslandsComm
from sapper.mix.wire import Card, Disagreement, Limits, Member, meet

MUST = ("sapper", "plan", "model")
"""Of a card, what has to be equal on all ranks; the wire adds its own version and the number of processes."""
_DIGITS = 16
"""Of a digest, enough to tell two apart and to read aloud."""


def rank_of(plan: MixPlan, group: str, *, place: int) -> int:
    """The rank of the ``place``-th process of a group.

    Raises:
        BadValue: The plan has no such group, or fewer seats for it.
    """
    taken = [seat.rank for seat in seats(plan) if seat.group == group]
    if not 0 <= place < len(taken):
        raise BadValue("SP-MIX-166", group=group, place=place, seats=len(taken), groups=", ".join(plan.chips))
    return taken[place]


def card_of(plan: MixPlan, *, group: str, model: str, device: str) -> dict[str, str]:
    """What this process is.

    Args:
        plan: As this process read it.
        group: Where it sits.
        model: Digest of the model as this process built it.
        device: Type of its device.
    """
    return {
        "sapper": __version__,
        "plan": plan.digest[:_DIGITS],
        "model": model[:_DIGITS],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "group": group,
        "device": device,
        "host": socket.gethostname(),
    }


def join(
    plan: MixPlan, rank: int, *, at: tuple[str, int], model: str, device: str = "cpu", limits: Limits | None = None
) -> IslandsComm:  # fmt: skip
    """Come together with the other processes of ``plan``; nothing has been computed before it returns.

    Args:
        plan: The plan.
        rank: Of this process's seat.
        at: Host and port of rank 0, which has to run there.
        model: Digest of the model as this process built it.
        device: Type of the device.
        limits: Times of the wire.

    Raises:
        Disagreement: A rank has another plan, model or version of Sapper, or an island runs two builds of PyTorch.
        WireError: Somebody did not come.
    """
    limits = limits or Limits()
    taken = seats(plan)
    group = taken[rank].group
    islands = islands_of(plan)
    mine = islands[list(plan.chips).index(group)]
    card = card_of(plan, group=group, model=model, device=device)
    store: Any = None
    if rank == mine[0]:
        # Any free port; only the island's own members speak to it, so that it may be of any version.
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        card["store"] = str(store.port)
    meeting = meet(rank, len(taken), at=at, card=card, must=MUST, limits=limits)
    try:
        _check_islands(meeting.members, islands)
    except Disagreement:
        meeting.listener.close()
        raise
    first = meeting.members[mine[0]]
    if store is None:
        store = dist.TCPStore(first.host, int(first.card["store"]), is_master=False, wait_for_workers=False)
    groups = Groups(dist.PrefixStore("groups", store), island=mine, rank=rank, device=device, timeout_s=limits.message_s)
    inside = GlooComm(dist.PrefixStore("sends", store), rank=mine.index(rank), size=len(mine), timeout_s=limits.message_s)
    return IslandsComm(meeting, islands=islands, groups=groups, inside=inside, limits=limits)


def islands_of(plan: MixPlan) -> list[list[int]]:
    """Ranks of each group of the plan."""
    return [[seat.rank for seat in seats(plan) if seat.group == group] for group in plan.chips]


def place_of(environment: Mapping[str, str] = os.environ) -> int:
    """The place of this process in its group: what torchrun, started once for each group, calls its rank."""
    return int(environment.get("RANK", "0"))


def _check_islands(members: Sequence[Member], islands: Sequence[Sequence[int]]) -> None:
    """Refuse an island of two builds: its collectives would hang or crash.

    Raises:
        Disagreement: Names the rank that differs.
    """
    for island in islands:
        cards: list[Card] = [members[rank].card for rank in island]
        for field in ("torch", "device", "group"):
            values = [card[field] for card in cards]
            for rank, value in zip(island, values, strict=True):
                if value != values[0]:
                    raise Disagreement(
                        "SP-MIX-167", group=cards[0]["group"], field=field, odd=rank, value=value, first=island[0], most=values[0]
                    )
