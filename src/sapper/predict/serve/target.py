"""Target: the chips that may serve: so many of them, or as many as it takes."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.chips.schema import Chip
from sapper.clusters.assume import Assumptions
from sapper.clusters.build import group_of
from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadValue
from sapper.evidence import Fact
from sapper.predict.engine import the_group

MOST_CHIPS = 8192
"""Chips of the largest replica that is looked at: SRAM chips take thousands to hold a large model."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A chip, how many of it there are, and the site."""

    name: str
    chip: Chip
    count: int | None
    """None: as many as the question takes."""
    group: Group | None = None
    """As given; None: built for each number of chips by the rules of :mod:`sapper.clusters.build`."""
    assumed: Assumptions | None = None
    power_price: Fact | None = None
    pue: Fact | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> Target:
        """A cluster with its own number of chips.

        Raises:
            BadValue: It mixes unlike chips.
        """
        group = the_group(cluster)
        return cls(name=cluster.name, chip=group.chip, count=group.chips, group=group, power_price=cluster.power_price, pue=cluster.pue)

    @classmethod
    def open(cls, cluster: Cluster, *, assumed: Assumptions | None) -> Target:
        """As many of the cluster's chip as the question takes."""
        group = the_group(cluster)
        return cls(name=group.chip.id, chip=group.chip, count=None, assumed=assumed, power_price=cluster.power_price, pue=cluster.pue)

    def group_for(self, chips: int) -> Group:
        """The group in which a replica of ``chips`` chips stands.

        Raises:
            BadValue: There are not so many, or they do not fill nodes.
        """
        if self.group is not None:
            if chips > self.group.chips:
                raise BadValue("SP-SERVE-020", where="plan", need=chips, have=self.group.chips)
            return self.group
        return group_of(self.chip, chips, assumed=self.assumed)

    @property
    def most_chips(self) -> int:
        """Chips that a replica may have."""
        return self.count if self.count is not None else MOST_CHIPS
