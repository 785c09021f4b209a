"""The bar of the claim checker: suspect rows flagged, and certain rows left alone."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.chips.catalogue import Catalogue
from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.claims import check
from sapper.predict.rows.row import Row


def trust(rows: Sequence[Row], catalogue: Catalogue) -> Bar:
    """The bar ``claims``. Rows of confidence high that are flagged as impossible count as false alarms like any other."""
    found = check(rows, catalogue)
    suspect = {row.id for row in rows if row.confidence == "suspect"}
    high = {row.id for row in rows if row.confidence == "high"}
    beyond = found.beyond & high
    return Bar(
        key="claims", rows=len(rows), answered=len(rows),
        figures=(
            Figure(name="recall", value=len(suspect & found.flagged) / len(suspect) if suspect else None, least=1.0),
            Figure(name="false_alarms", value=len(high & found.flagged) / len(high) if high else None, most=0.01),
            Figure(name="beyond_physics", value=float(len(beyond)), unit="count"),
        ),
    )
