"""The census: how many rows of each source become cases, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.predict.rows.build import case_of
from sapper.predict.rows.case import Case
from sapper.predict.rows.row import Refused, Row
from sapper.predict.rows.rules import source_rule


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One source of the census."""

    family: str
    rows: int
    cases: int
    reasons: tuple[tuple[str, str | None, int], ...]
    """Code, field and number of the refusals, most frequent first."""


def cases_of(rows: Iterable[Row], catalogue: Catalogue) -> tuple[list[Case], list[Refused]]:
    """The cases of ``rows`` and the refusals of the others, in order."""
    cases: list[Case] = []
    refused: list[Refused] = []
    for row in rows:
        found = case_of(row, catalogue)
        if isinstance(found, Case):
            cases.append(found)
        else:
            refused.append(found)
    return cases, refused


def census(rows: Iterable[Row], catalogue: Catalogue) -> tuple[Line, ...]:
    """Cases and refusals by source, largest source first."""
    kept = list(rows)
    families = {row.id: source_rule(row).family for row in kept}
    _, refused = cases_of(kept, catalogue)
    total = Counter(families.values())
    reasons: dict[str, Counter[tuple[str, str | None]]] = {family: Counter() for family in total}
    for refusal in refused:
        reasons[families[refusal.row_id or ""]][(refusal.code, refusal.field)] += 1
    return tuple(
        Line(
            family=family, rows=count, cases=count - sum(reasons[family].values()),
            reasons=tuple((code, field, number) for (code, field), number in reasons[family].most_common()),
        )
        for family, count in total.most_common()
    )
