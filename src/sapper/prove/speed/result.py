"""What a speed run found: ``speed.json``. Nothing here imports PyTorch, so that a report can be read anywhere."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sapper.evidence.fact import Interval
from sapper.prove.verdict import GREEN, RED, Outcome
from sapper.prove.words import Saying
from sapper.workloads.op import Kind

FORMAT, VERSION = "sapper-prove-speed", 1
FILE = "speed.json"
FAST_SHARE = 0.5
"""Share of the measured roofline from which a right op is green. Copies and matmuls of untuned shapes reach about half of the
best ones of the same machine; below, there is something to gain by a better kernel."""

Bound = Literal["compute", "memory", "launch"]
"""What an op cannot be faster than: the matrix unit, the memory, or the time that starting any kernel takes."""
Colour = Literal["green", "amber", "red", "grey"]
Judged = Literal["now", "ops", "model"]
"""Whose verdict on the values it is: this run's, or that of ``ops.jsonl`` or ``model.json`` in the same folder."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one call over the samples, each of ``calls`` calls issued back to back and waited for once."""

    median_s: float
    low_s: float
    """First quartile."""
    high_s: float
    """Third quartile."""
    calls: int
    repeats: int


class CopyRate(msgspec.Struct, frozen=True, kw_only=True):
    """A copy from buffer to buffer, measured in this run."""

    size_bytes: float
    """Read and written together."""
    rate_bytes_per_s: float


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine can do at most; a limit that is not known is None."""

    peak_flops_per_s: float | None
    memory_bytes_per_s: float | None
    """Of buffers too large for a cache."""
    launch_s: float | None = None
    """Per op, of a chain of ops on one number."""
    matmul: tuple[int, int, int] | None = None
    """M, N, K of the fastest product, where the peak was measured."""
    copies: tuple[CopyRate, ...] = ()
    """By size, where the bandwidth was measured."""

    def bandwidth_at(self, size_bytes: float) -> float | None:
        """What the memory gives an op of so many bytes: the fastest copy at least as large, since smaller ones may live in a cache."""
        larger = [one.rate_bytes_per_s for one in self.copies if one.size_bytes >= size_bytes]
        return max(larger, default=self.memory_bytes_per_s)

    def limits_s(self, *, flops: float, size_bytes: float) -> dict[Bound, float]:
        """Least time that each known limit leaves (Williams et al. 2009, CACM 52(4), with the launch beside them)."""
        bandwidth = self.bandwidth_at(size_bytes)
        found: dict[Bound, float] = {}
        if self.peak_flops_per_s:
            found["compute"] = flops / self.peak_flops_per_s
        if bandwidth:
            found["memory"] = size_bytes / bandwidth
        if self.launch_s:
            found["launch"] = self.launch_s
        return found


class OpSpeed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One distinct call of the step: its work, its time, its limits and whether it is right."""

    id: str
    op: str
    """``aten::mm.default``."""
    phase: Literal["forward", "backward", "optimizer"]
    inputs: tuple[str, ...]
    """Dtypes and shapes, such as ``bf16[2,4096]``."""
    outputs: tuple[str, ...]
    count: int
    """Calls of this form in one step."""
    kind: Kind
    flops: float
    """Of one call; 0 with ``priced`` False is not known."""
    size_bytes: float
    """That one call reads and writes at least."""
    priced: bool = True
    """Whether a rule counts its FLOPs."""
    sizes: dict[str, int | bool | str] = {}
    """What the work follows from: ``m``, ``n``, ``k`` and ``groups`` of products, the shape of attention; as evidence calls them."""
    timing: Timing | None = None
    bound: Bound | None = None
    """By the measured roofline."""
    roof_s: float | None = None
    """Least time of one call by the measured roofline."""
    catalogue_s: float | None = None
    """Least time of one call by the catalogue's peak and bandwidth."""
    predicted: Interval | None = None
    """What predict says of one call on the chip."""
    outcome: Outcome = "skipped"
    judged: Judged | None = None
    ratio: float | None = None
    """Error over what is allowed, of the worst output, where the values were judged now."""
    said: str | None = None
    """The stack's own words where it failed."""
    step_share: float | None = None
    """Share of the time of all timed ops of the step."""

    @property
    def call_id(self) -> str:
        """Of the call whatever the phase, as proofs of values name it."""
        return self.id.partition(":")[2]

    @property
    def flops_per_s(self) -> float | None:
        """Achieved rate; None where it was not timed or computes nothing that is counted."""
        return self.flops / self.timing.median_s if self.timing and self.flops and self.priced else None

    @property
    def bytes_per_s(self) -> float | None:
        """Achieved traffic."""
        return self.size_bytes / self.timing.median_s if self.timing and self.size_bytes else None

    @property
    def roof_share(self) -> float | None:
        """Share of what the measured roofline allows; above 1 where the op's data stay in a cache that the copy had left."""
        return self.roof_s / self.timing.median_s if self.timing and self.roof_s else None

    @property
    def catalogue_share(self) -> float | None:
        """Share of what the catalogue's roofline allows."""
        return self.catalogue_s / self.timing.median_s if self.timing and self.catalogue_s else None

    @property
    def colour(self) -> Colour:
        """Green only where it is both right and fast; a wrong op is red however fast it is."""
        if self.outcome in RED:
            return "red"
        if self.outcome not in GREEN or self.roof_share is None:
            return "grey"
        return "green" if self.roof_share >= FAST_SHARE else "amber"


