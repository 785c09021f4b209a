"""Chrome's trace format: what ``chrome://tracing`` and Perfetto open.

The format is that of the Trace Event documents of Catapult: complete events (``ph`` ``X``) with ``ts`` and ``dur`` in microseconds,
``pid`` and ``tid`` by pipeline and seat, and metadata events (``M``) that name them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sapper.dossier.mix.lanes import Happening
from sapper.mix.plan import MixPlan, seats

_US = 1e6


def trace(plan: MixPlan, events: Iterable[Happening]) -> bytes:
    """The events as JSON; processes are copies of pipelines, threads are seats."""
    found: list[dict[str, Any]] = []
    places: dict[int, tuple[int, int]] = {}
    named: dict[tuple[int, int], int] = {}
    for seat in seats(plan):
        copy = (seat.pipeline, seat.copy)
        if copy not in named:
            named[copy] = len(named)
            found.append(_named("process_name", named[copy], 0, f"pipeline {seat.pipeline} copy {seat.copy}"))
        places[seat.rank] = (named[copy], seat.rank)
        stage = plan.pipelines[seat.pipeline].stages[seat.stage]
        name = f"rank {seat.rank}: {seat.group}, stage {seat.stage}, layers {stage.first}-{stage.last - 1}"
        found.append(_named("thread_name", named[copy], seat.rank, name))
    for event in events:
        pid, tid = places[event.seat_rank]
        label = event.kind if event.micro_batch < 0 else f"{event.kind} {event.micro_batch}"
        found.append({
            "name": label, "cat": event.kind, "ph": "X", "pid": pid, "tid": tid, "ts": round(event.start_s * _US, 3),
            "dur": round((event.end_s - event.start_s) * _US, 3), "args": {"micro_batch": event.micro_batch},
        })  # fmt: skip
    about = {"model": plan.model, "cluster": plan.cluster, "plan": plan.digest}
    return msgspec.json.encode({"traceEvents": found, "displayTimeUnit": "ms", "otherData": about})


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
