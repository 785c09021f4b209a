"""Claim: a row with all that its rules ask, worked out once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from sapper.chips.catalogue import Catalogue
from sapper.errors import SapperError
from sapper.predict.claims.demand import Demand, demand_of
from sapper.predict.claims.finding import Finding, Gap, Kind
from sapper.predict.claims.limits import Limits, limits_of
from sapper.predict.claims.work import Work, work_of
from sapper.predict.rows.models import workload_of
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import source_rule

Limit = Literal["peak_flops_per_s", "bandwidth_bytes_per_s", "capacity_bytes", "power_w"]
_FIELDS: dict[str, str] = {
    "peak_flops_per_s": "chip.peak_flops_per_s", "bandwidth_bytes_per_s": "chip.memory.bandwidth", "capacity_bytes": "chip.memory.capacity",
    "power_w": "chip.tdp",
}
"""As the catalogue calls what a limit is taken from."""


@dataclass(frozen=True, eq=False)
class Claim:
    """One row under examination."""

    row: Row
    catalogue: Catalogue

    @functools.cached_property
    def limits(self) -> Limits | None:
        """The most that one chip can do."""
        return limits_of(self.row, self.catalogue)

    @functools.cached_property
    def demand(self) -> Demand:
        """The least that the value implies."""
        try:
            return demand_of(self.row)
        except SapperError:  # a length that the model cannot have
            return Demand(lacks="model")

    @functools.cached_property
    def work(self) -> Work | None:
        """The least work of the model."""
        return work_of(self.row.model)

    @functools.cached_property
    def family(self) -> str:
        """The source, as validate groups it."""
        return source_rule(self.row).family

    @functools.cached_property
    def chip_key(self) -> str:
        """What tells this chip from others: its id, or the label of one that the catalogue does not know."""
        return self.limits.chip if self.limits else (self.row.chip_id or self.row.chip).lower()

    @functools.cached_property
    def causal_slack(self) -> float:
        """Counted over executed FLOPs: a count with the full score square may exceed the peak by this factor."""
        try:
            workload, _ = workload_of(self.row, dtype="bf16", attention="flash")
        except (RowFault, SapperError):
            return 2.0
        return workload.flops(convention="full") / workload.flops()

    @property
    def chips(self) -> int:
        """Chips of the job; 1 where the row does not say (and then no rule that needs them runs)."""
        return self.row.stated_chips or 1

    @property
    def chip_name(self) -> str:
        """As findings call the chip."""
        return self.limits.chip if self.limits else self.row.chip

    @property
    def utilisation(self) -> float | None:
        """Demanded bandwidth over what the chips have; None where either is unknown."""
        most = self.limits.bandwidth_bytes_per_s if self.limits else None
        demanded = self.demand.bytes_per_s
        return None if demanded is None or most is None or self.row.stated_chips is None else demanded / (most * self.chips)

    def most(self, rule: str, limit: Limit) -> float | Gap:
        """The most that all chips together can do, or what is lacking."""
        if self.row.stated_chips is None:
            return self.gap(rule, "n_chips")
        if self.limits is None:
            return self.gap(rule, "chip")
        value: float | None = getattr(self.limits, limit)
        return self.gap(rule, _FIELDS[limit]) if value is None else value * self.chips

    def number(self, name: str, scale: float = 1.0) -> float | None:
        """A positive number of the row's ``extra``, times ``scale``; None where it holds none."""
        value = self.row.extra.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e18:
            return None
        return scale * float(value)

    def finding(self, code: str, kind: Kind, **values: Any) -> Finding:
        """A reason not to believe the row."""
        return Finding(row_id=self.row.id, code=code, kind=kind, values=values)

    def gap(self, rule: str, lacks: str) -> Gap:
        """What a rule lacked."""
        return Gap(row_id=self.row.id, rule=rule, lacks=lacks)
