"""Bars of training throughput: chips, vendors, vTrain from the spec alone, and the intervals' honesty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.question import Predictor, Question
from sapper.predict.rows.scores import Answer, Scored, by, score, summary
from sapper.predict.validate import Report

FEWEST = 10
"""Rows from which the coverage of a group says something about its interval: below, one row moves it by more than 10%."""
COVERAGE = (0.88, 0.92)


def leave_one_out(key: str, report: Report) -> Bar:
    """The bars ``chip`` and ``vendor``: mean, median and worst group of the absolute errors."""
    timed = [line for line in report.rows if line.metric != "memory_per_chip"]
    whole = summary(timed)
    groups = by(timed, (lambda line: line.chip) if key == "chip" else (lambda line: line.vendor))
    means = {name: group.mean_abs for name, group in groups.items() if group.mean_abs is not None}
    worst = max(means.values(), default=None)
    targets = {"chip": (0.12, 0.08, 0.20), "vendor": (0.15, None, None)}[key]
    return Bar(
        key=f"training_{key}", rows=whole.n, answered=whole.answered,
        figures=(
            Figure(name="mean", value=whole.mean_abs, most=targets[0]),
            Figure(name="median", value=whole.median_abs, most=targets[1]),
            Figure(name="worst_group", value=worst, most=targets[2]),
            Figure(name="naive", value=report.naive.mean_abs),
        ),
        groups=tuple(
            {"group": name, "rows": groups[name].n, "mean": mean, "median": groups[name].median_abs, "bias": groups[name].bias}
            for name, mean in sorted(means.items(), key=lambda item: -item[1])
        ),
    )


def vtrain(
    predictor: Predictor, pool: Sequence[Question], *, several: Sequence[Question], single: Sequence[Question]
) -> tuple[list[Scored], Bar]:
    """The bar ``vtrain``, and the lines that it stands on: every row of the chip and every row of the source is held out.

    Args:
        predictor: What is fitted.
        pool: What may be fitted on.
        several: The multi-node runs.
        single: The runs of one node.
    """
    held_out = {case.chip_id for case in (*several, *single)} | {case.family for case in (*several, *single)}
    fitted = predictor.fit([case for case in pool if case.chip_id not in held_out and case.family not in held_out])
    lines = {name: scored(fitted, cases) for name, cases in (("several", several), ("single", single))}
    errors = {name: summary(found) for name, found in lines.items()}
    bar = Bar(
        key="vtrain", rows=len(several) + len(single), answered=sum(found.answered for found in errors.values()),
        figures=(
            Figure(name="multi_node", value=errors["several"].mean_abs, most=0.07),
            Figure(name="single_node", value=errors["single"].mean_abs, most=0.08),
        ),
    )
    return [*lines["several"], *lines["single"]], bar


def scored(predictor: Predictor, cases: Sequence[Question]) -> list[Scored]:
    """The lines of ``cases`` under a predictor that is fitted already; those that it answers."""
    answers = zip(cases, predictor.predict(cases), strict=True)
    return [
        score(case, Answer(mid=found[0], low=found[1], high=found[2]), in_training=False)
        for case, found in answers if isinstance(found, tuple)
    ]


def intervals(lines: Sequence[Scored], key: str) -> Bar:
    """The bar ``intervals``: coverage of 90% intervals over all rows, and in each chip and source of enough rows."""
    groups = {
        **{f"chip {name}": group for name, group in by(lines, lambda line: line.chip).items()},
        **{f"source {name}": group for name, group in by(lines, lambda line: line.family).items()},
    }
    known = {name: group for name, group in groups.items() if group.coverage is not None and group.answered >= FEWEST}
    inside = [COVERAGE[0] <= (group.coverage or 0.0) <= COVERAGE[1] for group in known.values()]
    whole = summary(lines)
    return Bar(
        key=key, rows=whole.n, answered=whole.answered,
        figures=(
            Figure(name="coverage", value=whole.coverage, least=COVERAGE[0], most=COVERAGE[1]),
            Figure(name="groups_inside", value=sum(inside) / len(inside) if inside else None, least=1.0),
            Figure(name="groups_exact", value=_if_exact([group.answered for group in known.values()])),
            Figure(name="width", value=whole.width),
        ),
        groups=tuple(
            {"group": name, "rows": group.answered, "coverage": group.coverage, "width": group.width}
            for name, group in sorted(known.items(), key=lambda item: -abs((item[1].coverage or 0.0) - 0.9))
        ),
    )


def _if_exact(sizes: Sequence[int]) -> float | None:
    """Share of groups of these sizes whose coverage would lie in COVERAGE, were each interval to hold its truth in 90% of all cases
    and each independently of the others (binomial): rows are few, and 11 of 12 are already 92%."""
    low, high = COVERAGE
    shares = [sum(_chance(hits, size) for hits in range(size + 1) if low <= hits / size <= high) for size in sizes]
    return sum(shares) / len(shares) if shares else None


def _chance(hits: int, size: int) -> float:
    """Binomial probability of ``hits`` in ``size`` at 90% each, by logarithms: the coefficients of thousands of rows exceed a float."""
    ways = math.lgamma(size + 1) - math.lgamma(hits + 1) - math.lgamma(size - hits + 1)
    return math.exp(ways + hits * math.log(0.9) + (size - hits) * math.log(0.1))
