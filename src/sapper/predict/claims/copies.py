"""Rules of copies: one value under the names of two chips.

Two measurements of two chips agree to four digits about once in a thousand pairs; tables in which several pairs do
were filled in from one another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from sapper.predict.claims.claim import Claim
from sapper.predict.claims.finding import Finding, Gap

DIGITS = 4
"""Significant digits from which two equal values of one workload are no coincidence."""
FEWER_DIGITS = 3
"""The same inside one table, which one script filled."""
COPIED_PAIRS, COPIED_SHARE = 3, 0.1
"""From this many copied pairs, and this share of all pairs of two chips, a table is one that copies."""


def copies(claims: Sequence[Claim], beside: Sequence[Claim]) -> Iterator[Finding | Gap]:
    """SP-CLAIM-013 and -014: values that another chip has for the same workload, and cells whose twin would show it.

    Args:
        claims: The rows under examination.
        beside: Rows to compare with that are not examined themselves.
    """
    by_work: dict[tuple[object, ...], list[Claim]] = defaultdict(list)
    for claim in (*claims, *beside):
        by_work[_workload(claim)].append(claim)
    copied = _copied_tables(by_work)
    for claim in claims:
        twins = [other for other in by_work[_workload(claim)] if other.chip_key != claim.chip_key]
        same = next((other for other in twins if _equal(claim, other)), None)
        if same is not None:
            yield claim.finding(
                "SP-CLAIM-013", "copied", value=f"{claim.row.value:g} {claim.row.unit}", other=same.row.chip, other_id=same.row.id,
                chip=claim.row.chip,
            )
            continue
        for chip, (count, pairs) in copied.get((claim.family, claim.chip_key), {}).items():
            if not any(other.chip_key == chip and other.family == claim.family for other in twins):
                yield claim.finding("SP-CLAIM-014", "doubtful", count=count, pairs=pairs, other=chip, chip=claim.chip_key)
                break


def _workload(claim: Claim) -> tuple[object, ...]:
    """What two rows must share to be one workload on two chips."""
    row, model = claim.row, claim.row.model
    name = re.sub(r"[^a-z0-9.]", "", model.name.lower().rpartition("/")[2])
    degrees = tuple(sorted((axis, size) for axis, size in row.parallel.items() if size > 1))
    return (
        name, model.seq_len, model.layers, row.stated_chips, row.batch, row.input_len, row.output_len, row.global_batch, row.micro_batch,
        row.phase, row.metric, row.unit, (row.precision or "").lower(), degrees,
    )


def _equal(one: Claim, other: Claim) -> bool:
    """Whether two rows of one workload bear the same value, to more digits than chance explains."""
    if one.row.value != other.row.value or not ((one.limits and other.limits) or one.family == other.family):
        return False
    return _digits(one.row.value) >= (FEWER_DIGITS if one.family == other.family else DIGITS)


def _digits(value: float) -> int:
    """Significant digits of a number as written."""
    return len(f"{value:.12g}".partition("e")[0].replace(".", "").strip("0").lstrip("-"))


def _copied_tables(by_work: dict[tuple[object, ...], list[Claim]]) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
    """(source, chip) -> the other chips that its table shares too many values with: copied pairs and all pairs."""
    pairs: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for group in by_work.values():
        for one in group:
            for other in group:
                if one.family == other.family and one.chip_key < other.chip_key:
                    pairs[one.family, one.chip_key, other.chip_key].append(_equal(one, other))
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for (family, one_chip, other_chip), equal in pairs.items():
        if sum(equal) >= COPIED_PAIRS and sum(equal) >= COPIED_SHARE * len(equal):
            found[family, one_chip][other_chip] = (sum(equal), len(equal))
            found[family, other_chip][one_chip] = (sum(equal), len(equal))
    return found
