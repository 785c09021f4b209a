"""Rules of siblings: rows that stand apart from everything else in their own table.

A slip of a unit (a node's total under a chip's heading) or of a setup shows against the table's other rows even where
the chip is not named, so that no peak could be looked up.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from sapper.predict.claims.claim import Claim
from sapper.predict.claims.finding import Finding, Gap

LEAST_ABOVE, TIMES_ABOVE = 5, 2.5
"""Others in the group, and how far above the best of them a chip's FLOP/s is another unit."""
LEAST_BELOW, TIMES_BELOW, TIGHT = 3, 3.0, 2.0
"""Others (of other models), how far below the least of them a use of bandwidth is another setup, and within which factor
the others must agree."""


def siblings(claims: Sequence[Claim], beside: Sequence[Claim]) -> Iterator[Finding | Gap]:
    """SP-CLAIM-015 and -016, against the rows of the same source, those in ``beside`` included."""
    together = [*claims, *beside]
    training = _grouped(together, lambda claim: (claim.family, claim.row.chip, claim.row.precision), _flops_per_chip)
    decoding = _grouped(together, lambda claim: (claim.family, claim.row.phase, claim.row.metric), _single_stream)
    for claim in claims:
        yield from _above(claim, training.get((claim.family, claim.row.chip, claim.row.precision), []))
        yield from _below(claim, decoding.get((claim.family, claim.row.phase, claim.row.metric), []))


def _grouped(
    claims: Sequence[Claim], key: Callable[[Claim], tuple[object, ...]], value: Callable[[Claim], float | None]
) -> dict[tuple[object, ...], list[tuple[Claim, float]]]:
    groups: dict[tuple[object, ...], list[tuple[Claim, float]]] = defaultdict(list)
    for claim in claims:
        found = value(claim)
        if found is not None:
            groups[key(claim)].append((claim, found))
    return groups


def _flops_per_chip(claim: Claim) -> float | None:
    """FLOP/s of a chip that a training row implies."""
    demanded = claim.demand.flops_per_s if claim.row.kind == "training" else None
    return None if demanded is None else demanded / claim.chips


def _single_stream(claim: Claim) -> float | None:
    """Share of the bandwidth that the decode of a single request uses."""
    if claim.row.kind != "inference" or claim.row.batch != 1.0 or claim.row.metric not in ("tokens_per_s_per_user", "tpot"):
        return None
    return claim.utilisation


def _above(claim: Claim, group: list[tuple[Claim, float]]) -> Iterator[Finding]:
    own = next((value for other, value in group if other is claim), None)
    others = [value for other, value in group if other is not claim]
    if own is None or len(others) < LEAST_ABOVE or own <= TIMES_ABOVE * max(others):
        return
    yield claim.finding(
        "SP-CLAIM-015", "outlier", implied=f"{own / 1e12:,.0f}", best=f"{max(others) / 1e12:,.0f}", count=len(others), chip=claim.row.chip,
    )


def _below(claim: Claim, group: list[tuple[Claim, float]]) -> Iterator[Finding]:
    own = next((value for other, value in group if other is claim), None)
    others = [value for other, value in group if other.row.model.name != claim.row.model.name]
    if own is None or len(others) < LEAST_BELOW or max(others) > TIGHT * min(others) or own * TIMES_BELOW >= min(others):
        return
    yield claim.finding(
        "SP-CLAIM-016", "outlier", share=f"{100 * own:.1f}", usual=f"{100 * statistics.median(others):.0f}", count=len(others),
    )
