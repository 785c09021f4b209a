"""The bar of memory: bytes per chip over the software stacks that report them, and whether a job fits."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.case import Case, Conversion
from sapper.predict.rows.question import Predictor

BAND = 0.05
"""Of the capacity: closer to it no call is wrong."""
_GIB = 2.0**-30


def asked(cases: Sequence[Case]) -> list[Case]:
    """Memory questions: rows whose metric is memory, and the peaks that stand beside other metrics."""
    found = []
    for case in cases:
        if case.quantity == "memory":
            found.append(case)
        elif case.memory_bytes is not None and "offload" not in case.tags:
            found.append(_peak(case, case.memory_bytes))
    return found


def memory(cases: Sequence[Case], predictor: Predictor, *, ran: Sequence[Case] = ()) -> Bar:
    """The bar ``memory``: nothing is fitted to memory, so that every row is held out.

    Args:
        cases: Training cases.
        predictor: What answers.
        ran: Further cases that ran, and so fitted.
    """
    questions = asked(cases)
    errors: dict[str, list[float]] = defaultdict(list)
    for case, answer in zip(questions, predictor.predict(questions), strict=True):
        if isinstance(answer, tuple):
            errors[f"{case.family} ({case.job.stack or '?'})"].append(abs(answer[0] / case.measured - 1.0))
    calls, wrong = _calls([*cases, *ran], predictor)
    every = [error for group in errors.values() for error in group]
    return Bar(
        key="memory", rows=len(questions), answered=len(every),
        figures=(
            Figure(name="mean", value=statistics.fmean(every) if every else None, most=0.03),
            Figure(name="median", value=statistics.median(every) if every else None),
            Figure(name="stacks", value=float(len(errors)), unit="count", least=4.0),
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
    questions = [_peak(case, 1.0) for case in known]
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


def _peak(case: Case, measured_bytes: float) -> Case:
    """The same job, asked for the peak of the fullest chip."""
    return msgspec.structs.replace(
        case, quantity="memory", metric="memory_per_chip", unit="GiB", measured=measured_bytes * _GIB,
        conversion=Conversion(kind="direct", factor=_GIB), memory_part="peak",
    )
