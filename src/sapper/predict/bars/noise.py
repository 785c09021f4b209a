"""Noise: how far measurements of one and the same question lie apart, which no predictor can be better than."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import msgspec

from sapper.predict.serve.rows.case import ServeCase


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What measurements that share a question say of the least error."""

    groups: int
    """Questions that were measured more than once."""
    rows: int
    mean: float | None
    """Mean error of the best constant answer to each of them: too small a figure, since it is chosen afterwards."""
    apart: float | None
    """Median of how far two measurements of one question lie apart, as a ratio less one."""


def floor(cases: Sequence[ServeCase], *, same_release: bool = False) -> Floor:
    """The floor of ``cases``; copies of one measurement count once.

    Args:
        cases: Questions of one quantity.
        same_release: Whether the engine's release and the day must agree too.
    """
    groups: dict[Hashable, dict[str, float]] = defaultdict(dict)
    for case in cases:
        when = (case.engine, case.job.stack_year) if same_release else None
        groups[question(case), when].setdefault(f"{case.measured:.4g}", case.measured)
    repeated = [sorted(values.values()) for values in groups.values() if len(values) > 1]
    errors = [error for values in repeated for error in _best_constant(values)]
    pairs = [b / a - 1.0 for values in repeated for i, a in enumerate(values) for b in values[i + 1:]]
    return Floor(
        groups=len(repeated), rows=len(errors), mean=statistics.fmean(errors) if errors else None,
        apart=statistics.median(pairs) if pairs else None,
    )


def question(case: ServeCase) -> Hashable:
    """All that a row asks but who answered when: two rows of one question differ in release, day and chance alone."""
    job = case.job
    dtypes = (job.weights_dtype, job.compute_dtype, job.cache_dtype, job.dtype)
    layout = msgspec.json.encode((case.plan, case.replicas, case.prefill and (case.prefill.plan, case.prefill.workers), case.admission))
    load = (case.mode, case.batch, case.input_len, case.output_len, case.requests)
    return (
        case.family, case.chip_id, case.metric, job.model.name.lower(), job.stack, dtypes, case.cluster.chips, layout, load,
        tuple(sorted(case.tags)),
    )


def _best_constant(values: Sequence[float]) -> list[float]:
    """Errors of the one answer to several measurements whose mean error is least: |x/m - 1| is straight between measurements, so
    that the best x is one of them."""
    best = min(values, key=lambda answer: math.fsum(abs(answer / measured - 1.0) for measured in values))
    return [abs(best / measured - 1.0) for measured in values]
