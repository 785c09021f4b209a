"""Process groups of PyTorch inside one membership, which end with it: Gloo has no way to give up a collective that waits for a member."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import threading
from typing import Any

import torch.distributed as dist

import torch
from sapper.mix.survive.circle import Circle
from sapper.mix.wire.faults import WireError

_LOOK_S = 0.05


class Groups:
    """Groups of a circle, over a store that the first member of each opens for it alone."""

    def __init__(self, circle: Circle) -> None:
        self._circle = circle
        self._groups: dict[tuple[tuple[int, ...], str], Any] = {}
        self._stores: list[Any] = []
        self._sockets: dict[int, str] = {}
        self._watching = False

    def get(self, members: tuple[int, ...], purpose: str) -> Any:
        """The group of ``members``; each of them asks for it in the same order of calls."""
        key = members, purpose
        if key not in self._groups:
            self._groups[key] = self._made(members, purpose)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="groups", daemon=True).start()
        return self._groups[key]

    def _made(self, members: tuple[int, ...], purpose: str) -> Any:
        circle, tag = self._circle, f"group {purpose} {members}"
        if circle.rank == members[0]:
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            for one in members[1:]:
                circle.put(one, tag, torch.tensor([store.port]))
        else:
            port = int(circle.get(members[0], tag))
            store = dist.TCPStore(circle.view.members[members[0]].host, port, is_master=False, wait_for_workers=False)
        self._stores.append(store)
        before = _sockets()
        limit = datetime.timedelta(seconds=circle.limits.message_s)
        group = dist.ProcessGroupGloo(dist.PrefixStore(purpose, store), members.index(circle.rank), len(members), limit)
        self._sockets |= {handle: name for handle, name in _sockets().items() if before.get(handle) != name}
        return group

    def _watch(self) -> None:
        """Wake whoever waits in a collective when the membership changes: end the connections under it."""
        while not self._circle.broken.wait(_LOOK_S):
            with contextlib.suppress(WireError):
                self._circle.check()
        now = _sockets()
        for handle, name in self._sockets.items():
            if now.get(handle) == name:
                _shut(handle)


def _sockets() -> dict[int, str]:
    """The sockets of this process, by handle; none where the system does not list them."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{name}")
                if target.startswith("socket:"):
                    found[int(name)] = target
    return found


def _shut(handle: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as one:
        # Gloo ends the process where its listening socket is taken away.
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            one.shutdown(socket.SHUT_RDWR)
