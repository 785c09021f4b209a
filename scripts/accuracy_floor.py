"""What the data leave open: errors by what bounds a step, repeats of one measurement, and the model fitted on what judges it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sapper.predict.bars.plans import plan_choice
from sapper.predict.bars.run import VTRAIN
from sapper.predict.bars.training import scored
from sapper.predict.combine import TERMS, combine
from sapper.predict.predictor import Prepared, TrainPredictor
from sapper.predict.rows.case import Case
from sapper.predict.rows.question import Question
from sapper.predict.rows.scores import Scored, summary
from sapper.predict.subject import constants_of

SHARE = 0.15
"""Share of the predicted step from which on a row counts under a term; a row may count under several."""
FEWEST = 5
"""Rows of a term that is listed."""


def by_term(lines: Sequence[Scored], cases: Sequence[Question], predictor: TrainPredictor) -> str:
    """Errors of left-out chips under each term that matters to the row, by the posterior that ships."""
    found = {line.id: line for line in lines if line.error is not None}
    groups: dict[str, list[Scored]] = defaultdict(list)
    for case in cases:
        ready = predictor.prepare(case) if isinstance(case, Case) else None
        if isinstance(ready, Prepared) and case.row_id in found:
            for name in _terms_of(ready, predictor):
                groups[name].append(found[case.row_id])
    lines_ = ["| term of the step | rows | median | mean | optimism |", "|---|---:|---:|---:|---:|"]
    for name in TERMS:
        if len(groups[name]) >= FEWEST:
            one = summary(groups[name])
            fast = statistics.median(line.optimism for line in groups[name] if line.optimism is not None)
            lines_.append(f"| {name} | {one.answered} | {_percent(one.median_abs)} | {_percent(one.mean_abs)} | {_percent(fast)} |")
    return "\n".join(lines_) + "\n"


def _terms_of(ready: Prepared, predictor: TrainPredictor) -> list[str]:
    eta, _, _ = predictor.constants.eta([ready.subject])
    times = combine(ready.features, constants_of(eta))
    whole = sum(float(np.sum(time)) for time in times.values())
    return [name for name, time in times.items() if float(np.sum(time)) >= SHARE * whole]


def repeats(cases: Sequence[Question]) -> str:
    """How far rows of one source lie from the median of those that ask the same of the same chips."""
    groups: dict[tuple[Any, ...], list[Case]] = defaultdict(list)
    for case in cases:
        if isinstance(case, Case) and case.quantity == "time":
            groups[_asked(case)].append(case)
    spread: dict[str, list[float]] = defaultdict(list)
    for group in groups.values():
        if len(group) > 1:
            middle = statistics.median(case.measured for case in group)
            spread[group[0].family] += [abs(case.measured / middle - 1.0) for case in group]
    lines = ["| source | rows with repeats | median | mean | max |", "|---|---:|---:|---:|---:|"]
    for family, found in sorted(spread.items()):
        mean, middle = statistics.fmean(found), statistics.median(found)
        lines.append(f"| {family} | {len(found)} | {_percent(middle)} | {_percent(mean)} | {_percent(max(found))} |")
    return "\n".join(lines) + "\n"


def _asked(case: Case) -> tuple[Any, ...]:
    """What two measurements must share to repeat each other: all that is known but who measured, and the release of the software."""
    workload = case.job.workload
    plan = msgspec.json.encode(case.plan)
    return (
        case.family, case.chip_id, case.cluster.chips, workload.name, workload.seq_len, workload.params, case.precision,
        case.job.global_batch, case.job.finetune, case.job.stack, tuple(sorted(case.tags)), case.metric, plan,
    )


def in_sample(predictor: TrainPredictor, pool: Sequence[Case], single: Sequence[Case]) -> Mapping[str, float | None]:
    """Errors of vTrain's runs and regret of their plans by a fit that saw them all: what the constants cannot explain."""
    fitted = predictor.fit([*pool, *single])
    several = [case for case in pool if case.family == VTRAIN]
    lines = {name: scored(fitted, cases) for name, cases in (("several", several), ("single", single))}
    predicted = {line.id: line.predicted for found in lines.values() for line in found if line.predicted is not None}
    choice = {figure.name: figure.value for figure in plan_choice([*several, *single], predicted).figures}
    return {"multi": summary(lines["several"]).mean_abs, "single": summary(lines["single"]).mean_abs, **choice}


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f}%"
