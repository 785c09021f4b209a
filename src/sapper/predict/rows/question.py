"""Question: what validate needs of a case, be it of training or of inference; and Predictor: who answers questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sapper.errors import SapperError
from sapper.predict.rows.case import Assumption, Conversion


class Job(Protocol):
    """The part of a job that splits look at."""

    @property
    def stack_year(self) -> float | None:
        """When the software was current."""


class Question(Protocol):
    """One question with its measured answer: a :class:`~sapper.predict.rows.case.Case` or anything that reads likewise."""

    @property
    def row_id(self) -> str:
        """The row that puts it; a row may put several."""

    @property
    def source(self) -> str:
        """As the row has it."""

    @property
    def family(self) -> str:
        """The source, as splits group it."""

    @property
    def vendor(self) -> str:
        """Of the chip."""

    @property
    def chip_id(self) -> str:
        """Catalogue id."""

    @property
    def confidence(self) -> str:
        """As the row has it."""

    @property
    def weight(self) -> float:
        """Trust in the row for fitting."""

    @property
    def metric(self) -> str:
        """As scored."""

    @property
    def unit(self) -> str:
        """Of the metric."""

    @property
    def measured(self) -> float:
        """In that unit."""

    @property
    def conversion(self) -> Conversion:
        """Between the metric and seconds (bytes, joules)."""

    @property
    def quantity(self) -> str:
        """What is asked for."""

    @property
    def job(self) -> Any:
        """The job that was run; a :class:`Job`."""

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What rules supplied."""


Interval = tuple[float, float, float]
"""Middle, low and high in the question's own metric."""


class Predictor(Protocol):
    """Answers questions of one kind, fitted on the questions that it is given and on nothing else."""

    def fit(self, cases: Sequence[Any]) -> Predictor:
        """A predictor whose prior comes from ``cases`` alone."""

    def predict(self, cases: Sequence[Any]) -> Sequence[Interval | SapperError]:
        """Middle, low and high (80%) of each case in its own metric, in order, or why there is none."""
