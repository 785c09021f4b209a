"""The weights of a stage whose states several chips share; see :mod:`sapper.mix.run.owners`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from sapper.mix.run.exchange import Group, hand_on


class Shared:
    """The weights of a stage, each with its owner.

    Args:
        weights: By name, in the dtype that passes compute in.
        masters: The same as the optimizer steps them.
        owner: Weight -> rank of its owner; see :func:`owners`.
        members: The ranks that share them; see :func:`alike`.
        rank: Own rank.
        group: Of the members, in their order; None where nothing is handed on.
    """

    def __init__(
        self, weights: Mapping[str, torch.Tensor], masters: Mapping[str, torch.Tensor], *, owner: Mapping[str, int],
        members: Sequence[int], rank: int, group: Group | None,
    ) -> None:  # fmt: skip
        self._members, self._group = members, group
        self._weights, self._masters = weights, masters
        self._owned: dict[int, list[str]] = {one: [name for name in weights if owner[name] == one] for one in members}
        self.own: Collection[str] = self._owned[rank]
        """The weights whose states are here."""

    @torch.no_grad()
    def spread(self) -> None:
        """Take each weight from its master; give it, after its owner's step, to the others."""
        for name in self.own:
            if self._weights[name] is not self._masters[name]:
                self._weights[name].copy_(self._masters[name])
        if self._group is None:
            return
        for place, member in enumerate(self._members):
            hand_on([self._weights[name].data for name in self._owned[member]], self._group, root=place)
