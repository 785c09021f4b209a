"""What the user has measured: runs and probes of the evidence store, as the chips and posteriors that predict uses.

Runs condition the posterior that ships; probes become measured records of the chip, in the
place of the catalogue's, and observations of single constants.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.chips.own import with_records
from sapper.chips.schema import Chip
from sapper.evidence.record import Record
from sapper.predict.claims import check
from sapper.predict.fit import Fitted, Observation
from sapper.predict.kinds import KINDS
from sapper.predict.observe import observations_of
from sapper.predict.prior import Subject
from sapper.predict.rows.question import Predictor, Question
from sapper.predict.rows.row import Kind, Refused, RowFault, row_of

KIND_OF: dict[str, Kind] = {"training-run": "training", "serving-run": "inference"}
"""Record kind -> kind of its measurement row."""
SITE = "-"
"""Level of the source effect that predictions for the user have, and so their own runs."""


class Conditional(Predictor, Protocol):
    """A predictor that takes further evidence."""

    @property
    def constants(self) -> Fitted:
        """The posterior that answers."""

    def conditioned(self, cases: Sequence[Any], observations: Sequence[Observation] = ()) -> Conditional:
        """The same with ``cases`` and measured constants as evidence."""

    def subjects(self, cases: Sequence[Any]) -> Sequence[Subject]:
        """Who computes, for each case that can be priced."""


@dataclass(frozen=True, eq=False)
class Own:
    """The user's records that stand; one object is one state of the store."""

    records: tuple[Record, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.records)

    def and_(self, more: Sequence[Record]) -> Own:
        """These records and ``more``; what is there already counts once."""
        known = {record.id for record in self.records}
        return Own((*self.records, *(record for record in more if record.id not in known)))

    def chip(self, chip: Chip) -> Chip:
        """``chip`` with what was measured of it."""
        return with_records(chip, self.records)

    def questions(self, kind: Kind, catalogue: Catalogue) -> tuple[list[Question], list[Refused]]:
        """The runs as questions with measured answers, and those that put none or that the hardware cannot have made."""
        rows, refused = [], []
        for record in self.records:
            if KIND_OF.get(record.kind) == kind:
                try:
                    rows.append(row_of(_row(record)))
                except RowFault as fault:
                    refused.append(Refused(row_id=_label(record), code=fault.code, field=fault.field, values=fault.values))
        beyond = {one.row_id: one for one in check(rows, catalogue).findings if one.kind == "impossible"}
        refused += [Refused(row_id=one.row_id, code=one.code, field="value", values=one.values) for one in beyond.values()]
        found, more = KINDS[kind].questions([row for row in rows if row.id not in beyond], catalogue)
        return [_at_site(case) for case in found], [*refused, *more]

    def observations(self, catalogue: Catalogue) -> list[Observation]:
        """What the probes say of single constants."""
        bare = (msgspec.structs.replace(chip, measured=()) for chip in catalogue.chips.values() if chip.id in self.chips)
        return observations_of(with_records(chip, self.records) for chip in bare)

    @functools.cached_property
    def chips(self) -> frozenset[str]:
        """Catalogue ids that there are records of."""
        return frozenset(record.chip for record in self.records if record.chip is not None)

    def predictor(self, kind: Kind, catalogue: Catalogue, *, without: Set[str] = frozenset()) -> Conditional:
        """What answers questions of ``kind``: the posterior that ships with the records as evidence.

        Args:
            kind: Of the questions.
            catalogue: Where chips are looked up.
            without: Row ids of runs that it must not know.
        """
        cases = [case for case in self.questions(kind, catalogue)[0] if case.row_id not in without]
        observations = self.observations(catalogue) if kind == "training" else []
        return conditional(kind).conditioned(cases, observations)

    def fitted(self, kind: Kind, catalogue: Catalogue) -> Fitted:
        """The constants of :meth:`predictor`, with the chips that were measured here."""
        fitted = self.predictor(kind, catalogue).constants
        wanted = {name for name, row_kind in KIND_OF.items() if row_kind == kind}
        here = {
            record.chip for record in self.records
            if record.chip is not None and record.grade == "measured-here" and (record.kind in wanted or record.kind not in KIND_OF)
        }
        return replace(fitted, own_chips=tuple(sorted(here)))


def conditional(kind: Kind) -> Conditional:
    """The predictor that ships."""
    found: Any = KINDS[kind].predictor()
    return cast(Conditional, found)


def _row(record: Record) -> Mapping[str, Any]:
    # two files may call their runs alike, and predictors keep what they priced by the row's id
    return {"confidence": "high", **record.payload, "id": _label(record)}


def _label(record: Record) -> str:
    return f"{record.payload.get('id', 'run')} ({record.id[:8]})"


def _at_site(case: Question) -> Question:
    return msgspec.structs.replace(case, family=SITE)  # type: ignore[type-var]
