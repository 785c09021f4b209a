"""A cluster as lines to read: each value with its evidence, and what is unknown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from sapper.clusters.cluster import Cluster, Group, GroupLink, Link
from sapper.evidence import Fact, Grade


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a cluster."""

    group: str
    """Name of the group; empty for the whole site."""
    level: str
    """group, chip, scale-up, scale-out, link, site."""
    field: str
    value: float | int | str | None
    """In the base unit ``unit``; None where unknown."""
    unit: str = ""
    grade: Grade | None = None
    """None for what is no quantity, such as a name."""
    source: str | None = None
    date: str | None = None
    note: str | None = None
    to: str | None = None
    """The other group of a link."""

    @property
    def unknown(self) -> bool:
        """Whether nobody states the value."""
        return self.value is None


def lines(cluster: Cluster) -> list[Line]:
    """All values of ``cluster``, groups in their order, then links between groups, then the site."""
    mixed = not cluster.homogeneous
    found = [line for group in cluster.groups for line in _group(group, mixed=mixed)]
    found += [line for link in cluster.links for line in _group_link(link)]
    found += [
        Line(group=one, to=other, level="link", field="trunk", value=None, source="not in the cluster") for one, other in unlinked(cluster)
    ]
    for field, fact in (("power_price", cluster.power_price), ("pue", cluster.pue)):
        if fact is not None:
            found.append(_of_fact(fact, group="", level="site", field=field))
    return found


def unlinked(cluster: Cluster) -> list[tuple[str, str]]:
    """Neighbouring groups that no link joins."""
    joined = {frozenset((link.from_group, link.to_group)) for link in cluster.links}
    names = [group.name for group in cluster.groups]
    return [pair for pair in itertools.pairwise(names) if frozenset(pair) not in joined]


def _group(group: Group, *, mixed: bool) -> Iterator[Line]:
    size = group.node_size
    yield Line(group=group.name, level="group", field="chip", value=group.chip.id)
    yield Line(group=group.name, level="group", field="chips", value=group.chips)
    yield Line(
        group=group.name, level="group", field="nodes", value=f"{group.nodes} x {group.chips_per_node}",
        grade=size.grade if size else None, source=size.source if size else None,
    )
    if group.chip.tdp_w is not None:
        yield _of_fact(group.chip.tdp_w, group=group.name, level="chip", field="tdp")
    if group.scale_up is not None and group.chips > 1:
        yield from _link(group.name, "scale-up", group.scale_up)
    if group.scale_out is not None and (mixed or group.scale_up is None or (group.scale_up.domain_size or 1) < group.chips):
        yield from _link(group.name, "scale-out", group.scale_out)


def _link(group: str, level: str, link: Link) -> Iterator[Line]:
    def line(field: str, value: float | int | str | None, unit: str = "") -> Line:
        return Line(group=group, level=level, field=field, value=value, unit=unit)

    yield line("name", link.name)
    if level == "scale-up":
        yield line("topology", None if link.topology == "unknown" else link.topology)
        yield line("domain", link.domain_size)
    if link.dims:
        yield line("dims", " x ".join(f"{size}{'*' if closed else ''}" for size, closed in zip(link.dims, link.wrap, strict=True)))
    yield _of_fact(link.bandwidth_bytes_per_s, group=group, level=level, field="bandwidth")
    if link.p2p_bytes_per_s is not None:
        yield _of_fact(link.p2p_bytes_per_s, group=group, level=level, field="p2p")
    if link.oversubscription != 1.0:
        yield line("oversubscription", link.oversubscription)
    yield _of_fact(link.latency_s, group=group, level=level, field="latency")
    if link.start_s is not None:
        yield _of_fact(link.start_s, group=group, level=level, field="start")


def _group_link(link: GroupLink) -> Iterator[Line]:
    for field, fact in (("trunk", link.bandwidth_bytes_per_s), ("latency", link.latency_s)):
        yield _of_fact(fact, group=link.from_group, level="link", field=field, to=link.to_group)


def _of_fact(fact: Fact, *, group: str, level: str, field: str, to: str | None = None) -> Line:
    return Line(
        group=group, level=level, field=field, value=fact.value, unit=fact.unit, grade=fact.grade, source=fact.source, date=fact.date,
        note=fact.note, to=to,
    )
