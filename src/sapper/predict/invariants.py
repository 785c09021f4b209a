"""What no result may be. Checked after every prediction; a violation is a fault of ours and raised as such."""

from __future__ import annotations

import math

from sapper.errors import InvariantError
from sapper.evidence import Interval
from sapper.predict.estimate import Estimate


def check(estimate: Estimate) -> Estimate:
    """``estimate`` itself, if it is possible.

    Raises:
        InvariantError: It is not.
    """
    named: list[tuple[str, Interval | None]] = [
        ("step_time", estimate.step_time),
        ("tokens_per_s", estimate.tokens_per_s),
        ("mfu", estimate.mfu),
        ("hfu", estimate.hfu),
        ("memory.peak", estimate.memory.peak),
        ("job_time", estimate.job_time),
        ("energy_per_step", estimate.energy_per_step),
        *((f"cost {key}", value) for key, value in estimate.cost.items()),
    ]
    for name, value in named:
        if value is None:
            continue
        numbers = (value.low, value.mid, value.high)
        _require(all(math.isfinite(x) and x >= 0 for x in numbers), name, numbers)
        _require(value.low <= value.mid * (1 + 1e-9) and value.mid <= value.high * (1 + 1e-9), f"{name} interval", numbers)
    _require(estimate.step_time.low > 0, "step_time", estimate.step_time.low)
    for name, share in (("mfu", estimate.mfu), ("hfu", estimate.hfu)):
        _require(share is None or share.high <= 1.0 + 1e-9, name, share)
    _require(all(part.size_bytes >= 0 for part in estimate.memory.parts), "memory parts", estimate.memory.parts)
    _require(all(term.time_s >= 0 for term in estimate.terms), "terms", estimate.terms)
    total = sum(term.time_s for term in estimate.terms)
    _require(abs(total - estimate.step_time.mid) <= 1e-6 * estimate.step_time.mid, "sum of terms", (total, estimate.step_time.mid))
    _require(estimate.plan.chips == estimate.chips, "plan x chips", (estimate.plan, estimate.chips))
    alone = {term.name: term.time_s for term in estimate.terms}
    _require(estimate.plan.tp > 1 or alone.get("tensor-comm", 0.0) == 0.0, "tensor communication at tp=1", alone)
    _require(estimate.plan.pp > 1 or alone.get("bubble", 0.0) == 0.0, "bubble at pp=1", alone)
    return estimate


def _require(holds: bool, what: str, value: object) -> None:
    if not holds:
        raise InvariantError("SP-PRED-040", what=what, value=value)
