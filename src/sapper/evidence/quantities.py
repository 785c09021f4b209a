"""What may be measured: the quantity that a metric is, its base unit, and what each kind of record must state."""

from __future__ import annotations

import re
from typing import get_args

import msgspec

from sapper.evidence.record import Kind

QUANTITIES: dict[str, str] = {
    "rate": "flop/s",
    "bandwidth": "bytes/s",
    "time": "s",
    "share": "1",
    "frequency": "Hz",
    "power": "W",
    "throughput": "tokens/s",
}
"""Metric -> its base unit. ``rate`` counts a multiply-add as 2, integers alike; ``bandwidth`` counts reads and writes."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What a record of one kind holds."""

    metrics: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Conditions without which the value says nothing."""
    dtype: bool = False
    """Whether a dtype must be stated."""


_COLLECTIVE = Rule(metrics=("time",), needs=("devices", "message_bytes"))

RULES: dict[str, Rule] = {
    "matmul": Rule(metrics=("rate",), needs=("m", "n", "k"), dtype=True),
    "memory-copy": Rule(metrics=("bandwidth",), needs=("bytes",)),
    "memory-read": Rule(metrics=("bandwidth",), needs=("bytes",)),
    "attention": Rule(
        metrics=("rate", "bandwidth"), needs=("batch", "heads", "head_dim", "query_len", "kv_len", "causal", "pass"), dtype=True,
    ),
    "all-reduce": _COLLECTIVE,
    "all-gather": _COLLECTIVE,
    "reduce-scatter": _COLLECTIVE,
    "all-to-all": _COLLECTIVE,
    "p2p": Rule(metrics=("time",), needs=("message_bytes",)),
    "launch": Rule(metrics=("time",)),
    "clock": Rule(metrics=("share", "rate", "frequency")),
    "power": Rule(metrics=("power",)),
    "training-step": Rule(metrics=("throughput", "time"), dtype=True),
}
"""Kind -> its rule; the runs, which are not here, follow their measurement row."""

RUNS = ("training-run", "serving-run")
KINDS: tuple[str, ...] = get_args(Kind)

ROW_NEEDS = ("id", "source", "chip", "n_chips", "model", "metric", "value", "unit")
"""Fields that the payload of a run must have: those that docs/validation.md calls needed."""

_TIME = r"(n|u|m)?s|sec|seconds|milliseconds|min|minutes|h|hours|d|days"
_BYTES = r"([kMGT]i?)?B|bytes"
_RUN_UNITS: tuple[tuple[str, str], ...] = (
    (r".*tok(en)?s_per_s.*|throughput", r"k?(tokens?|tok)/s.*"),
    (r".*(samples|sequences|images)_per_s.*", r"(samples|sequences|images)/s.*"),
    (r".*flops.*", r"[kMGTPE]?FLOP(/s|S|s).*"),
    (r".*_pct", r"%|percent"),
    (r"mfu|hfu", r"1|fraction|%|percent|"),
    (r"memory.*", _BYTES),
    (r"energy.*", r"(k|M|m)?J.*|(k|M)?Wh.*"),
    (r".*power.*", r"(k|M|m)?W"),
    (r".*(time|latency)(_.*)?|tpot.*|ttft.*|itl.*", _TIME),
)
"""Metric of a run -> the units that measure it, as regular expressions; the first that fits decides."""


def measures(unit: str, metric: str) -> bool:
    """Whether ``unit`` measures the metric of a run; of a metric that we do not know every unit does."""
    for metrics, units in _RUN_UNITS:
        if re.fullmatch(metrics, metric):
            return re.fullmatch(units, unit) is not None
    return True
