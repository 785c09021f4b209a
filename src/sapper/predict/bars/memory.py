"""The bar of memory: bytes per chip over the software stacks that report them, and whether a job fits."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from sapper.predict.allocator import peak_question, peaks_asked
from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.case import Case
from sapper.predict.rows.question import Predictor, Question

BAND = 0.05
"""Of the capacity: closer to it no call is wrong."""


def memory(cases: Sequence[Case], predictor: Predictor, *, pool: Sequence[Question], ran: Sequence[Case] = ()) -> Bar:
    """The bar ``memory``: every row is answered by a fit that has seen no row of its source.

    A call is wrong where a job that ran would have been called more than 5% of the capacity too large. Rows are of jobs that ran:
    a file of measurements has no value for one that did not.

    Args:
        cases: Training cases.
        predictor: What is fitted.
        pool: What may be fitted on.
        ran: Further cases that ran, and so fitted.
    """
    questions = peaks_asked(cases)
    errors: dict[str, list[float]] = defaultdict(list)
    inside: list[bool] = []
    wrong: list[tuple[str, float]] = []
    calls = 0
    for family in sorted({case.family for case in (*cases, *ran)}):
        fitted = predictor.fit([case for case in pool if case.family != family])
        own = [case for case in questions if case.family == family]
        for case, answer in zip(own, fitted.predict(own), strict=True):
            if isinstance(answer, tuple):
                errors[f"{case.family} ({case.job.stack or '?'})"].append(abs(answer[0] / case.measured - 1.0))
                inside.append(answer[1] <= case.measured <= answer[2])
        called, missed = _calls([case for case in (*cases, *ran) if case.family == family], fitted)
        calls, wrong = calls + called, wrong + missed
    wrong.sort(key=lambda item: -item[1])
    every = [error for group in errors.values() for error in group]
    return Bar(
        key="memory", rows=len(questions), answered=len(every),
        figures=(
            Figure(name="mean", value=statistics.fmean(every) if every else None, most=0.03),
            Figure(name="median", value=statistics.median(every) if every else None),
            Figure(name="stacks", value=float(len(errors)), unit="count", least=4.0),
            Figure(name="coverage", value=sum(inside) / len(inside) if inside else None),
            Figure(name="wrong_calls", value=float(len(wrong)), unit="count", most=0.0),
            Figure(name="calls", value=float(calls), unit="count"),
        ),
        groups=tuple(
            {"group": name, "rows": len(group), "mean": statistics.fmean(group), "median": statistics.median(group)}
            for name, group in sorted(errors.items(), key=lambda item: -statistics.fmean(item[1]))
        ) + tuple({"group": row_id, "over": over} for row_id, over in wrong),
    )


def _calls(cases: Sequence[Case], predictor: Predictor) -> tuple[int, list[tuple[str, float]]]:
    """Jobs that ran under a plan that is wholly known; those of them that we would have called too large, and by how much."""
    stated = [case for case in cases if not case.unknown - {"sequence_parallel"} and case.memory_part == "peak"]
    known = [case for case in stated if "offload" not in case.tags]
    questions = [peak_question(case, 1.0) for case in known]
    wrong = []
    calls = 0
    for case, answer in zip(questions, predictor.predict(questions), strict=True):
        fact = case.cluster.groups[0].chip.memory.capacity_bytes
        if isinstance(answer, tuple) and fact is not None and fact.number is not None:
            calls += 1
            share = case.conversion.quantity_of(answer[0]) / fact.number
            if share > 1.0 + BAND:
                wrong.append((case.row_id, share - 1.0))
    return calls, sorted(wrong, key=lambda item: -item[1])
