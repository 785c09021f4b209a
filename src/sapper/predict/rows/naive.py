"""The naive bar: one model FLOPs utilisation for every chip, the median of the rows that were fitted on.

Whoever predicts worse than this has learnt nothing. Its interval is the middle 80% of the ratios seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.errors import MissingFact, SapperError
from sapper.predict.rows.case import Case
from sapper.predict.rows.flops import step_flops


@dataclass(frozen=True)
class ConstantMfu:
    """Answers with one MFU; ``fit`` takes it from cases."""

    mfu: tuple[float, float, float] = (0.4, 0.2, 0.6)
    """Middle, low, high."""

    def fit(self, cases: Sequence[Case]) -> ConstantMfu:
        """The median utilisation of the time rows among ``cases``."""
        seen = [
            found / case.measured_time_s
            for case in cases
            if case.measured_time_s is not None and (found := _ideal_s(case)) is not None
        ]
        if not seen:
            return self
        low, middle, high = np.quantile(seen, (0.1, 0.5, 0.9))
        return ConstantMfu(mfu=(float(middle), float(low), float(high)))

    def predict(self, cases: Sequence[Case]) -> list[tuple[float, float, float] | SapperError]:
        """Middle, low and high of each case in its own metric; memory has no such bar."""
        return [self._answer(case) for case in cases]

    def _answer(self, case: Case) -> tuple[float, float, float] | SapperError:
        ideal = _ideal_s(case) if case.quantity == "time" else None
        if ideal is None:
            return MissingFact("SP-ROW-014", field="peak_flops_per_s", chip=case.chip_id)
        values = [case.value_of(ideal / mfu) for mfu in self.mfu]
        return values[0], min(values), max(values)


def _ideal_s(case: Case) -> float | None:
    """Step time at the dense peak; None where the peak is unknown."""
    group = case.cluster.groups[0]
    fact = group.chip.peak_flops_per_s.get(case.job.precision)
    if fact is None or fact.number is None:
        return None
    return step_flops(case.job.workload, case.job.global_batch, frozen=case.job.finetune == "lora") / (group.chips * fact.number)
