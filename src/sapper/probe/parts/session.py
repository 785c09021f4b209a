"""One run: device, budget, file, and what was left out."""

from __future__ import annotations

import argparse
from typing import Any, Callable

from sapper.probe.parts.device import Device
from sapper.probe.parts.lines import Lines
from sapper.probe.parts.talk import say
from sapper.probe.parts.timing import Budget, Timing, measure, outcome

CASES_PER_SECTION = 12
"""No case may take more than this part of its section's time."""


class Session:
    """What every section is given."""

    def __init__(self, device: Device, lines: Lines, *, budget: Budget, options: argparse.Namespace) -> None:
        self.device, self.lines, self.budget, self.options = device, lines, budget, options
        self.torch: Any = device.torch
        self.left_out: list[str] = []
        self.flops_per_s_guess = 5e9
        """For whether a case is affordable; measurements put better ones in its place."""
        self.memory_bytes = device.memory_bytes() or 4.0 * 2**30

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
        self.lines.write({"type": "result", **fields})
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
