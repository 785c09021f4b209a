"""What a speed run measured as evidence, so that predict uses it: products, attention, copies, launches.

Only what is right counts as a rate. A product that is wrong, or that did not run, is a fact of another kind: a record of status
``failed`` or ``unsupported``, without a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sapper.errors import BadValue
from sapper.evidence import Record
from sapper.evidence.limits import Limits, hold_against
from sapper.evidence.rules import check
from sapper.prove.speed.result import OpSpeed, Roofline, Speed
from sapper.prove.verdict import GREEN, RED

SOURCE = "sapper prove speed"
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64", "float8_e4m3fn": "fp8", "int8": "int8"}
"""PyTorch's names -> the catalogue's."""


def records_of(speed: Speed, limits: Limits | None = None) -> tuple[list[Record], list[BadValue]]:
    """Records of a run, and why others are refused: the chip cannot be so fast.

    Args:
        speed: Of a real device.
        limits: What the catalogue says that the chip cannot exceed.
    """
    kept: list[Record] = []
    refused: list[BadValue] = []
    for record in (*_roofline(speed, speed.measured), *_ops(speed)):
        try:
            check(record)
            if limits is not None:
                hold_against(limits, record)
            kept.append(record)
        except BadValue as error:
            refused.append(error)
    return kept, refused


def _roofline(speed: Speed, roofline: Roofline) -> Iterator[Record]:
    if roofline.peak_flops_per_s and roofline.matmul:
        sizes = dict(zip(("m", "n", "k"), roofline.matmul, strict=True))
        yield _record(speed, "matmul", "rate", roofline.peak_flops_per_s, "flop/s", sizes, dtype=speed.dtype)
    for copy in roofline.copies:
        sizes = {"bytes": int(copy.size_bytes), "buffer_bytes": int(copy.size_bytes / 2)}
        yield _record(speed, "memory-copy", "bandwidth", copy.rate_bytes_per_s, "bytes/s", sizes, dtype="fp32")
    if roofline.launch_s:
        yield _record(speed, "launch", "time", roofline.launch_s, "s", {"what": "chain", "operation": "add_", "elements": 1}, dtype="fp32")


def _ops(speed: Speed) -> Iterator[Record]:
    for op in speed.ops:
        kind = "matmul" if {"m", "n", "k"} <= set(op.sizes) and op.kind == "matmul" else op.kind
        if kind not in ("matmul", "attention"):
            continue
        conditions = {**op.sizes, "op": op.op, "phase": op.phase}
        if op.outcome in GREEN and op.timing is not None and op.flops_per_s is not None:
            times = {"calls": op.timing.calls, "repeats": op.timing.repeats, "time_s": op.timing.median_s}
            yield _record(
                speed, kind, "rate", op.flops_per_s, "flop/s", {**conditions, **times}, dtype=_dtype(op),
                low=op.flops / op.timing.high_s, high=op.flops / op.timing.low_s,
            )
        elif op.outcome in RED or op.outcome == "unsupported":
            status: Literal["unsupported", "failed"] = "unsupported" if op.outcome == "unsupported" else "failed"
            yield _record(speed, kind, "rate", None, "flop/s", conditions, dtype=_dtype(op), status=status, note=op.outcome)


def _dtype(op: OpSpeed) -> str:
    return op.inputs[0].partition("[")[0] if op.inputs else ""


def _record(speed: Speed, kind: Any, metric: str, value: float | None, unit: str, conditions: dict[str, Any], **more: Any) -> Record:
    return Record(
        kind=kind, metric=metric, value=value, unit=unit, chip=speed.chip, device=speed.device,
        stack=", ".join(f"{name} {version}" for name, version in speed.versions.items()), source=SOURCE, date=speed.date,
        grade="measured-here", conditions={**conditions, **_circumstances(speed)}, **more,
    )  # fmt: skip


def _circumstances(speed: Speed) -> dict[str, str]:
    return {"backend": speed.backend, **{name: speed.conditions[name] for name in ("threads", "load") if name in speed.conditions}}
