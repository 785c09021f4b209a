"""The connection between two members: messages by tag in both directions, each sent and received by a thread of its own.

``send`` returns at once, so that what is sent overlaps what is computed; ``receive`` waits. A peer whose process ends is known at
once (its connection is reset or closed without a farewell), one that hangs or whose cable is cut when nothing was heard of it for
``Limits.silent_s``. From then on every call raises :class:`~sapper.mix.wire.faults.PeerLost`.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import socket
import threading
import time
from dataclasses import dataclass

import numpy as np

from sapper.mix.wire import frame
from sapper.mix.wire.dtypes import Array, name_of
from sapper.mix.wire.faults import BadFrame, Overdue, PeerLost
from sapper.mix.wire.frame import Frame, Kind

_JOINED_BYTES = 2**16
"""Up to this, head and elements go to the kernel in one piece."""
_LINGER_S = 2.0
"""For the peer's answer to a farewell, and for what came before a sending that fails."""
_EMPTY = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Limits:
    """What a member waits for, and how long."""

    meet_s: float = 120.0
    """Until all members have come to the start."""
    message_s: float = 600.0
    """For a message of a peer that lives."""
    beat_s: float = 0.5
    """Between signs of life where nothing else is sent."""
    silent_s: float = 10.0
    """Without a sign of life a peer counts as lost."""


