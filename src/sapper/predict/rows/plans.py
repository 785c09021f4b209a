"""The plan that a row states, what it leaves open, and the batch.

Rules, in order (docs/validation.md gives the reasons):

* A row that names degrees means 1 by each degree that it leaves out, and chips / (tp * pp * cp) by a missing ``dp``.
* tp * pp * dp * cp must be the chips, or the devices where a card holds several; anything else is refused.
* A row without degrees leaves all of them open; its gradient accumulation, where given, says how many sequences run at
  once, and the start is the plan with one sequence on each replica.
* The micro-batch counts what the source's rule says: sequences of a micro-batch, of a replica's step, or of a chip.
* A missing global batch is taken as dp * micro_batch * 8 * pp: enough micro-batches that the pipeline's bubble and the
  optimizer hardly show, as published throughputs have it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from sapper.predict.plan import Plan, Recompute, Schedule
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import SourceRule, fits
from sapper.predict.rows.words_of import Repeats

ACCUMULATE = 8
"""Micro-batches per pipeline stage where the row states no global batch."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """How a row's job is cut, and over what batch."""

    plan: Plan
    unknown: frozenset[str]
    global_batch: int
    micro_batches: int | None
    devices: int
    """Devices that the plan counts: the row's chips, or their dies."""
    assumptions: tuple[Assumption, ...]


def cut_of(row: Row, rule: SourceRule, said: Repeats, *, devices_per_card: int, heads: int, node: int, stack: str | None) -> Cut:
    """The plan of a row.

    Args:
        row: The measurement.
        rule: What its source means.
        said: What it says of recomputation.
        devices_per_card: Devices of one chip of the catalogue.
        heads: Attention heads, which tensor parallelism of a start must divide.
        node: Chips that a start keeps tensor parallelism within.
        stack: Key of the software priors.

    Raises:
        RowFault: Degrees that do not multiply to the chips, or a batch that the replicas do not divide.
    """
    degrees = {name: value for name, value in row.parallel.items() if name in ("tp", "pp", "dp", "cp", "ep")}
    if degrees or row.n_chips == 1:
        return _stated(row, rule, said, degrees, devices_per_card, stack)
    return _open(row, rule, said, heads, node, stack)


