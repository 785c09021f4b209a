"""The roofline of this very machine, now: the best matmul, copies by size, and what starting an op takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from sapper.backends.computation import Computation
from sapper.prove.speed.bench import Bench
from sapper.prove.speed.result import CopyRate, Roofline, Timing

SIDES = (256, 512, 1024, 2048, 4096, 8192, 16384)
COPIES_MIB = (1, 4, 16, 64, 256, 1024)
CALL_S = 0.1
"""Longest call that is still tried: the next size takes eight times as long, a copy four times."""
CHAIN = 100


def measured(bench: Bench, dtype: torch.dtype, *, budget_s: float) -> Roofline:
    """Matmul in ``dtype``, copies and launch, within about ``budget_s``; what a stack refuses stays unknown."""
    best: tuple[float, int] | None = None
    for side, timing in _ladder(bench, (_product(side, dtype) for side in SIDES), budget_s=budget_s / 2):
        rate = 2.0 * SIDES[side] ** 3 / timing.median_s
        best = max(best or (rate, SIDES[side]), (rate, SIDES[side]))
    copies = [
        CopyRate(size_bytes=2.0 * COPIES_MIB[at] * 2**20, rate_bytes_per_s=2.0 * COPIES_MIB[at] * 2**20 / timing.median_s)
        for at, timing in _ladder(bench, (_copy(size * 2**20) for size in COPIES_MIB), budget_s=budget_s / 2)
    ]
    return Roofline(
        peak_flops_per_s=best[0] if best else None, matmul=(best[1],) * 3 if best else None, copies=tuple(copies),
        memory_bytes_per_s=copies[-1].rate_bytes_per_s if copies else None, launch_s=_launch_s(bench),
    )


def _ladder(bench: Bench, cases: Iterator[Computation], *, budget_s: float) -> Iterator[tuple[int, Timing]]:
    """(place, timing) of cases of rising size, until one is too slow, the time is up, or the stack refuses."""
    start = time.monotonic()
    for at, case in enumerate(cases):
        left_s = budget_s - (time.monotonic() - start)
        if left_s <= 0.0:
            return
        try:
            timing = bench.time(bench.call(case), limit_s=min(left_s, budget_s / 4))
        except Exception:  # out of memory, or a dtype that the stack lacks: the sizes before it stand
            bench.place.forget()
            return
        yield at, timing
        if timing.median_s > CALL_S:
            return


def _product(side: int, dtype: torch.dtype) -> Computation:
    """``side`` cubed, the right operand transposed as in a linear layer."""
    generator = torch.Generator().manual_seed(side)
    left, right = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
    return Computation(name="matmul", fn=lambda a, b: (a @ b.t(),), tensors=(left, right), labels=("value",))


def _copy(size_bytes: int) -> Computation:
    """From buffer to buffer, in place so that no allocation is timed; a compiler gets a scaling, which it cannot leave out."""
    source = torch.ones(size_bytes // 4)
    return Computation(name="copy", fn=_scaled, tensors=(source, torch.empty_like(source)), labels=("value",))


def _scaled(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.mul(source, 1.5, out=target),)


def _launch_s(bench: Bench) -> float | None:
    """Seconds per op of a chain of additions to one number (of one computation for a compiler, whose chains are fused)."""
    if bench.backend.kind != "device":
        one = Computation(name="launch", fn=lambda x: (x + 1.0,), tensors=(torch.zeros(1),), labels=("value",))
        return bench.time(bench.call(one), limit_s=0.5).median_s
    number = bench.moved([torch.zeros(1)])[0]

    def chain() -> None:
        for _ in range(CHAIN):
            number.add_(1.0)

    return bench.time(chain, limit_s=0.5).median_s / CHAIN
