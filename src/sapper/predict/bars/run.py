"""run: all bars, one after the other, on the rows that ship."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import msgspec

from sapper import __version__
from sapper.chips.catalogue import Catalogue
from sapper.predict.bars import memory, plans, ranking, serving, training, trust
from sapper.predict.bars.bar import Bar
from sapper.predict.kinds import KINDS
from sapper.predict.rows.case import Case
from sapper.predict.rows.question import Predictor, Question
from sapper.predict.rows.read import Rows, merged
from sapper.predict.rows.row import Kind
from sapper.predict.rows.scores import Scored
from sapper.predict.rows.shipped import SHIPPED, shipped_rows
from sapper.predict.validate import Report, validate

LEVEL = 0.9
"""Probability that the intervals of the bars state."""
VTRAIN = "VIA-Research/vTrain"


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """All bars of today."""

    date: str
    version: str
    level: float
    bars: tuple[Bar, ...]


def bars(catalogue: Catalogue, predictors: Mapping[Kind, Predictor] | None = None) -> Bars:
    """Measure every bar.

    Args:
        catalogue: Where chips are looked up.
        predictors: What answers, by kind; None: the ones of :data:`~sapper.predict.kinds.KINDS`.
    """
    return measured(catalogue, predictors)[0]


def measured(catalogue: Catalogue, predictors: Mapping[Kind, Predictor] | None = None) -> tuple[Bars, dict[tuple[Kind, str], Report]]:
    """The bars, and the reports that they stand on by kind and what was left out."""
    answering = {kind: entry.predictor() for kind, entry in KINDS.items()} if predictors is None else predictors
    found: list[Bar] = []
    reports: dict[tuple[Kind, str], Report] = {}
    if "training" in answering:
        found, reports = _training(catalogue, answering["training"])
    if "inference" in answering:
        more, report = _inference(catalogue, answering["inference"])
        found, reports["inference", "chip"] = [*found, *more], report
    every = [row for name in SHIPPED for row in shipped_rows(name).rows]
    found.append(trust.trust(every, catalogue))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Bars(date=today, version=__version__, level=LEVEL, bars=tuple(found)), reports


def _training(catalogue: Catalogue, predictor: Predictor) -> tuple[list[Bar], dict[tuple[Kind, str], Report]]:
    rows = shipped_rows("training")
    pool = KINDS["training"].pool(catalogue)
    chip = _left_out(rows, "training", predictor, catalogue, by="chip", pool=pool)
    vendor = _left_out(rows, "training", predictor, catalogue, by="vendor", pool=pool)
    single = _cases("training_bulk", "training", catalogue)
    several = [case for case in pool if case.family == VTRAIN]
    spec_lines, vtrain = training.vtrain(predictor, pool, several=several, single=single)
    timed = [line for line in chip.rows if line.metric != "memory_per_chip"]
    predicted = _middles([*timed, *spec_lines])
    own = [case for case in (*pool, *single) if isinstance(case, Case)]
    found = [
        training.leave_one_out("chip", chip), training.leave_one_out("vendor", vendor), vtrain,
        plans.plan_choice(own, {id_: value for (id_, _), value in predicted.items()}),
        memory.memory(
            [case for case in _cases("training", "training", catalogue, sure=False) if isinstance(case, Case)], predictor,
            pool=pool, ran=[case for case in single if isinstance(case, Case)],
        ),
        ranking.ranking(pool, _middles(timed), "ranking_training"),
        training.intervals(timed, "intervals_training"),
    ]
    return found, {("training", "chip"): chip, ("training", "vendor"): vendor}


def _inference(catalogue: Catalogue, predictor: Predictor) -> tuple[list[Bar], Report]:
    rows = merged([shipped_rows(name) for name in KINDS["inference"].files])
    pool = KINDS["inference"].pool(catalogue)
    chip = _left_out(rows, "inference", predictor, catalogue, by="chip", pool=pool)
    found = [
        serving.points(chip.rows), serving.suite(chip.rows), ranking.ranking(pool, _middles(chip.rows), "ranking_inference"),
        training.intervals(chip.rows, "intervals_inference"),
    ]
    return found, chip


def _left_out(
    rows: Rows, kind: Kind, predictor: Predictor, catalogue: Catalogue, *, by: str, pool: Sequence[Question]
) -> Report:
    return validate(
        rows, {kind: predictor}, catalogue=catalogue, leave_out="vendor" if by == "vendor" else "chip", level=LEVEL, pools={kind: pool},
    )


def _cases(name: str, kind: Kind, catalogue: Catalogue, *, sure: bool = True) -> Sequence[Question]:
    """The questions of a file that ships: of confidence high, or of all that are not suspect."""
    rows = [row for row in shipped_rows(name).rows if row.confidence == "high" or (not sure and row.confidence != "suspect")]
    return KINDS[kind].questions(rows, catalogue)[0]


def _middles(lines: Sequence[Scored]) -> dict[tuple[str, str], float]:
    """Middle of the prediction by row id and metric."""
    return {(line.id, line.metric): line.predicted for line in lines if line.predicted is not None}
