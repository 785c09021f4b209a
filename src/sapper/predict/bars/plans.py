"""The bar of plan choice: among measured plans of one job, is the one predicted fastest the fastest, or close to it?"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.case import Case

CLOSE = 0.02
"""Plans whose times differ by less are ties (run to run 2-4%)."""
FEWEST = 4
"""Plans of a group: with two or three a guess is right too often."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One job with several measured plans."""

    job: str
    plans: int
    regret_ratio: float
    """Measured time of the plan predicted fastest over that of the fastest, less one."""
    random_ratio: float
    """The same for a plan picked at random, on average."""


def plan_choice(cases: Sequence[Case], predicted: Mapping[str, float]) -> Bar:
    """The bar ``plans``.

    Args:
        cases: Rows with stated plans.
        predicted: The middle of the prediction in the row's metric, by row id.
    """
    groups: dict[Hashable, list[Case]] = defaultdict(list)
    for case in cases:
        if case.row_id in predicted and case.quantity == "time":
            groups[_job(case)].append(case)
    choices = [_choice(group, predicted) for group in groups.values() if len({_plan(case) for case in group}) >= FEWEST]
    regrets = [choice.regret_ratio for choice in choices]
    worst = sorted(choices, key=lambda choice: -choice.regret_ratio)
    return Bar(
        key="plans", rows=len(choices), answered=len(choices),
        figures=(
            Figure(name="best_or_close", value=_share([regret <= CLOSE for regret in regrets]), least=0.90),
            Figure(name="regret", value=statistics.fmean(regrets) if regrets else None, most=0.01),
            Figure(name="random", value=statistics.fmean(choice.random_ratio for choice in choices) if choices else None),
        ),
        groups=tuple({"group": one.job, "rows": one.plans, "regret": one.regret_ratio} for one in worst),
    )


def _share(marks: Sequence[bool]) -> float | None:
    return sum(marks) / len(marks) if marks else None


def _job(case: Case) -> Hashable:
    """What the plans of one group have in common: everything but the plan."""
    workload = case.job.workload
    batch = None if case.conversion.kind == "rate" else case.job.global_batch  # rates compare plans of any batch
    return case.family, case.chip_id, case.cluster.chips, workload.name, workload.seq_len, workload.params, case.precision, batch


def _plan(case: Case) -> Hashable:
    return msgspec.json.encode(case.plan), case.job.global_batch


def _choice(group: Sequence[Case], predicted: Mapping[str, float]) -> Choice:
    measured = [_cost(case, case.measured) for case in group]
    guess = min(range(len(group)), key=lambda index: _cost(group[index], predicted[group[index].row_id]))
    best = min(measured)
    first = group[0]
    return Choice(
        job=f"{first.family} {first.job.workload.name} x{first.cluster.chips} {first.job.global_batch}", plans=len(group),
        regret_ratio=measured[guess] / best - 1.0, random_ratio=statistics.fmean(measured) / best - 1.0,
    )


def _cost(case: Case, value: float) -> float:
    """Time, or the inverse of a rate: less is better."""
    return 1.0 / value if case.conversion.kind == "rate" else value