class Speed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``sapper prove speed`` found."""

    format: str
    version: int
    sapper: str
    date: str
    backend: str
    real: bool
    """False for an emulated chip, whose times are those of the emulation."""
    versions: dict[str, str]
    device: str
    """The name that the machine itself reports."""
    target: str
    dtype: str
    """Of the workload's weights."""
    seed: int
    chip: str | None
    """Catalogue id, where it is known."""
    conditions: dict[str, str]
    """Threads, load, clocks: what the times depend on."""
    measured: Roofline
    catalogue: Roofline | None
    ops: tuple[OpSpeed, ...]
    """Longest share of the step first."""
    step_s: float | None = None
    """Forward and backward pass, measured in one piece; None where the stack runs no eager step."""
    not_covered: dict[str, str] = {}
    """Ops that were not timed -> message code of the reason."""

    @property
    def launch_bound(self) -> tuple[OpSpeed, ...]:
        """Ops that are over before the next could be started."""
        return tuple(one for one in self.ops if one.bound == "launch")

    @property
    def not_judged(self) -> tuple[OpSpeed, ...]:
        """Ops whose values nobody has looked at: random ones, and those too large for fp64 where they were run."""
        return tuple(one for one in self.ops if one.judged is None)

    def gaps(self) -> list[Saying]:
        """What the run says nothing of."""
        unpriced = sorted({one.op for one in self.ops if not one.priced})
        found = []
        if self.not_judged:
            found.append(Saying(code="prove.speed.not_judged", values={"count": len(self.not_judged)}))
        if self.not_covered:
            found.append(Saying(code="prove.speed.ops_left_out", values={"ops": ", ".join(sorted(self.not_covered))}))
        if unpriced:
            found.append(Saying(code="prove.speed.unpriced", values={"ops": ", ".join(unpriced)}))
        if self.chip is None:
            found.append(Saying(code="prove.speed.no_chip"))
        return found

    @property
    def findings(self) -> tuple[OpSpeed, ...]:
        """Ops whose values are wrong, or that did not run."""
        return tuple(one for one in self.ops if one.outcome in RED)


RATES = ("flops_per_s", "bytes_per_s", "roof_share", "catalogue_share", "colour")


def as_json(speed: Speed) -> dict[str, Any]:
    """What ``speed.json`` holds: the struct, with what follows from it beside each op."""
    found: dict[str, Any] = msgspec.to_builtins(speed)
    for op, plain in zip(speed.ops, found["ops"], strict=True):
        plain |= {name: getattr(op, name) for name in RATES}
    return found
