"""Rules of physics: no chip computes, moves, holds or burns more than its hardware can."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sapper.predict.claims.claim import Claim
from sapper.predict.claims.finding import Finding, Gap
from sapper.predict.claims.limits import width_bytes

SLACK = 1.03
"""Above a peak by less than this, rounding in the catalogue or in the row explains it."""
BOOST = 1.15
"""Power: boards overshoot their rating for moments, and meters err."""

_GIGA = {"GiB": 2.0**30, "MiB": 2.0**20, "GB": 1e9, "MB": 1e6, "TB": 1e12, "TiB": 2.0**40, "B": 1.0, "bytes": 1.0}
_RATES = {"TFLOP/s": 1e12, "TFLOPS": 1e12, "PFLOP/s": 1e15, "GFLOP/s": 1e9, "TOPS": 1e12}


def compute(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-001: the value implies more FLOP/s than the chips have."""
    demanded = claim.demand.flops_per_s
    if demanded is None:
        if claim.demand.lacks:
            yield claim.gap("SP-CLAIM-001", claim.demand.lacks)
        return
    peak = claim.most("SP-CLAIM-001", "peak_flops_per_s")
    if isinstance(peak, Gap):
        yield peak
    elif demanded > SLACK * peak:
        yield claim.finding(
            "SP-CLAIM-001", "impossible", implied=f"{demanded / claim.chips / 1e12:,.0f}", peak=f"{peak / claim.chips / 1e12:,.0f}",
            mfu=f"{demanded / peak:,.2f}", chip=claim.chip_name,
        )


def bandwidth(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-002: decode reads weights and cache faster than the memory can deliver them."""
    demanded = claim.demand.bytes_per_s
    if demanded is None:
        if claim.demand.lacks and claim.demand.flops_per_s is not None:
            yield claim.gap("SP-CLAIM-002", claim.demand.lacks)
        return
    most = claim.most("SP-CLAIM-002", "bandwidth_bytes_per_s")
    if isinstance(most, Gap):
        yield most
    elif demanded > SLACK * most:
        yield claim.finding(
            "SP-CLAIM-002", "impossible", implied=f"{demanded / claim.chips / 1e12:,.2f}", most=f"{most / claim.chips / 1e12:,.2f}",
            times=f"{demanded / most:,.1f}", chip=claim.chip_name,
        )


def stated_rate(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-003: FLOP/s or a utilisation that the row states outright lie above the peak."""
    row = claim.row
    if row.metric in ("mfu_pct", "hfu_pct", "mfu"):
        share = row.value / (1.0 if row.metric == "mfu" else 100.0)
        if share > claim.causal_slack:
            yield claim.finding("SP-CLAIM-004", "impossible", mfu=f"{100 * share:.1f}")
        return
    scale = _RATES.get(re.sub(r"/(chip|gpu|npu|card|device)$", "", row.unit))
    if scale is None or not re.search("flops|tops", row.metric):
        return
    peak = claim.most("SP-CLAIM-003", "peak_flops_per_s")
    if isinstance(peak, Gap):
        yield peak
        return
    per_chip = row.value * scale / (1.0 if "per_chip" in row.metric or "peak" in row.metric else claim.chips)
    if per_chip > SLACK * peak / claim.chips * (1.0 if "peak" in row.metric else claim.causal_slack):
        yield claim.finding(
            "SP-CLAIM-003", "impossible", stated=f"{per_chip / 1e12:,.0f}", peak=f"{peak / claim.chips / 1e12:,.0f}", chip=claim.chip_name,
        )


def memory(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-005 and -006: more memory in use than there is, or weights that do not fit."""
    row = claim.row
    used = row.value * _GIGA[row.unit] if row.metric == "memory_per_chip" and row.unit in _GIGA else claim.number("peak_mem_gib", 2.0**30)
    capacity = claim.most("SP-CLAIM-005", "capacity_bytes")
    if isinstance(capacity, Gap):
        if used is not None:
            yield capacity
        return
    each = capacity / claim.chips
    if used is not None and used > SLACK * each:
        yield claim.finding("SP-CLAIM-005", "impossible", used=f"{used / 1e9:,.1f}", most=f"{each / 1e9:,.1f}", chip=claim.chip_name)
    if claim.work is None or re.search("offload", f"{row.framework} {row.recompute} {row.note} {' '.join(row.extra)}", re.IGNORECASE):
        return
    weights = claim.work.all_weights * (width_bytes(row.precision) or 0.5)
    if row.kind == "inference" and weights > SLACK * capacity:
        yield claim.finding(
            "SP-CLAIM-006", "impossible", needed=f"{weights / 1e9:,.0f}", most=f"{capacity / 1e9:,.0f}", chips=claim.chips,
            chip=claim.chip_name,
        )


def power(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-007: a board that draws more than it is rated for."""
    row = claim.row
    drawn = claim.number("avg_power_w")
    rate = claim.number("output_tps")
    if drawn is None and row.metric == "energy_per_output_token" and rate is not None:
        drawn = row.value * rate
    if drawn is None:
        return
    rated = claim.most("SP-CLAIM-007", "power_w")
    if isinstance(rated, Gap):
        yield rated
    elif drawn > BOOST * rated:
        yield claim.finding(
            "SP-CLAIM-007", "impossible", drawn=f"{drawn / claim.chips:,.0f}", rated=f"{rated / claim.chips:,.0f}", chip=claim.chip_name,
        )


RULES = (compute, bandwidth, stated_rate, memory, power)
