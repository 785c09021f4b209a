"""Metrics of inference rows: which quantity each means, and how the quantity becomes the row's value."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.predict.rows.case import Conversion
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import fits
from sapper.predict.serve.rows.case import Mode, Quantity

_TIMES = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e3, "milliseconds": 1e3, "us": 1e6, "min": 1 / 60}
_TIME_METRICS: dict[str, Quantity] = {
    "e2e_latency": "e2e", "latency": "e2e", "e2e": "e2e", "request_latency": "e2e",
    "ttft": "ttft", "time_to_first_token": "ttft", "first_token_latency": "ttft",
    "tpot": "tpot", "itl": "tpot", "inter_token_latency": "tpot", "time_per_output_token": "tpot", "decode_latency": "tpot",
    "forward_latency": "forward", "prefill_latency": "forward", "forward_time": "forward",
}
_RATE = r"(k)?tok(ens)?/s\b.*|(k)?tokens? per second.*"
RATES = (
    "output_tokens_per_s", "decode_tokens_per_s", "prefill_tokens_per_s", "total_tokens_per_s", "throughput_tokens_per_s",
    "tokens_per_s", "tokens_per_s_per_user", "tokens_per_s_per_request",
)
KNOWN = (*_TIME_METRICS, *RATES, *(f"{name}_per_chip" for name in RATES[:6]), "requests_per_s", "samples_per_s", "energy_per_output_token")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a rate's conversion needs to know of the question."""

    mode: Mode
    batch: float | None
    """Sequences over all chips."""
    input_len: float
    output_len: float
    chips: float | None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The quantity of a metric and its conversion."""

    quantity: Quantity
    conversion: Conversion


def scored(row: Row, load: Load) -> Scored:
    """The quantity that the row's metric means.

    Raises:
        RowFault: A metric or a unit that we do not score, or a batch that the conversion needs and the row leaves out.
    """
    metric = row.metric.lower()
    if metric in _TIME_METRICS:
        return Scored(quantity=_TIME_METRICS[metric], conversion=Conversion(kind="direct", factor=_time_factor(row)))
    if metric == "energy_per_output_token":
        if not fits(r"^m?j(oules?)?/tok", row.unit):
            raise RowFault("SP-ROW-010", "unit", value=row.unit, metric=row.metric)
        return Scored(quantity="energy_per_token", conversion=Conversion(kind="direct", factor=1e3 if row.unit[0] == "m" else 1.0))
    base = metric.removesuffix("_per_chip")
    if base in ("requests_per_s", "samples_per_s"):
        return _rate(load, counted=1.0, scale=1.0 / _divisor(row, load, metric))
    if base not in RATES:
        raise RowFault("SP-ROW-009", "metric", value=row.metric, known=", ".join(KNOWN))
    if not fits(f"^({_RATE})$", row.unit):
        raise RowFault("SP-ROW-010", "unit", value=row.unit, metric=row.metric)
    scale = 1e-3 if row.unit.lower().startswith("k") else 1.0
    if base in ("tokens_per_s_per_user", "tokens_per_s_per_request"):
        return Scored(quantity="tpot", conversion=Conversion(kind="rate", factor=scale))
    return _tokens(row, load, base, scale / _divisor(row, load, metric))


def _time_factor(row: Row) -> float:
    factor = _TIMES.get(row.unit.lower())
    if factor is None:
        raise RowFault("SP-ROW-010", "unit", value=row.unit, metric=row.metric)
    return factor


def _divisor(row: Row, load: Load, metric: str) -> float:
    """Chips that the value is of, where it is not of all."""
    if not metric.endswith("_per_chip") and not fits(r"/(chip|gpu|npu|device|accelerator|card)\b", row.unit):
        return 1.0
    return load.chips if load.chips is not None else float(row.n_chips)


def _tokens(row: Row, load: Load, base: str, scale: float) -> Scored:
    if base == "prefill_tokens_per_s":
        return Scored(quantity="forward", conversion=Conversion(kind="rate", factor=scale * _batch(load) * load.input_len))
    decoding = base == "decode_tokens_per_s" or (fits(r"^decode$", row.phase) and base in ("output_tokens_per_s", "tokens_per_s"))
    if decoding and load.mode == "static":
        return Scored(quantity="tpot", conversion=Conversion(kind="rate", factor=scale * _batch(load)))
    both = base in ("total_tokens_per_s", "throughput_tokens_per_s")
    return _rate(load, counted=load.output_len + (load.input_len if both else 0.0), scale=scale)


def _rate(load: Load, *, counted: float, scale: float) -> Scored:
    """A rate of requests that count ``counted`` tokens (or 1) each: of a static batch the time of the batch."""
    if load.mode == "static":
        return Scored(quantity="e2e", conversion=Conversion(kind="rate", factor=scale * counted * _batch(load)))
    return Scored(quantity="output_rate", conversion=Conversion(kind="direct", factor=scale * counted / load.output_len))


def _batch(load: Load) -> float:
    if load.batch is None:
        raise RowFault("SP-ROW-001", "batch")
    return load.batch
