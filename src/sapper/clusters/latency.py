"""Latency of a link from the smallest all-reduces that somebody measured on the chip.

A ring all-reduce of a message of no size takes ``start + 2(n-1) hop`` (Thakur, Rabenseifner, Gropp 2005,
doi:10.1177/1094342005051521, ring reduce-scatter and ring allgather). On the ten chips of the catalogue that have two
group sizes or more the line fits within half a microsecond.
"""

from __future__ import annotations

from sapper.chips.schema import Chip, Measured
from sapper.clusters.priors import LinkPrior
from sapper.evidence import Fact

LEAST_HOP_S = 0.1e-6
"""No message crosses a link and a kernel faster."""


def measured_latency(chip: Chip, prior: LinkPrior) -> tuple[Fact, Fact]:
    """(hop, start) of the chip's scale-up link: fitted where measured, else the prior."""
    records = [m for m in chip.measured if m.metric.startswith("all_reduce") and m.latency_s and m.devices and m.devices > 1]
    # What was measured was measured on the chip's own links, and says nothing of the host link in their place.
    if not records or chip.scale_up is None:
        return prior.hop_s, prior.start_s
    points = [(2.0 * ((m.devices or 0) - 1), m.latency_s or 0.0) for m in records]
    if len({hops for hops, _ in points}) == 1:
        start = prior.start_s.number or 0.0
        hops = points[0][0]
        hop = (sum(time for _, time in points) / len(points) - start) / hops
        return _derived(max(hop, LEAST_HOP_S), records), prior.start_s
    hop, start = _line(points)
    return _derived(max(hop, LEAST_HOP_S), records), _derived(max(start, 0.0), records)


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(slope, intercept) of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope, mean_y - slope * mean_x


def _derived(value_s: float, records: list[Measured]) -> Fact:
    sources = "; ".join(dict.fromkeys(record.source for record in records))
    sizes = ", ".join(str(record.devices) for record in sorted(records, key=lambda r: r.devices or 0))
    return Fact(
        value=value_s, unit="s", source=sources, date=records[0].date, grade="derived",
        note=f"from the smallest all-reduce of {sizes} chips: start + 2(n-1) hop",
    )
