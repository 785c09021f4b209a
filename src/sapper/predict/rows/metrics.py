"""Metrics: which a row may carry, in which units, and how a predicted step time becomes one of them."""

from __future__ import annotations

import re
from collections.abc import Callable

from sapper.chips.schema import Chip
from sapper.predict.job import TrainJob
from sapper.predict.plan import Recompute
from sapper.predict.rows.case import Conversion
from sapper.predict.rows.flops import Convention, step_flops
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import SourceRule, fits

_TIME_UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e3, "milliseconds": 1e3, "us": 1e6, "min": 1 / 60, "minutes": 1 / 60}
_MEMORY_UNITS = {"B": 1.0, "bytes": 1.0, "MiB": 2.0**-20, "GiB": 2.0**-30, "TiB": 2.0**-40, "MB": 1e-6, "GB": 1e-9, "TB": 1e-12}
_FLOP_UNITS = {"TFLOP/s": 1e-12, "TFLOPS": 1e-12, "TFLOPs": 1e-12, "PFLOP/s": 1e-15, "GFLOP/s": 1e-9}

PER_CHIP = "(/(chip|gpu|npu|device|accelerator|card))?"
UNITS: dict[str, str] = {
    "tokens_per_s_per_chip": f"(k)?tokens?/s{PER_CHIP}|tok/s{PER_CHIP}",
    "tokens_per_s": r"(k)?tokens?/s( \(.*\))?|tok/s",
    "samples_per_s": "samples/s|sequences/s",
    "samples_per_s_per_chip": f"(samples|sequences)/s{PER_CHIP}",
    "tflops_per_chip": f"({'|'.join(_FLOP_UNITS)}){PER_CHIP}",
    "mfu_pct": "%|percent",
    "hfu_pct": "%|percent",
    "mfu": "1|fraction|",
    "step_time": "|".join(_TIME_UNITS),
    "memory_per_chip": f"({'|'.join(_MEMORY_UNITS)}){PER_CHIP}",
    "time_to_train": "min|minutes|s|h|hours",
}
"""Metric -> the units that it may have, as a regular expression."""


def check_unit(row: Row) -> None:
    """Refuse a metric or a unit that we do not score.

    Raises:
        RowFault: The field is ``metric`` or ``unit``.
    """
    if row.metric not in UNITS:
        raise RowFault("SP-ROW-009", "metric", value=row.metric, known=", ".join(UNITS))
    if not re.fullmatch(UNITS[row.metric], row.unit):
        raise RowFault("SP-ROW-010", "unit", value=row.unit, metric=row.metric)


def per_chip(row: Row) -> bool:
    """Whether the value is of one chip: by the metric, or where the unit itself says so beside a total's name.

    A unit such as ``tokens/s (unit printed as Tokens/s; per-chip by magnitude)`` carries the reading of whoever compiled
    the row.
    """
    return row.metric.endswith("_per_chip") or "per-chip" in row.unit or "per chip" in row.unit


def _rate(row: Row, amount: float, chips: float) -> Conversion:
    scale = 1e-3 if row.unit.startswith("k") else 1.0
    return Conversion(kind="rate", factor=scale * amount / (chips if per_chip(row) else 1.0))


def _flop_unit(row: Row) -> float:
    """What one FLOP/s is in the row's unit, which may say of what it is: ``TFLOP/s``, ``TFLOPS/GPU``."""
    return _FLOP_UNITS[_whole(row.unit)]


def _whole(unit: str) -> str:
    """Without the words that say "per chip"."""
    return re.sub(f"{PER_CHIP}$", "", unit, count=1)


def conversion_of(row: Row, rule: SourceRule, job: TrainJob, *, chip: Chip, recompute: Recompute | None) -> Conversion:
    """How a step time (or bytes) becomes the value of the row's metric.

    Args:
        row: A row whose unit :func:`check_unit` has passed, and whose metric is not ``time_to_train``.
        rule: What the source counts.
        job: The question; sets tokens and FLOPs of a step.
        chip: As the source counts chips; its catalogue peak is what MFU divides by.
        recompute: What the row states; HFU needs it.

    Raises:
        RowFault: MFU without a peak, or HFU without the recomputation.
    """
    makers: dict[str, Callable[[], Conversion]] = {
        "step_time": lambda: Conversion(kind="direct", factor=_TIME_UNITS[row.unit]),
        "memory_per_chip": lambda: Conversion(kind="direct", factor=_MEMORY_UNITS[_whole(row.unit)]),
        "tokens_per_s": lambda: _rate(row, job.tokens_per_step, row.n_chips),
        "samples_per_s": lambda: _rate(row, job.global_batch, row.n_chips),
    }
    makers["tokens_per_s_per_chip"] = makers["tokens_per_s"]
    makers["samples_per_s_per_chip"] = makers["samples_per_s"]
    if row.metric in makers:
        return makers[row.metric]()
    if row.metric == "hfu_pct" and recompute is None:
        raise RowFault("SP-ROW-001", "recompute")
    frozen = job.finetune == "lora"
    repeated: Recompute = (recompute or "none") if row.metric == "hfu_pct" else "none"
    flops = step_flops(job.workload, job.global_batch, convention=convention_of(row, rule), recompute=repeated, frozen=frozen)
    if row.metric == "tflops_per_chip":
        return Conversion(kind="rate", factor=flops * _flop_unit(row) / row.n_chips)
    scale = 1.0 if row.metric == "mfu" else 100.0
    return Conversion(kind="rate", factor=scale * flops / row.n_chips / peak_of(chip, job.precision))


ROUNDING = 1.03
"""Above a peak by less than this, rounding explains it."""


def check_possible(row: Row, rule: SourceRule, job: TrainJob, chip: Chip) -> None:
    """Refuse FLOP/s or a utilisation that the row states outright and that lie above the chip's dense peak.

    What a source counts beyond the executed FLOPs (the whole score square) may exceed the peak by as much.

    Raises:
        RowFault: The field is ``value``.
    """
    if row.metric not in ("tflops_per_chip", "mfu", "mfu_pct", "hfu_pct"):
        return
    peak = peak_of(chip, job.precision)
    if row.metric == "tflops_per_chip":
        stated = row.value / _flop_unit(row)
    else:
        stated = row.value * peak / (1.0 if row.metric == "mfu" else 100.0)
    counted = step_flops(job.workload, 1.0, convention=convention_of(row, rule))
    executed = step_flops(job.workload, 1.0, convention="causal")
    if stated > ROUNDING * peak * max(1.0, counted / executed):
        raise RowFault("SP-ROW-024", "value", stated=f"{row.value:g} {row.unit}", chip=chip.id, peak=f"{peak / 1e12:,.0f}")


def convention_of(row: Row, rule: SourceRule) -> Convention:
    """What the source's FLOPs count: its rule, else its own words, else the full score square without recomputation."""
    if rule.flops is not None:
        return rule.flops
    if fits("include activation recomputation|hardware flops", row.note) and row.metric == "tflops_per_chip":
        return "full+recompute"
    return "causal" if fits("causal (attention )?(is )?(halved|halving)|flops.*causal", row.note) else "full"


def peak_of(chip: Chip, precision: str) -> float:
    """Dense peak that a published MFU divides by.

    Raises:
        RowFault: The catalogue has none.
    """
    fact = chip.peak_flops_per_s.get(precision)
    if fact is None or fact.number is None or fact.number <= 0:
        raise RowFault("SP-ROW-014", f"chip.peak_flops_per_s.{precision}", chip=chip.id)
    return fact.number
