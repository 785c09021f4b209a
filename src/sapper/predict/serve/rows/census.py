"""The census of inference rows: how many of each source become questions, and why the others do not."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.predict.rows.row import Refused, Row
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve.rows.build import cases_of
from sapper.predict.serve.rows.case import ServeCase
from sapper.predict.serve.rows.rules import serve_rule
from sapper.predict.serve.rows.twins import Twins, workers_stated


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One source of the census."""

    family: str
    rows: int
    answered: int
    """Rows that put at least one question."""
    questions: int
    reasons: tuple[tuple[str, str | None, int], ...]
    """Code, field and number of the refusals, most frequent first."""


def all_cases(rows: Iterable[Row], catalogue: Catalogue) -> tuple[list[ServeCase], list[Refused]]:
    """The cases of ``rows`` and the refusals of the others, in order.

    A measurement that several exports of a source hold weighs as much as one. Rows that leave their workers out take them
    from their twin or neighbour among these rows and the measurements that ship.
    """
    kept = list(rows)
    own = Twins(kept)
    ids = {row.id for row in kept}
    told = Twins([*kept, *(row for row in _shipped() if row.id not in ids)])
    cases: list[ServeCase] = []
    refused: list[Refused] = []
    for row in kept:
        found = cases_of(row, catalogue, layout=told.layout(row))
        if isinstance(found, Refused):
            refused.append(found)
            continue
        copies = own.copies(row)
        cases += [case if copies == 1 else msgspec.structs.replace(case, weight=case.weight / copies) for case in found]
    return cases, refused


@functools.cache
def _shipped() -> tuple[Row, ...]:
    """Rows of the measurements that ship which say how many workers there were."""
    return tuple(row for row in shipped_rows("inference_bulk").rows if workers_stated(row))


def census(rows: Iterable[Row], catalogue: Catalogue) -> tuple[Line, ...]:
    """Questions and refusals by source, largest source first."""
    kept = list(rows)
    families = {row.id: serve_rule(row).family for row in kept}
    cases, refused = all_cases(kept, catalogue)
    total, asked = Counter(families.values()), Counter(families[case.row_id] for case in cases)
    reasons: dict[str, Counter[tuple[str, str | None]]] = {family: Counter() for family in total}
    for refusal in refused:
        reasons[families[refusal.row_id or ""]][(refusal.code, refusal.field)] += 1
    return tuple(
        Line(
            family=family, rows=count, answered=count - sum(reasons[family].values()), questions=asked[family],
            reasons=tuple((code, field, number) for (code, field), number in reasons[family].most_common()),
        )
        for family, count in total.most_common()
    )
