"""The members of one membership, by rank: any change of the membership breaks whatever waits in it, within milliseconds."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

import torch
from sapper.mix.survive.member import View
from sapper.mix.survive.peers import Peers
from sapper.mix.wire.dtypes import BITS, Array, name_of, narrow, widen
from sapper.mix.wire.faults import Overdue, PeerLost

_SLICE_S = 0.02
"""Between looks at the other members while waiting for one."""
_TORCH = {
    "fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int64": torch.int64,
    "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in _TORCH.items()}
"""Of dtypes on the wire."""


class Circle:
    """The members of a view by rank, as the wire's reducer wants them.

    Args:
        peers: The links.
        view: The membership; only seated members send and receive.
    """

    def __init__(self, peers: Peers, view: View) -> None:
        self.view, self.limits = view, peers.limits
        self._peers = peers
        self._numbers = [one.number for one in view.members]
        rank = view.rank_of(peers.number)
        self.rank = -1 if rank is None else rank
        self.broken = threading.Event()

    def check(self) -> None:
        """Whether all members are still there.

        Raises:
            PeerLost: One is gone, or says that one is.
        """
        lost = self._peers.lost(self._numbers)
        if lost:
            self.broken.set()
            raise PeerLost("SP-MIX-150", rank=min(lost), reason=self._peers.why(min(lost)))
        asked = self._peers.reported(self.view.turns).keys() & set(self._numbers)
        if self.broken.is_set() or asked or self._peers.alarmed(self._numbers, self.view.epochs):
            self.broken.set()
            raise PeerLost("SP-MIX-194", rank=-1)

    def send(self, peer: int, tag: str, *, array: Array, wire: str | None = None) -> None:
        """Send some time soon, without a change of dtype unless ``wire`` names a narrower one."""
        if wire is not None and array.dtype.kind == "f":
            self._put(peer, tag, narrow(array, wire), wire)
        else:
            self._put(peer, tag, array, name_of(array))

    def receive(self, peer: int, tag: str, *, timeout_s: float | None = None) -> Array:
        """The next array of ``tag``; bf16 and fp16 come as fp32."""
        array, name = self.bits(peer, tag, timeout_s=timeout_s)
        return widen(array, name) if name in {"bf16", "fp16"} else array

    def put(self, peer: int, tag: str, tensor: Any) -> None:
        """Send a tensor on the CPU as it is."""
        name = NAMES[tensor.dtype]
        bits = tensor.contiguous()
        self._put(peer, tag, (bits.view(torch.int16) if name == "bf16" else bits).numpy(), name)

    def get(self, peer: int, tag: str, *, timeout_s: float | None = None) -> Any:
        """The next tensor of ``tag``."""
        array, name = self.bits(peer, tag, timeout_s=timeout_s)
        tensor = torch.from_numpy(array.view(np.int16) if name == "bf16" else array)
        return tensor.view(_TORCH[name]) if name == "bf16" else tensor

    def bits(self, peer: int, tag: str, *, timeout_s: float | None = None) -> tuple[Array, str]:
        """The next message of ``tag`` and the name of its dtype.

        Raises:
            PeerLost: Any member is gone, not this one alone.
            Overdue: All live and nothing came in time.
        """
        link = self._peers.link(self._numbers[peer])
        due = time.monotonic() + (self.limits.message_s if timeout_s is None else timeout_s)
        while True:
            try:
                frame = link.receive(f"{self.view.epoch}/{tag}", timeout_s=_SLICE_S)
                return frame.array, frame.dtype
            except Overdue:
                self.check()
                if time.monotonic() > due:
                    raise
            except PeerLost:
                self.broken.set()
                raise

    def _put(self, peer: int, tag: str, array: Array, name: str) -> None:
        if self.broken.is_set():
            self.check()
        self._peers.link(self._numbers[peer]).send(f"{self.view.epoch}/{tag}", np.asarray(array, dtype=BITS[name], order="C"), dtype=name)
