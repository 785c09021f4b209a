"""Messages that a search has asked the time of before."""

from __future__ import annotations

from collections.abc import Mapping

from sapper.mix.problem import Network


class Remembered:
    """A :class:`~sapper.mix.problem.Network` that answers what it was asked before from memory: plans ask the same few questions."""

    def __init__(self, network: Network) -> None:
        """Of ``network``, whose answers depend on the question alone."""
        self._network = network
        self._sends: dict[tuple[float, str, str, int], float] = {}
        self._reductions: dict[tuple[float, tuple[tuple[tuple[str, int], int], ...]], float] = {}

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """See :meth:`Network.send_s`."""
        key = size_bytes, source, target, tp
        if key not in self._sends:
            self._sends[key] = self._network.send_s(size_bytes, source=source, target=target, tp=tp)
        return self._sends[key]

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """See :meth:`Network.all_reduce_s`."""
        key = size_bytes, tuple(members.items())
        if key not in self._reductions:
            self._reductions[key] = self._network.all_reduce_s(size_bytes, members)
        return self._reductions[key]
