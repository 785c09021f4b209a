"""The wire: how processes that share no communication library work together.

Members meet (:mod:`~sapper.mix.wire.meet`), are linked (:mod:`~sapper.mix.wire.hub`), and send arrays or sum them
(:mod:`~sapper.mix.wire.reduce`) over TCP by a small framed protocol of Sapper's own (:mod:`~sapper.mix.wire.frame`), through host
memory, in NumPy and the standard library alone: the two ends may run different builds of PyTorch, or none. A frame carries
numbers, shapes and text, never code, so nothing that a peer sends is executed.
"""

from __future__ import annotations

from sapper.mix.wire.faults import BadFrame, Disagreement, Overdue, PeerLost, WireError
from sapper.mix.wire.hub import Hub
from sapper.mix.wire.link import Limits, Link
from sapper.mix.wire.meet import Card, Meeting, Member, meet
from sapper.mix.wire.reduce import Reducer, shares

__all__ = [
    "BadFrame",
    "Card",
    "Disagreement",
    "Hub",
    "Limits",
    "Link",
    "Meeting",
    "Member",
    "Overdue",
    "PeerLost",
    "Reducer",
    "WireError",
    "meet",
    "shares",
]
