"""What can go wrong between two members."""

from __future__ import annotations

from sapper.errors import SapperError


class WireError(SapperError):
    """The wire could not carry something."""


class PeerLost(WireError):
    """A member is gone: its connection was reset or closed, or nothing was heard of it for too long.

    ``values["rank"]`` is the member, ``values["reason"]`` what was seen.
    """

    @property
    def rank(self) -> int:
        """The member that is gone."""
        return int(self.values["rank"])


class Overdue(WireError):
    """A message did not come within its time although its sender lives: a hung peer, or two that do not agree on what comes next."""


class Disagreement(WireError):
    """Members that may not work together: refused before anything is computed."""


class BadFrame(Exception):
    """Bytes that are no frame of this protocol: a foreign program at the port, or a cable that lies. Ends the link."""