def _stated(row: Row, rule: SourceRule, said: Repeats, degrees: dict[str, int], devices_per_card: int, stack: str | None) -> Cut:
    tp, pp, cp, ep = (degrees.get(name) or 1 for name in ("tp", "pp", "cp", "ep"))
    dp, devices, assumptions = _replicas(row, degrees, tp * pp * cp, devices_per_card)
    unknown: set[str] = set()
    micro = _micro_batch(row, rule, dp, devices, pp)
    if micro is None:
        unknown.add("micro_batch")
        whole = rule.missing_micro_batch == "whole" and row.global_batch is not None
        micro = max(1, row.global_batch // dp) if whole and row.global_batch is not None else 1
        if whole:
            unknown.discard("micro_batch")
    batch = row.global_batch
    if batch is None:
        batch = dp * micro * ACCUMULATE * pp
        values = {"dp": dp, "micro_batch": micro, "factor": ACCUMULATE, "pp": pp}
        assumptions += (Assumption(field="global_batch", value=str(batch), code="assume.batch", values=values),)
    if batch % (dp * micro):
        raise RowFault("SP-ROW-019", "global_batch", batch=batch, dp=dp, micro_batch=micro)
    if dp * cp % ep:
        raise RowFault("SP-ROW-020", "parallel.ep", ep=ep, dp=dp, cp=cp)
    plan, more = _plan(row, rule, said, {"tp": tp, "pp": pp, "dp": dp, "cp": cp, "ep": ep, "micro_batch": micro}, stack)
    return Cut(
        plan=plan, unknown=frozenset(unknown | more), global_batch=batch, micro_batches=None, devices=devices,
        assumptions=assumptions,
    )


def _replicas(row: Row, degrees: dict[str, int], model_parallel: int, devices_per_card: int) -> tuple[int, int, tuple[Assumption, ...]]:
    """Data-parallel degree, devices, and what had to be assumed."""
    stated = degrees.get("dp")
    for devices in dict.fromkeys((row.n_chips, row.n_chips * devices_per_card)):
        if stated == devices / model_parallel or (stated is None and devices % model_parallel == 0):
            found: tuple[Assumption, ...] = ()
            if devices != row.n_chips:
                values = {"chips": row.n_chips, "parts": devices_per_card}
                found += (Assumption(field="n_chips", value=str(devices), code="assume.dies", values=values),)
            return devices // model_parallel, devices, found
    equation = " * ".join(f"{name} {degrees.get(name, 1)}" for name in ("tp", "pp", "cp", "dp"))
    product = model_parallel * (1 if stated is None else stated)
    raise RowFault("SP-ROW-018", "parallel", equation=equation, product=product, chips=row.n_chips)


def _micro_batch(row: Row, rule: SourceRule, dp: int, devices: int, pp: int) -> int | None:
    """Sequences of one micro-batch on one replica; None where the row does not state them."""
    if row.micro_batch is None:
        return None
    value = row.micro_batch
    if rule.micro_batch == "chip":
        value *= devices / dp
    if rule.micro_batch == "local" and pp > 1:
        value /= pp
        if value != int(value):
            return None
    if value < 1 or value != int(value) or value > 10**6:
        raise RowFault("SP-ROW-003", "micro_batch", value=f"{row.micro_batch:g}", allowed="1 - 1000000")
    return int(value)


def _plan(row: Row, rule: SourceRule, said: Repeats, sizes: dict[str, int], stack: str | None) -> tuple[Plan, set[str]]:
    """The plan with the choices beside the degrees, and which of them the row leaves open."""
    unknown: set[str] = set()
    many = sizes["dp"] * sizes["cp"] > 1
    zero = row.parallel.get("zero")
    if zero is None or zero > 3:
        zero = 3 if stack in ("fsdp", "xla") else 1
        if many:
            unknown.add("zero")
    recompute: Recompute = said.recompute or "none"
    if said.recompute is None:
        unknown.add("recompute")
    vpp, schedule = _schedule(row, rule, sizes["pp"])
    if vpp is None:
        unknown |= {"vpp"} if schedule == "interleaved" else {"vpp", "schedule"}
    sequence_parallel = said.sequence_parallel if said.sequence_parallel is not None else rule.sequence_parallel
    plan = Plan(
        **sizes, zero=zero, recompute=recompute, vpp=vpp or (2 if schedule == "interleaved" else 1), schedule=schedule,
        hsdp=_hsdp(row, zero, sizes), sequence_parallel=True if sequence_parallel is None else sequence_parallel,
    )
    return plan, unknown


def _schedule(row: Row, rule: SourceRule, pp: int) -> tuple[int | None, Schedule]:
    """Virtual stages (None where not stated) and schedule."""
    if pp == 1:
        return 1, "1f1b"
    said = " ".join(text for text in (row.framework, row.note) if text)
    if fits("dualpipe|zero.?bubble", said):
        return row.parallel.get("vpp") or rule.vpp or 1, "dualpipe" if fits("dualpipe", said) and pp % 2 == 0 else "zero-bubble"
    vpp = row.parallel.get("vpp") or rule.vpp_of.get(row.model.name) or rule.vpp
    if fits("interleaved", said):
        return vpp if vpp and vpp > 1 else None, "interleaved"
    if vpp is None and fits(r"\b1f1b\b", said):
        vpp = 1
    return vpp, "interleaved" if vpp and vpp > 1 else "1f1b"


def _hsdp(row: Row, zero: int, sizes: dict[str, int]) -> int:
    """Chips that share one copy of the weights, where the row says that copies repeat over slices; 0: all."""
    slices = row.extra.get("slices")
    if zero == 3 and isinstance(slices, int) and not isinstance(slices, bool) and slices > 1 and sizes["dp"] % slices == 0:
        return sizes["dp"] // slices
    mesh = row.extra.get("mesh")
    pods = re.search(r"(\d+)x-v\d\w*-(\d+)", f"{row.id} {row.source}")
    over_slices = isinstance(mesh, dict) and any("dcn_fsdp" in str(key) for key in mesh)
    if zero == 3 and pods and isinstance(mesh, dict) and not over_slices and sizes["dp"] % int(pods[1]) == 0 and int(pods[1]) > 1:
        return sizes["dp"] // int(pods[1])
    return 0


def _open(row: Row, rule: SourceRule, said: Repeats, heads: int, node: int, stack: str | None) -> Cut:
    """A start for a row that names no degree."""
    batch = row.global_batch
    assumptions: tuple[Assumption, ...] = ()
    if batch is None:
        batch = row.n_chips * ACCUMULATE
        values: dict[str, Any] = {"dp": row.n_chips, "micro_batch": 1, "factor": ACCUMULATE, "pp": 1}
        assumptions = (Assumption(field="global_batch", value=str(batch), code="assume.batch", values=values),)
    repeats = _accumulation(row, batch)
    at_once = batch // repeats if repeats else batch
    dp = math.gcd(at_once, row.n_chips)
    tp = _largest_divisor(row.n_chips // dp, most=node, divides=heads)
    sizes = {"tp": tp, "pp": row.n_chips // dp // tp, "dp": dp, "cp": 1, "ep": 1, "micro_batch": at_once // dp if repeats else 1}
    plan, unknown = _plan(row, rule, said, sizes, stack)
    unknown |= {"tp", "pp", "dp", "cp", "ep", "micro_batch", "vpp", "schedule", "zero", "hsdp"}
    return Cut(
        plan=plan, unknown=frozenset(unknown), global_batch=batch, micro_batches=repeats, devices=row.n_chips, assumptions=assumptions
    )


def _accumulation(row: Row, batch: int) -> int | None:
    """Gradient accumulation steps of an MLPerf log, where they divide the batch."""
    value = row.extra.get("grad_accum")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or not 1 <= value <= batch:
        return None
    return int(value) if value == int(value) and batch % int(value) == 0 else None


def _largest_divisor(number: int, *, most: int, divides: int) -> int:
    return max(d for d in range(1, min(number, max(1, most)) + 1) if number % d == 0 and divides % d == 0)
