"""MLPerf Training rows: the logged throughput, since the time to train is also convergence luck.

A result log carries up to three rates: ``logged_throughput`` (mean of the submitter's own throughput lines),
``block_throughput`` (units between block_start and block_stop, evaluation left out) and what the run as a whole gives
(samples to converge over time, evaluation and start included). Their units vary: GPT-3 counts tokens whatever the
field's name says. The rates must agree with each other and with physics, or the row is refused.
"""

from __future__ import annotations

import math
from typing import Any

from sapper.chips.schema import Chip
from sapper.predict.job import TrainJob
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.flops import step_flops
from sapper.predict.rows.metrics import peak_of
from sapper.predict.rows.row import Row, RowFault

LEAST_MFU, MOST_MFU = 0.03, 0.75
"""Nothing in print trains a language model outside these: 0.05-0.72 over all dense rows that ship."""
AGREE = 0.05
"""Closer than this the logged rate is taken; further apart it holds evaluations, and the block rate is taken."""
CONTRADICT = 0.35
"""Further apart than this, one of the two counts something else."""

_LOGGED, _BLOCK, _BLOCK_UNIT = "logged_throughput_samples_per_s", "block_throughput_units_per_s", "block_throughput_unit"
_CONVERGED = "samples_or_epochs_to_converge_median"
_MINUTES = {"min": 1.0, "minutes": 1.0, "s": 1 / 60, "h": 60.0, "hours": 60.0}


def samples_per_s(row: Row, job: TrainJob, chip: Chip, *, precision: str) -> tuple[float, tuple[Assumption, ...]]:
    """Sequences per second of the whole system.

    Args:
        row: A row of the metric ``time_to_train``.
        job: The question.
        chip: As the source counts chips.
        precision: What the system ran, whose peak bounds what is possible.

    Raises:
        RowFault: Nothing logged, an unknown unit, rates that contradict each other, or rates beyond physics.
    """
    peak = peak_of(chip, precision if precision in chip.peak_flops_per_s else job.precision)
    flops = step_flops(job.workload, 1.0, frozen=job.finetune == "lora")
    found, assumptions = _rate(row, job, flops / (row.n_chips * peak))
    mfu = found * flops / (row.n_chips * peak)
    if not LEAST_MFU <= mfu <= MOST_MFU:
        raise RowFault("SP-ROW-017", f"extra.{_LOGGED}", mfu=f"{mfu:.3g}", least=LEAST_MFU, most=MOST_MFU)
    return found, assumptions


def _rate(row: Row, job: TrainJob, mfu_of_one: float) -> tuple[float, tuple[Assumption, ...]]:
    tokens = float(job.workload.tokens_per_sequence)
    logged, block = _positive(row, _LOGGED), _block(row, tokens)
    if logged is not None and block is not None:
        near = min((logged, logged / tokens), key=lambda rate: abs(math.log(rate / block)))
        if abs(near / block - 1) > CONTRADICT:
            raise RowFault("SP-ROW-016", f"extra.{_LOGGED}", logged=f"{logged:g}", block=f"{block:g}")
        if abs(near / block - 1) > AGREE:
            return block, (Assumption(field="throughput", value=f"{block:g}", code="assume.throughput.block"),)
        return near, _unit_note(near, logged)
    if block is not None:
        return block, (Assumption(field="throughput", value=f"{block:g}", code="assume.throughput.block_only"),)
    if logged is not None:
        rate = _physical(logged, tokens, mfu_of_one, f"extra.{_LOGGED}")
        return rate, _unit_note(rate, logged)
    return _whole_run(row, job, tokens, mfu_of_one)


def _unit_note(rate: float, logged: float) -> tuple[Assumption, ...]:
    if rate == logged:
        return ()
    return (Assumption(field="throughput", value=f"{rate:g}", code="assume.throughput.tokens"),)


def _block(row: Row, tokens: float) -> float | None:
    rate = _positive(row, _BLOCK)
    if rate is None:
        return None
    unit = row.extra.get(_BLOCK_UNIT)
    if unit == "tokens":
        return rate / tokens
    if unit in ("samples", "sequences", None):
        return rate
    raise RowFault("SP-ROW-010", f"extra.{_BLOCK_UNIT}", value=str(unit)[:40], metric=_BLOCK)


def _physical(rate: float, tokens: float, mfu_of_one: float, field: str) -> float:
    """The reading of ``rate`` (samples or tokens) that physics allows; refused where both or none are possible."""
    possible = [reading for reading in (rate, rate / tokens) if LEAST_MFU <= reading * mfu_of_one <= MOST_MFU]
    if len(possible) != 1:
        raise RowFault("SP-ROW-017", field, mfu=f"{rate * mfu_of_one:.3g}", least=LEAST_MFU, most=MOST_MFU)
    return possible[0]


def _whole_run(row: Row, job: TrainJob, tokens: float, mfu_of_one: float) -> tuple[float, tuple[Assumption, ...]]:
    """Samples to converge over time: within 12% of the block rate in every pre-training result that ships (median 4% below it);
    fine-tuning evaluates too often for that (15-25% below)."""
    converged = _positive(row, _CONVERGED)
    if converged is None or job.finetune != "full" or row.unit not in _MINUTES:
        raise RowFault("SP-ROW-015", f"extra.{_LOGGED}")
    rate = _physical(converged / (row.value * _MINUTES[row.unit] * 60.0), tokens, mfu_of_one, f"extra.{_CONVERGED}")
    return rate, (Assumption(field="throughput", value=f"{rate:g}", code="assume.throughput.whole_run"),)


def _positive(row: Row, name: str) -> float | None:
    value: Any = row.extra.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e18:
        raise RowFault("SP-ROW-003", f"extra.{name}", value=str(value)[:40], allowed="> 0")
    return float(value)
