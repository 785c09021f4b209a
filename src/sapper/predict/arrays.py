"""PlanArray: many plans as one struct of arrays, so that a search is a few array operations and not a loop.

Shape legend of this package: P = plans, U = distinct local shapes among the plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sapper.predict.plan import RECOMPUTES, SCHEDULES, Plan

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PlanArray:
    """P plans; every field is an array of length P and means what the field of :class:`Plan` means."""

    tp: Ints
    pp: Ints
    dp: Ints
    ep: Ints
    cp: Ints
    micro_batch: Ints
    vpp: Ints
    schedule: Ints
    """Index into SCHEDULES."""
    zero: Ints
    hsdp: Ints
    recompute: Ints
    """Index into RECOMPUTES."""
    sequence_parallel: Bools

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> PlanArray:
        """The arrays of ``plans``."""
        columns = {}
        for field in fields(cls):
            values = [getattr(plan, field.name) for plan in plans]
            if field.name == "schedule":
                values = [SCHEDULES.index(value) for value in values]
            if field.name == "recompute":
                values = [RECOMPUTES.index(value) for value in values]
            columns[field.name] = np.array(values, bool if field.name == "sequence_parallel" else np.int64)
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.tp)

    def __getitem__(self, index: NDArray[np.generic]) -> PlanArray:
        """The plans that a mask or an index array selects."""
        return PlanArray(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def plan(self, index: int) -> Plan:
        """Plan number ``index`` as an object."""
        values = {field.name: getattr(self, field.name)[index].item() for field in fields(self)}
        values["schedule"] = SCHEDULES[values["schedule"]]
        values["recompute"] = RECOMPUTES[values["recompute"]]
        return Plan(**values)

    @property
    def chips(self) -> Ints:
        """Chips of each plan."""
        return self.tp * self.pp * self.dp * self.cp

    def micro_batches(self, global_batch: int) -> Ints:
        """Micro-batches per replica and step; 0 where the batch does not divide."""
        per_replica = self.dp * self.micro_batch
        exact = (global_batch % per_replica) == 0
        return np.where(exact, global_batch // per_replica, 0)
