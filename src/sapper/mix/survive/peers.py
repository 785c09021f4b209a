"""Peers: the links of one member to all others, kept across changes of the membership; and the door for those who come later."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from sapper.mix.survive.member import Member, Report
from sapper.mix.wire.faults import BadFrame, Overdue, PeerLost
from sapper.mix.wire.link import Limits, Link
from sapper.mix.wire.meet import hear, say

T = TypeVar("T")
_ALARM = "alarm"
_REPORT = "report"
_HELLO_S = 5.0
_ASKED_S = 0.3
"""For a machine to say that a process is gone."""


class Peers:
    """Links by member number.

    Args:
        job: Names the run; whoever does not know it is not let in.
        listener: Where the others connect to.
        limits: Times of the links.
    """

    def __init__(self, job: str, listener: socket.socket, *, limits: Limits) -> None:
        self.job, self.limits = job, limits
        self.number = -1
        self.addresses: dict[int, tuple[str, int]] = {}
        self.guests: queue.SimpleQueue[tuple[socket.socket, dict[str, Any]]] = queue.SimpleQueue()
        """Connections of processes that want to join, with their card."""
        self.reports: dict[int, Report] = {}
        """The last report of each member that came here."""
        self._links: dict[int, Link] = {}
        self._news = threading.Condition()
        self._listener = listener
        self._closed = threading.Event()
        threading.Thread(target=self._welcome, name="peers", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where this member listens."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def connect(self, members: Iterable[Member], *, within_s: float) -> None:
        """Be linked to all ``members``: connect to those of lower number, wait for those of higher.

        Raises:
            PeerLost: One is not to be reached.
        """
        others = [one for one in members if one.number != self.number]
        for one in others:
            self.addresses[one.number] = (one.host, one.port)
            if one.number < self.number and one.number not in self._links:
                self._keep(self._dial(one, within_s=within_s), one.number)
        with self._news:
            due = [one.number for one in others]
            self._news.wait_for(lambda: all(number in self._links for number in due), within_s)
            for number in due:
                if number not in self._links:
                    raise PeerLost("SP-MIX-150", rank=number, reason="it did not come")

    def known(self) -> set[int]:
        """Members that have ever been linked, whether or not they have a part in the job yet."""
        with self._news:
            return set(self._links)

    def link(self, number: int) -> Link:
        """The link to a member."""
        return self._links[number]

    def lost(self, numbers: Iterable[int]) -> set[int]:
        """Those of ``numbers`` that cannot be reached any more."""
        with self._news:
            return {one for one in numbers if one != self.number and (one not in self._links or self._links[one].lost is not None)}

    def why(self, number: int) -> str:
        """What was seen of a lost member."""
        link = self._links.get(number)
        return (link.lost or "") if link is not None else "never linked"

    def dead(self, numbers: Iterable[int]) -> set[int]:
        """Those of ``numbers`` whose machine says that the process is gone; silence says nothing."""
        return {one for one in numbers if one in self.addresses and _refused(self.addresses[one])}

    def tell(self, number: int, tag: str, value: Any) -> None:
        """Send a message, or nothing where the member is lost."""
        with contextlib.suppress(PeerLost, KeyError):
            self._links[number].send(tag, np.frombuffer(msgspec.json.encode(value), np.uint8))

    def told(self, number: int, tag: str, kind: type[T], *, within_s: float = 0.0) -> T | None:
        """The next message of ``tag`` of a member; None: nothing yet, or it is lost."""
        link = self._links.get(number)
        if link is None or (not within_s and not link.has(tag)):
            return None
        with contextlib.suppress(PeerLost, Overdue):
            return msgspec.json.decode(bytes(link.receive(tag, timeout_s=within_s).array.data), type=kind)
        return None

    def report(self, number: int, report: Report) -> None:
        """Tell a member what this one has."""
        self.tell(number, _REPORT, report)

    def reported(self, turns: Mapping[int, int]) -> dict[int, Report]:
        """Reports that were made after ``turns``: members that ask for a new membership."""
        for number, link in list(self._links.items()):
            while link.has(_REPORT) and (found := self.told(number, _REPORT, Report)) is not None:
                self.reports[number] = found
        return {number: one for number, one in self.reports.items() if one.turn > turns.get(number, 0)}

    def alarm(self, numbers: Iterable[int], epoch: int) -> None:
        """Make ``numbers`` leave the work of ``epoch``."""
        for one in numbers:
            if one != self.number:
                self.tell(one, f"{_ALARM}/{epoch}", 0)

    def alarmed(self, numbers: Iterable[int], epochs: Iterable[int]) -> bool:
        """Whether one of ``numbers`` has said so of one of ``epochs``."""
        links = [self._links[one] for one in numbers if one != self.number and one in self._links]
        return any(link.has(f"{_ALARM}/{epoch}") for epoch in epochs for link in links)

    def drop(self, number: int) -> None:
        """End the link to a member that the others go on without."""
        link = self._links.get(number)
        if link is not None:
            link.close("the others go on without it")

    def forget(self, epoch: int) -> None:
        """Drop what still lies here of the work of an epoch that is over."""
        for link in list(self._links.values()):
            link.forget(f"{epoch}/")
            link.forget(f"{_ALARM}/{epoch}")

    def close(self) -> None:
        """Leave."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        threads = [threading.Thread(target=link.close, daemon=True) for link in self._links.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.limits.silent_s)

    def _keep(self, sock: socket.socket, number: int) -> None:
        with self._news:
            there = self._links.get(number)
            if there is not None and there.lost is None:  # two were given one number, by leaders of which one is gone
                sock.close()
                return
            self._links[number] = Link(sock, number, limits=self.limits)
            self._news.notify_all()

    def _dial(self, member: Member, *, within_s: float) -> socket.socket:
        try:
            sock = socket.create_connection((member.host, member.port), timeout=within_s)
            say(sock, {"job": self.job, "member": self.number})
        except OSError as error:
            raise PeerLost("SP-MIX-150", rank=member.number, reason=error.strerror or str(error)) from error
        return sock

    def _welcome(self) -> None:
        """Let in members of this job and hand guests to whoever leads; runs on a thread."""
        while not self._closed.is_set():
            try:
                sock = self._listener.accept()[0]
            except OSError:
                if self._closed.is_set():
                    return
                time.sleep(0.05)
                continue
            threading.Thread(target=self._greet, args=(sock,), name="greet", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, BadFrame, AttributeError, TypeError):
            hello = hear(sock, within_s=_HELLO_S)
            if hello.get("job") == self.job and isinstance(hello.get("member"), int):
                self._keep(sock, hello["member"])
                return
            if isinstance(hello.get("guest"), dict):
                self.guests.put((sock, hello["guest"]))
                return
        sock.close()


def _refused(address: tuple[str, int]) -> bool:
    """Whether nobody listens at ``address`` although its machine answers."""
    due = time.monotonic() + _ASKED_S
    while time.monotonic() < due:
        try:
            with socket.create_connection(address, timeout=_ASKED_S) as sock:
                sock.settimeout(_ASKED_S)
                if sock.recv(1):
                    return False
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        except OSError:  # reset: a process that is just ending
            time.sleep(0.01)
    return False
