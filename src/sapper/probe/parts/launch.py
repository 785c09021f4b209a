"""Launch overhead: operations so small that only starting them takes time."""

from __future__ import annotations

import functools
from typing import Any, Callable

from sapper.probe.parts.session import Session
from sapper.probe.parts.timing import Timing

LAUNCH_CHAIN = 200


def measure_launch(session: Session) -> None:
    """A chain of additions of one number, per operation; and one addition that is waited for."""
    torch, device = session.torch, session.device

    def chain() -> Callable[[], Any]:
        number = torch.zeros(1, device=device.place)

        def run() -> None:
            for _ in range(LAUNCH_CHAIN):
                number.add_(1.0)

        return run

    def awaited() -> Callable[[], Any]:
        number = torch.zeros(1, device=device.place)

        def run() -> None:
            number.add_(1.0)
            device.synchronize()

        return run

    def per_operation(timing: Timing, operations: int) -> dict[str, float]:
        return {key: time / operations for key, time in timing.times().items()}

    for what, make, operations in (("chain", chain, LAUNCH_CHAIN), ("awaited", awaited, 1)):
        session.run(
            make,
            fields={
                "kind": "launch", "metric": "time", "unit": "s", "dtype": "fp32",
                "conditions": {"what": what, "operation": "add_", "elements": 1, "operations": operations},
            },
            results=functools.partial(per_operation, operations=operations),
        )