class Link:
    """One end of a connection to the member ``peer``."""

    def __init__(self, sock: socket.socket, peer: int, *, limits: Limits) -> None:
        self.peer = peer
        self.sent_bytes = 0
        self.received_bytes = 0
        self._sock = sock
        self._limits = limits
        self._out: queue.SimpleQueue[tuple[Kind, str, Array, str] | threading.Event | None] = queue.SimpleQueue()
        self._inbox: dict[str, collections.deque[Frame]] = collections.defaultdict(collections.deque)
        self._news = threading.Condition()
        self._lost: str | None = None
        self._left = False
        self._heard_at = time.monotonic()
        sock.settimeout(limits.beat_s)
        with contextlib.suppress(OSError):  # not a TCP socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._threads = [
            threading.Thread(target=work, name=f"wire-{name}-{peer}", daemon=True)
            for name, work in (("send", self._send_all), ("receive", self._receive_all))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> str | None:
        """Why the peer is lost; None while it is not."""
        return self._lost

    def send(self, tag: str, array: Array, *, dtype: str | None = None) -> None:
        """Send ``array`` some time soon; it must not change before :meth:`flush`, or an answer that shows that it arrived.

        Args:
            tag: What the receiver asks for; messages of one tag arrive in order.
            array: The elements, contiguous.
            dtype: Name of what the bits mean; None: the array's own dtype.

        Raises:
            PeerLost: The peer is gone.
        """
        self._check()
        self._out.put((Kind.ARRAY, tag, array, dtype or name_of(array)))

    def receive(self, tag: str, *, timeout_s: float | None = None) -> Frame:
        """The next message of ``tag``.

        Raises:
            PeerLost: The peer is gone, and nothing of this tag came before.
            Overdue: Nothing of this tag within ``timeout_s`` (None: ``Limits.message_s``).
        """
        limit_s = self._limits.message_s if timeout_s is None else timeout_s
        with self._news:
            if not self._news.wait_for(lambda: self._inbox.get(tag) or self._lost is not None, limit_s):
                raise Overdue("SP-MIX-151", rank=self.peer, tag=tag, limit_s=f"{limit_s:g}")
            waiting = self._inbox.get(tag)
            if not waiting:
                self._check()
            found = self._inbox[tag].popleft()
            if not self._inbox[tag]:
                del self._inbox[tag]
            return found

    def flush(self, *, timeout_s: float | None = None) -> None:
        """Until all that was sent is with the kernel, so that the arrays may change.

        Raises:
            PeerLost: The peer is gone.
            Overdue: It takes nothing for ``timeout_s`` (None: ``Limits.message_s``) although it lives.
        """
        limit_s = self._limits.message_s if timeout_s is None else timeout_s
        gone = threading.Event()
        self._out.put(gone)
        due = time.monotonic() + limit_s
        while not gone.wait(self._limits.beat_s):
            self._check()
            if time.monotonic() > due:
                raise Overdue("SP-MIX-159", rank=self.peer, limit_s=f"{limit_s:g}")
        self._check()

    def has(self, tag: str) -> bool:
        """Whether a message of ``tag`` is there to be received."""
        with self._news:
            return bool(self._inbox.get(tag))

    def forget(self, prefix: str) -> None:
        """Drop what came with a tag that begins with ``prefix`` and nobody will ask for any more."""
        with self._news:
            for tag in [tag for tag in self._inbox if tag.startswith(prefix)]:
                del self._inbox[tag]

    def close(self, reason: str = "") -> None:
        """Say farewell and end both threads; what was sent before still goes out. ``reason``: what the peer learns, empty: all is well."""
        if self._lost is None:
            self._out.put((Kind.BYE, reason[: frame.MAX_TAG_BYTES // 4], _EMPTY, "uint8"))
        self._out.put(None)
        self._threads[0].join(self._limits.silent_s)
        # Half closed first: closing on unread data resets the connection, and the reset may overtake the farewell.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._threads[1].join(_LINGER_S)
        self._lose("closed here")
        self._threads[1].join(self._limits.silent_s)
        self._sock.close()

    def _check(self) -> None:
        if self._lost is not None:
            raise PeerLost("SP-MIX-150", rank=self.peer, reason=self._lost)

    def _lose(self, reason: str) -> None:
        with self._news:
            if self._lost is None:
                self._lost = reason
            self._news.notify_all()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send_all(self) -> None:
        try:
            while True:
                try:
                    message = self._out.get(timeout=self._limits.beat_s)
                except queue.Empty:
                    message = (Kind.BEAT, "", _EMPTY, "uint8")
                if message is None or self._lost is not None:
                    return
                if isinstance(message, threading.Event):
                    message.set()
                    continue
                kind, tag, array, dtype = message
                start, elements = frame.head(kind, tag, array, dtype=dtype), frame.raw(array)
                if len(elements) <= _JOINED_BYTES:
                    self._push(memoryview(start + bytes(elements)))
                else:
                    self._push(memoryview(start))
                    self._push(elements)
        except OSError as error:
            # What came before the end is still to be read: the other thread meets the end at once where the peer is gone.
            self._threads[1].join(_LINGER_S)
            self._lose(_why(error))

    def _push(self, data: memoryview) -> None:
        while data:
            try:
                sent = self._sock.send(data)
            except TimeoutError:
                # A full buffer is no fault while the peer gives signs of life; its silence is what the other thread watches.
                if self._lost is not None:
                    raise ConnectionError(self._lost) from None
                continue
            data = data[sent:]
            self.sent_bytes += sent

    def _receive_all(self) -> None:
        try:
            while not self._left:
                found = frame.read(self._fill)
                if found.kind is Kind.BYE:
                    self._left = True
                    self._lose(found.tag or "it left")
                elif found.kind is Kind.ARRAY:
                    with self._news:
                        self._inbox[found.tag].append(found)
                        self._news.notify_all()
        except BadFrame as error:
            self._lose(f"it sent what is no message ({error})")
        except OSError as error:
            self._lose(_why(error))

    def _fill(self, buffer: memoryview) -> None:
        while buffer:
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                silent_s = time.monotonic() - self._heard_at
                if silent_s > self._limits.silent_s:
                    raise ConnectionError(f"nothing heard of it for {silent_s:.1f} s") from None
                continue
            if not count:
                raise ConnectionError("its connection ended without a farewell")
            self._heard_at = time.monotonic()
            self.received_bytes += count
            buffer = buffer[count:]


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
