"""Kinds: training and inference rows, each with its own questions, pool and predictor.

A kind is an entry of :data:`KINDS`; validate knows of nothing else, so that a further kind is a further entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sapper.chips.catalogue import Catalogue
from sapper.predict.claims import check
from sapper.predict.rows.census import cases_of
from sapper.predict.rows.naive import ConstantMfu
from sapper.predict.rows.question import Predictor, Question
from sapper.predict.rows.row import Kind, Refused, Row
from sapper.predict.rows.shipped import shipped_rows

Asked = tuple[Sequence[Question], Sequence[Refused]]
"""The questions of some rows, and the refusals of the rows that put none."""


@dataclass(frozen=True)
class RowKind:
    """How rows of one kind are asked and answered."""

    name: Kind
    files: tuple[str, ...]
    """Files that ship; they are scored where no file is given."""
    fitted_on: tuple[str, ...]
    """Files that ship whose rows of confidence high may be fitted on."""
    questions: Callable[[Sequence[Row], Catalogue], Asked]
    predictor: Callable[[], Predictor]
    naive: Callable[[], Predictor] | None = None
    """The bar to beat, where there is one."""

    def pool(self, catalogue: Catalogue) -> list[Question]:
        """The questions that may be fitted on: of confidence high, and not beyond the hardware."""
        rows = [row for name in self.fitted_on for row in shipped_rows(name).rows if row.confidence == "high"]
        beyond = check(rows, catalogue).beyond
        return list(self.questions([row for row in rows if row.id not in beyond], catalogue)[0])


def _train_predictor() -> Predictor:
    from sapper.predict.predictor import TrainPredictor

    return TrainPredictor()


def _serve_questions(rows: Sequence[Row], catalogue: Catalogue) -> Asked:
    from sapper.predict.serve.rows.census import all_cases

    return all_cases(rows, catalogue)


def _serve_predictor() -> Predictor:
    from sapper.predict.serve.predictor import ServePredictor

    return ServePredictor()


KINDS: dict[Kind, RowKind] = {
    # The 1,440 single-node runs of vTrain are one chip and one source: fitted on, they would outvote everything else.
    "training": RowKind(
        name="training", files=("training", "training_bulk"), fitted_on=("training",), questions=cases_of, predictor=_train_predictor,
        naive=ConstantMfu,
    ),
    "inference": RowKind(
        name="inference", files=("inference", "inference_bulk"), fitted_on=("inference", "inference_bulk"), questions=_serve_questions,
        predictor=_serve_predictor,
    ),
}
