"""Process groups inside one island, by the backend of its device: sets of its members that reduce, gather or broadcast together."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from sapper.mix.run.backend import backend_of
from sapper.mix.run.exchange import Group


class Groups:
    """Makes groups on demand; all members of a group ask for it in the same order.

    On the CPU they are Gloo groups of our own, which a job can give up and make anew after a member is gone. A vendor's library has
    PyTorch make them, from a default group of the whole island.

    Args:
        store: A store that the island's members reach.
        island: Ranks of its members, rising.
        rank: Own rank.
        device: Type of the device.
        timeout_s: How long a collective waits.
    """

    def __init__(self, store: Any, *, island: Sequence[int], rank: int, device: str, timeout_s: float) -> None:
        self._store, self._island, self._rank = store, tuple(island), rank
        self._timeout = datetime.timedelta(seconds=timeout_s)
        self.backend = backend_of(device)
        self._made: dict[tuple[tuple[int, ...], str], Group] = {}
        if self.backend != "gloo":
            dist.init_process_group(
                self.backend, store=store, rank=self._island.index(rank), world_size=len(self._island), timeout=self._timeout
            )  # fmt: skip

    def of(self, members: Sequence[int], *, purpose: str = "") -> Group:
        """The group of ``members``; groups of unlike purposes are apart, so that their calls need no common order."""
        key = (tuple(members), purpose)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, members: tuple[int, ...], purpose: str) -> Group:
        if self.backend == "gloo":
            store = dist.PrefixStore(f"{purpose} {','.join(map(str, members))}", self._store)
            return dist.ProcessGroupGloo(store, members.index(self._rank), len(members), self._timeout)
        places = [self._island.index(one) for one in members]
        name = f"sapper {purpose} {members}"
        return dist.new_group(places, timeout=self._timeout, use_local_synchronization=True, group_desc=name)

    def close(self) -> None:
        """Give all groups up."""
        self._made.clear()
        if self.backend != "gloo" and dist.is_initialized():
            dist.destroy_process_group()
