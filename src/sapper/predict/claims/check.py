"""check: every rule over every row."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.chips.catalogue import Catalogue
from sapper.predict.claims import fields, physics
from sapper.predict.claims.claim import Claim
from sapper.predict.claims.copies import copies
from sapper.predict.claims.finding import Checked, Finding, Gap
from sapper.predict.claims.siblings import siblings
from sapper.predict.rows.row import Row

ROW_RULES = (*physics.RULES, *fields.RULES)
"""Rules that look at one row at a time."""
TABLE_RULES = (copies, siblings)
"""Rules that compare rows."""


def check(rows: Sequence[Row], catalogue: Catalogue, *, beside: Sequence[Row] = ()) -> Checked:
    """Examine ``rows``.

    Args:
        rows: The claims.
        catalogue: Where chips are looked up.
        beside: Published rows to compare with (copies, siblings); those with the id of a claim are left out.
    """
    claims = [Claim(row, catalogue) for row in rows]
    ids = {row.id for row in rows}
    others = [Claim(row, catalogue) for row in beside if row.id not in ids]
    said: dict[str, list[Finding | Gap]] = {row.id: [] for row in rows}
    for claim in claims:
        for rule in ROW_RULES:
            said[claim.row.id] += rule(claim)
    for table_rule in TABLE_RULES:
        for one in table_rule(claims, others):
            said[one.row_id].append(one)
    flat = [one for row in rows for one in said[row.id]]
    return Checked(
        rows=len(rows), findings=tuple(one for one in flat if isinstance(one, Finding)),
        gaps=tuple(one for one in flat if isinstance(one, Gap)),
    )
