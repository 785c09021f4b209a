"""What the catalogue's measurements say of a chip's links: achieved shares of the nominal rates.

Measured figures are bus bandwidths (NVIDIA/nccl-tests, doc/PERFORMANCE.md) or, where their metric or definition does not
say ``bus``, algorithm bandwidths (buffer over time), which the same page converts. Latency and protocol are taken out of
each figure that names its message, so that the share is that of the wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sapper import units
from sapper.chips.schema import Chip, Measured
from sapper.errors import BadValue
from sapper.evidence import Fact
from sapper.predict.estimate import Used
from sapper.predict.fabric import Curve, Tier

IN_SWITCH_ABOVE = 0.9
"""No ring is measured above this share of a switched link (0.74 to 0.82); what is above was reduced in the switch."""
IN_SWITCH_FROM = 5
"""Smallest group that reduces in the switch: groups of four or fewer gain nothing (NVIDIA GB200 NVL Partition User Guide)."""
LEAST_SHARE = 0.01
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "link_efficiency")
"""What the metrics of collectives begin with."""


@dataclass
class LinkEvidence:
    """Measured shares by group size; several of one size are averaged geometrically."""

    reduce: dict[int, list[float]] = field(default_factory=dict)
    gather: dict[int, list[float]] = field(default_factory=dict)
    in_switch: list[float] = field(default_factory=list)
    p2p: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)


def link_evidence(chip: Chip, tier: Tier | None) -> LinkEvidence:
    """Shares that ``chip`` achieves.

    Args:
        chip: With its measurements.
        tier: The scale-up link that they were taken on, without efficiencies; None: only those of the network count.
    """
    found = LinkEvidence()
    reduces_in_switch = tier is not None and tier.topology == "switch" and any(
        record.metric.startswith("all_reduce") and _shows_switch(record, tier) for record in chip.measured
    )
    for record in chip.measured:
        if record.metric.startswith(("p2p", "rdma")):
            if tier is not None or _of_network(record):
                _pair(record, found, chip)
        elif tier is not None and record.metric.startswith(COLLECTIVES) and "inter" not in record.metric:
            for size, share in _shares(record, tier):
                _note(record, size, share, tier, found, chip, switch=reduces_in_switch)
    return found


def _shows_switch(record: Measured, tier: Tier) -> bool:
    """Whether an all-reduce is faster than any ring."""
    return any(share > IN_SWITCH_ABOVE for size, share in _shares(record, tier) if size >= IN_SWITCH_FROM)


def _note(record: Measured, size: int, share: float, tier: Tier, found: LinkEvidence, chip: Chip, *, switch: bool) -> None:
    kind = "reduce" if record.metric.startswith(("all_reduce", "link_efficiency")) else "gather"
    if kind == "reduce" and switch and size >= IN_SWITCH_FROM:
        # Bus bandwidth counts 2(n-1)/n bytes, the switch moves (n+1)/n (nccl-tests, doc/PERFORMANCE.md, in-network reduction).
        bound = 2.0 * (size - 1.0) / (size + 1.0)
        found.in_switch.append(min(share / bound, 1.0))
        key = f"{chip.id} in-switch reduction, share of its bound, {size} chips"
        found.used.append(_used(key, min(share / bound, 1.0), record))
        ring = _ring_detail(record, tier)
        if ring is None:
            return
        share = ring
    if not LEAST_SHARE <= share <= 1.0:
        return
    (found.reduce if kind == "reduce" else found.gather).setdefault(size, []).append(share)
    found.used.append(_used(f"{chip.id} {record.metric}, share of the links, {size} chips", share, record))


def _pair(record: Measured, found: LinkEvidence, chip: Chip) -> None:
    if record.fraction is None or not LEAST_SHARE <= record.fraction <= 1.0:
        return
    (found.network if _of_network(record) else found.p2p).append(record.fraction)
    found.used.append(_used(f"{chip.id} {record.metric}, share of the link", record.fraction, record))


def _of_network(record: Measured) -> bool:
    return "inter" in record.metric or record.metric.startswith("rdma")


def _shares(record: Measured, tier: Tier) -> Iterator[tuple[int, float]]:
    """(group size, bus bandwidth on the wire over the nominal ring rate) of a collective's record."""
    for size, bus in _bus_bandwidths(record, tier):
        if 2 <= size <= tier.size:
            yield size, _on_wire(bus, size, record, tier) / float(tier.ring_bytes_per_s[size])


def _bus_bandwidths(record: Measured, tier: Tier) -> Iterator[tuple[int, float]]:
    bus = "bus" in record.metric or "bus" in (record.definition or "").lower()
    if record.by_devices:
        for text, value in record.by_devices.items():
            size = int(text)
            yield size, value if bus else value * _bus_factor(record.metric, size)
    elif record.value is not None and bus and record.devices:
        yield record.devices, record.value
    elif record.fraction is not None:
        # A share of one direction, as the source gives it; without a number of chips it is that of the whole domain.
        size = record.devices or tier.size
        if 2 <= size <= tier.size:
            yield size, record.fraction * float(tier.ring_bytes_per_s[size])


def _bus_factor(metric: str, size: int) -> float:
    """Bus over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md)."""
    once = (size - 1.0) / size
    return 2.0 * once if metric.startswith("all_reduce") else once


def _on_wire(bus: float, size: int, record: Measured, tier: Tier) -> float:
    """Bus bandwidth with latency and protocol taken out of the time; unchanged where the message is not named."""
    if record.message_bytes is None:
        return bus
    twice = 2.0 if record.metric.startswith("all_reduce") else 1.0
    moved = record.message_bytes * twice * (size - 1.0) / size
    hops = twice * float(tier.ring_hops[size])
    rest = moved / bus - tier.start_s - hops * tier.hop_s
    fill = hops * tier.fill_s
    # x + x f/(x + f) = rest, solved for x: the inverse of collectives.with_protocol
    wire = ((rest - 2.0 * fill) + math.sqrt((rest - 2.0 * fill) ** 2 + 4.0 * rest * fill)) / 2.0 if rest > 0 else 0.0
    return moved / wire if wire > 0 else bus


def _ring_detail(record: Measured, tier: Tier) -> float | None:
    """Share of the ring that a record gives beside the in-switch figure."""
    text = record.raw.get("ring")
    if not isinstance(text, str) or record.devices is None or not 2 <= record.devices <= tier.size:
        return None
    try:
        bus = units.parse(text, "bytes/s")
    except BadValue:
        return None
    return _on_wire(bus, record.devices, record, tier) / float(tier.ring_bytes_per_s[record.devices])


def _used(key: str, share: float, record: Measured) -> Used:
    fact = Fact(value=share, unit="", source=record.source, date=record.date, grade=record.grade, status=record.status, note=record.note)
    return Used(key=key, fact=fact)


def mean(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def curve(found: dict[int, list[float]]) -> Curve | None:
    """Mean share by group size; None where nothing was measured."""
    return tuple((size, mean(values)) for size, values in sorted(found.items())) or None


def with_evidence(tier: Tier, found: LinkEvidence, *, prior: Curve, p2p: float) -> Tier:
    """``tier`` with the measured shares; the prior where nothing was measured, all-gather and all-reduce for each other."""
    reduce, gather = curve(found.reduce), curve(found.gather)
    return replace(
        tier, reduce_efficiency=reduce or gather or prior, gather_efficiency=gather or reduce or prior,
        in_switch=mean(found.in_switch) if found.in_switch else None, p2p_efficiency=mean(found.p2p) if found.p2p else p2p,
    )
