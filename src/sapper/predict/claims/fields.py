"""Rules of consistency: figures of one row that cannot hold at the same time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from sapper.predict.claims.claim import Claim
from sapper.predict.claims.finding import Finding, Gap

AGREE = 0.1
"""Figures of one run may differ by this: rounding, a mean beside a median."""
MFU_APART = 2.0
"""A printed utilisation and the one that the throughput means: conventions differ by up to 1.7 (attention counted or not,
the full score square or half of it), so twice is another unit."""
_TRAIN_DEGREES = ("tp", "pp", "cp", "dp")


def throughput_and_latency(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-008: a throughput that the latency, the batch and the lengths beside it do not give."""
    row = claim.row
    for name, expected in _EXPECTED.items():
        stated = claim.number(name)
        value = None if stated is None else expected(claim)
        if stated is None or value is None:
            continue
        if abs(math.log(stated / value)) > math.log(1.0 + AGREE):
            yield claim.finding(
                "SP-CLAIM-008", "contradiction", field=f"extra.{name}", stated=f"{stated:,.4g}", value=f"{row.value:g} {row.unit}",
                means=f"{value:,.4g}",
            )


def _in_and_out(claim: Claim) -> float | None:
    """Tokens read and written a second, of a latency."""
    row = claim.row
    if row.metric != "e2e_latency" or row.unit != "s" or None in (row.batch, row.input_len, row.output_len):
        return None
    assert row.batch is not None and row.input_len is not None and row.output_len is not None
    counted = str(row.extra.get("throughput_counts") or "in+out")
    return row.batch * (row.input_len + row.output_len if "in" in counted else row.output_len) / row.value


def _out(claim: Claim) -> float | None:
    row = claim.row
    if row.metric != "e2e_latency" or row.unit != "s" or row.batch is None or row.output_len is None:
        return None
    return row.batch * row.output_len / row.value


def _all_users(claim: Claim) -> float | None:
    row = claim.row
    return row.value * row.batch if row.metric == "tokens_per_s_per_user" and row.batch is not None else None


def _drawn(claim: Claim) -> float | None:
    rate = claim.number("output_tps")
    return claim.row.value * rate if claim.row.metric == "energy_per_output_token" and rate is not None else None


_EXPECTED: dict[str, Callable[[Claim], float | None]] = {
    "throughput_tokens_per_s": _in_and_out, "output_tokens_per_s": _out, "total_tokens_per_s": _all_users, "avg_power_w": _drawn,
}
"""Field of ``extra`` -> the same figure from the row's value."""


def first_token(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-009: the first token comes later than the last."""
    first_ms = claim.number("ttft_ms")
    row = claim.row
    if first_ms is None or row.metric != "e2e_latency" or row.unit not in ("s", "ms"):
        return
    whole_ms = row.value * (1e3 if row.unit == "s" else 1.0)
    if first_ms > whole_ms:
        yield claim.finding("SP-CLAIM-009", "contradiction", first=f"{first_ms:g} ms", whole=f"{whole_ms:g} ms")


def utilisation(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-010: a printed utilisation that the printed throughput excludes."""
    printed = claim.number("mfu_pct") or claim.number("mfu_pct_printed")
    if printed is None or claim.demand.flops_per_s is None or claim.row.kind != "training":
        return
    peak = claim.most("SP-CLAIM-010", "peak_flops_per_s")
    if isinstance(peak, Gap):
        yield peak
        return
    implied = 100.0 * claim.demand.flops_per_s / peak
    if abs(math.log(implied / printed)) > math.log(MFU_APART * claim.causal_slack):
        yield claim.finding("SP-CLAIM-010", "contradiction", printed=f"{printed:g}", implied=f"{implied:,.1f}")


def degrees(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-011: parallel degrees that need more devices than the job has, or that no data-parallel degree completes."""
    row = claim.row
    stated = {name: row.parallel[name] for name in _TRAIN_DEGREES if row.parallel.get(name)}
    if row.kind != "training" or row.stated_chips is None or not stated:
        return
    product = math.prod(stated.values())
    devices = row.stated_chips
    parts = claim.limits.devices if claim.limits else 2  # a rank may be a die or a core; of an unknown chip we allow two
    possible = {devices, devices * parts}
    if "dp" not in stated:  # left out, or 0 where the source's own figures do not multiply
        if any(count % product == 0 for count in possible):
            return
    elif product in possible or devices % product == 0:  # the rest may be a sharding axis that the framework names apart
        return
    equation = " * ".join(f"{name}({value})" for name, value in stated.items())
    yield claim.finding("SP-CLAIM-011", "contradiction", equation=equation, product=product, chips=devices)


_TIMES = re.compile(r"s|sec|seconds|ms|us|min|minutes|h|hours")
_UNITS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (re.compile(r".*tokens_per_s.*"), re.compile(r"k?(tokens?|tok)/s.*", re.IGNORECASE)),
    (re.compile(r"samples_per_s.*"), re.compile(r"(samples|sequences|images)/s.*", re.IGNORECASE)),
    (re.compile(r"tpot|ttft|itl|.*latency|step_time|time_to_train"), _TIMES),
    (re.compile(r"mfu_pct|hfu_pct"), re.compile(r"%|percent")),
    (re.compile(r"memory_per_chip"), re.compile(r"[KMGT]?i?B|bytes", re.IGNORECASE)),
    (re.compile(r"tflops_per_chip"), re.compile(r"[TPG]FLOP/?S.*", re.IGNORECASE)),
    (re.compile(r"energy_per_.*token"), re.compile(r"m?J.*|kWh.*")),
)
"""Metric -> the units that it can have."""


def unit(claim: Claim) -> Iterator[Finding | Gap]:
    """SP-CLAIM-012: a unit that is not one of the metric's."""
    row = claim.row
    for metric, allowed in _UNITS:
        if metric.fullmatch(row.metric):
            if not allowed.fullmatch(row.unit.strip()):
                yield claim.finding("SP-CLAIM-012", "contradiction", unit=row.unit, metric=row.metric)
            return


RULES = (throughput_and_latency, first_token, utilisation, degrees, unit)
