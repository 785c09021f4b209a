"""The links of one member to the others that it works with."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable

import numpy as np

from sapper.mix.wire.dtypes import Array, name_of, narrow, widen
from sapper.mix.wire.faults import BadFrame, WireError
from sapper.mix.wire.frame import Frame
from sapper.mix.wire.link import Limits, Link
from sapper.mix.wire.meet import Meeting, hear, say

_FLOATS = {"fp64", "fp32", "bf16", "fp16"}


class Hub:
    """Sends to and receives from members by rank, floating point in an agreed dtype.

    Args:
        meeting: What came of the start.
        peers: The members to be connected to; if a names b, b names a.
        limits: Times.

    Raises:
        WireError: A peer cannot be reached.
    """

    def __init__(self, meeting: Meeting, *, peers: Iterable[int], limits: Limits | None = None) -> None:
        self.rank = meeting.rank
        self.members = meeting.members
        self.limits = limits or Limits()
        self._links: dict[int, Link] = {}
        wanted = set(peers) - {self.rank}
        try:
            with meeting.listener as listener:
                self._connect(meeting, sorted(peer for peer in wanted if peer < self.rank))
                self._accept(meeting, listener, {peer for peer in wanted if peer > self.rank})
        except BaseException:
            self.close("it could not connect")
            raise

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close("" if error is None else f"it stopped: {type(error).__name__}")

    @property
    def lost(self) -> dict[int, str]:
        """The peers that are gone, and why."""
        return {peer: link.lost for peer, link in self._links.items() if link.lost is not None}

    @property
    def moved_bytes(self) -> dict[int, tuple[int, int]]:
        """Peer -> bytes sent and received so far, everything included."""
        return {peer: (link.sent_bytes, link.received_bytes) for peer, link in self._links.items()}

    def send(self, peer: int, tag: str, *, array: Array, wire: str | None = None, holds: str | None = None) -> None:
        """Send some time soon; returns at once.

        Args:
            peer: The receiver.
            tag: What it asks for.
            array: What to send. It must not change before :meth:`flush` where ``wire`` is its own dtype; else it is converted now.
            wire: Dtype on the way, for floating point; None: as it is.
            holds: What the bits of ``array`` mean, where that is not its own dtype: ``bf16``.

        Raises:
            PeerLost: The peer is gone.
        """
        have = holds or name_of(array)
        if have in _FLOATS and wire not in {None, have}:
            self._links[peer].send(tag, narrow(widen(array, have), str(wire)), dtype=wire)
        else:
            self._links[peer].send(tag, np.asarray(array, order="C"), dtype=have)

    def frame(self, peer: int, tag: str, *, timeout_s: float | None = None) -> Frame:
        """The next message of ``tag`` from ``peer``, as bits.

        Raises:
            PeerLost: The peer is gone.
            Overdue: It lives but nothing came in time.
        """
        return self._links[peer].receive(tag, timeout_s=timeout_s)

    def receive(self, peer: int, tag: str, *, timeout_s: float | None = None) -> Array:
        """The next array of ``tag`` from ``peer``, as :meth:`frame` gives it; bf16 and fp16 come as fp32."""
        found = self.frame(peer, tag, timeout_s=timeout_s)
        return widen(found.array, found.dtype) if found.dtype in {"bf16", "fp16"} else found.array

    def flush(self) -> None:
        """Until all that was sent may change.

        Raises:
            PeerLost: A peer is gone.
            Overdue: One takes nothing although it lives.
        """
        for link in self._links.values():
            link.flush()

    def close(self, reason: str = "") -> None:
        """Say farewell to all; ``reason`` is what they learn, empty where all is well."""
        # All at once: a peer that does not answer is no reason for the others to learn late.
        threads = [threading.Thread(target=link.close, args=(reason,), daemon=True) for link in self._links.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _connect(self, meeting: Meeting, peers: list[int]) -> None:
        for peer in peers:
            member = meeting.members[peer]
            try:
                sock = socket.create_connection((member.host, member.port), timeout=self.limits.meet_s)
                say(sock, {"job": meeting.job, "rank": self.rank})
            except OSError as error:
                problem = error.strerror or str(error)
                raise WireError("SP-MIX-157", where=f"{member.host}:{member.port}", rank=peer, problem=problem) from error
            self._links[peer] = Link(sock, peer, limits=self.limits)

    def _accept(self, meeting: Meeting, listener: socket.socket, missing: set[int]) -> None:
        due = time.monotonic() + self.limits.meet_s
        while missing:
            left_s = due - time.monotonic()
            if left_s <= 0:
                raise WireError("SP-MIX-158", ranks=", ".join(map(str, sorted(missing))), limit_s=f"{self.limits.meet_s:g}")
            listener.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                self._welcome(meeting, listener.accept()[0], missing)

    def _welcome(self, meeting: Meeting, sock: socket.socket, missing: set[int]) -> None:
        """Keep a connection of a member that is expected; drop any other."""
        with contextlib.suppress(OSError, BadFrame, AttributeError):
            hello = hear(sock, within_s=self.limits.meet_s)
            if hello.get("job") == meeting.job and hello.get("rank") in missing:
                missing.discard(hello["rank"])
                self._links[hello["rank"]] = Link(sock, hello["rank"], limits=self.limits)
                return
        sock.close()
