"""One run: device, budget, file, and what was left out."""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable, Sequence

from sapper.probe.parts.device import Device
from sapper.probe.parts.lines import Lines
from sapper.probe.parts.talk import say
from sapper.probe.parts.timing import Budget, Timing, measure, outcome

CASES_PER_SECTION = 12
"""No case may take more than this part of its section's time."""


SLOW_FLOPS_PER_S = 5e9


class Session:
    """What every section is given."""

    def __init__(self, device: Device, lines: Lines, *, budget: Budget, options: argparse.Namespace) -> None:
        self.device, self.lines, self.budget, self.options = device, lines, budget, options
        self.torch: Any = device.torch
        self._start = time.monotonic()
        self.left_out: list[str] = []
        self.flops_per_s: dict[str, float] = {}
        """Rate of matrix products by dtype, for whether a later case is affordable."""
        self.memory_bytes = device.memory_bytes() or 4.0 * 2**30

    def fastest_first(self, dtypes: Sequence[str]) -> list[str]:
        """``dtypes`` by their rate in matrix products; those that were not measured last."""
        return sorted(dtypes, key=lambda dtype: -self.flops_per_s.get(dtype, 0.0))

    def estimate_s(self, dtype: str, work: float) -> float:
        """Seconds that ``work`` FLOPs take at the rate of matrix products, or at a slow processor's where that is not known."""
        return work / self.flops_per_s.get(dtype, SLOW_FLOPS_PER_S)

    def case_s(self) -> float:
        """Seconds that one case may take."""
        return self.budget.share_s / CASES_PER_SECTION

    def fits(self, need_bytes: float) -> bool:
        """Whether a case of ``need_bytes`` leaves the memory half empty."""
        return need_bytes < self.memory_bytes / 2

    def skip(self, what: str) -> None:
        """Note a case that was not run, for want of time or memory."""
        self.left_out.append(what)

    def record(self, **fields: Any) -> None:
        """Write a result and say so."""
        self.lines.write({"type": "result", "elapsed_s": round(time.monotonic() - self._start, 3), **fields})
        value = fields.get("value")
        shown = fields.get("status") if value is None else "{:.4g} {}".format(value, fields["unit"])
        say("result", kind=fields["kind"], dtype=fields.get("dtype") or "-", conditions=_short(fields["conditions"]), value=shown)

    def run(
        self,
        make: Callable[[], Callable[[], Any]],
        *,
        fields: dict[str, Any],
        results: Callable[[Timing], dict[str, Any]],
    ) -> Timing | None:
        """Time a case and record it; one that the stack refuses or breaks on is recorded as that.

        Args:
            make: Allocates and returns the call to time.
            fields: Kind, metric, unit, dtype and conditions of the record.
            results: Value and quartiles from the timing.
        """
        try:
            timing = measure(self.device, make(), limit_s=self.case_s() / 2)
        except Exception as error:  # whatever a vendor's stack raises is the answer for this case
            self.device.forget()
            self.record(**fields, **outcome(error))
            return None
        self.record(**{**fields, "conditions": {**fields["conditions"], **timing.conditions()}}, **results(timing))
        return timing


_NOT_SHOWN = ("calls", "repeats", "time_s", "layout", "torch_dtype", "implementation")


def _short(conditions: dict[str, Any]) -> str:
    plain = {key: value for key, value in conditions.items() if not isinstance(value, list) and key not in _NOT_SHOWN}
    return " ".join(f"{key}={value}" for key, value in plain.items())[:90]
