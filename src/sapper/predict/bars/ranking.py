"""The bar of ranking: chips in the order of their speed on one workload, each predicted without its own rows."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.question import Question

FEWEST = 3
"""Chips of a workload."""
NOISE = 0.04
"""Chips whose measured speeds differ by less are in no order: submitters of one system differ by 3.8% (median of MLPerf)."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """One chip on one workload: the median over who measured it, measured and predicted."""

    chip: str
    measured_per_s: float
    predicted_per_s: float


def ranking(cases: Sequence[Question], predicted: Mapping[tuple[str, str], float], key: str) -> Bar:
    """The bar ``ranking``.

    Args:
        cases: Questions of one kind.
        predicted: The middle of the prediction in the row's metric, by row id and metric.
        key: Of the bar.
    """
    groups = {name: _speeds(group, predicted) for name, group in _workloads(cases, predicted).items()}
    ranked = {name: speeds for name, speeds in groups.items() if len(speeds) >= FEWEST}
    order: list[int] = []
    clear: list[int] = []
    ratios: list[float] = []
    lines = []
    for name, speeds in ranked.items():
        own = []
        for one, other in itertools.combinations(speeds, 2):
            measured = math.log(one.measured_per_s / other.measured_per_s)
            said = math.log(one.predicted_per_s / other.predicted_per_s)
            own.append(1 if measured * said > 0 else -1)
            if abs(measured) > math.log1p(NOISE):
                clear.append(own[-1])
            ratios.append(abs(math.expm1(said - measured)))
        order += own
        lines.append({"group": name, "rows": len(speeds), "tau": statistics.fmean(own)})
    return Bar(
        key=key, rows=len(ranked), answered=len(ranked),
        figures=(
            Figure(name="tau", value=statistics.fmean(clear) if clear else None, unit="plain", least=0.95),
            Figure(name="tau_all", value=statistics.fmean(order) if order else None, unit="plain"),
            Figure(name="ratio_error", value=statistics.fmean(ratios) if ratios else None),
            Figure(name="pairs", value=float(len(order)), unit="count"),
        ),
        groups=tuple(sorted(lines, key=lambda line: float(str(line["tau"])))),
    )


def _workloads(cases: Sequence[Question], predicted: Mapping[tuple[str, str], float]) -> dict[str, list[Question]]:
    """Questions of one workload in one harness, whatever the chip."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for case in cases:
        workload = None if case.quantity == "memory" or (case.row_id, case.metric) not in predicted else _workload(case)
        if workload is not None:
            groups[" ".join(str(part) for part in workload if part is not None)].append(case)
    return groups


def _workload(case: Question) -> tuple[Hashable, ...]:
    """What two measurements on two chips must share to rank them; the plan and the precision are the chip's own choice."""
    job = case.job
    model = getattr(job, "workload", None) or job.model
    lengths = getattr(model, "seq_len", None) or (getattr(case, "input_len", None), getattr(case, "output_len", None))
    chips = case.cluster.chips  # type: ignore[attr-defined]
    batch = job.global_batch if case.family != "MLPerf Training" and hasattr(job, "global_batch") else getattr(case, "batch", None)
    return case.family, model.name, lengths, f"x{chips}", batch, case.metric


def _speeds(group: Sequence[Question], predicted: Mapping[tuple[str, str], float]) -> list[Speed]:
    """The chips of a workload: of each its newest software, the median over the rows."""
    found = []
    for chip in sorted({case.chip_id for case in group}):
        own = [case for case in group if case.chip_id == chip]
        newest = max(case.job.stack_year or 0.0 for case in own)
        rows = [case for case in own if (case.job.stack_year or 0.0) == newest]
        found.append(
            Speed(
                chip=chip, measured_per_s=statistics.median(_rate(case, case.measured) for case in rows),
                predicted_per_s=statistics.median(_rate(case, predicted[case.row_id, case.metric]) for case in rows),
            ),
        )
    return found


def _rate(case: Question, value: float) -> float:
    """A rate: the value, or the inverse of a time."""
    return value if case.conversion.kind == "rate" else 1.0 / value
