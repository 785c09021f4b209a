"""Matrix products: square, tall and skinny as in decoding, and those of language models."""

from __future__ import annotations

from sapper.probe.parts.dtypes import NAMES, SIZE_BYTES, product
from sapper.probe.parts.session import Session

MATMUL_SQUARE = (1024, 4096, 2048, 512, 8192, 16384)
MATMUL_DECODE_ROWS = (1, 16, 64, 256, 4)
MATMUL_DECODE_LAYERS = ((4096, 4096), (28672, 8192))
MATMUL_LLM = ((4096, 14336, 4096), (4096, 4096, 14336), (8192, 28672, 8192), (8192, 8192, 28672), (2048, 128256, 4096))
MATMUL_DTYPES = ("bf16", "fp16", "fp32", "tf32", "int8", "fp8")
MATMUL_TRIAL = 256
"""Side of the product that tells whether a dtype works, and about how fast."""


MATMUL_CALLS = 8
"""Least number of calls that timing a slow case takes."""

FILL_S = 1e-8
"""Seconds that a number of the operands takes to be drawn, on a slow processor."""


def matmul_shapes() -> list[tuple[int, int, int]]:
    """All (m, n, k), the most telling first."""
    decode = [(rows, n, k) for n, k in MATMUL_DECODE_LAYERS for rows in MATMUL_DECODE_ROWS]
    found = [(size, size, size) for size in MATMUL_SQUARE[:4]]
    for index in range(max(len(decode), len(MATMUL_LLM))):
        found += list(MATMUL_LLM[index : index + 1]) + decode[index : index + 1]
    return found + [(size, size, size) for size in MATMUL_SQUARE[4:]]


def measure_matmul(session: Session) -> None:
    """Every dtype in turn on a shape, before the next shape: an interrupted run has all dtypes."""
    rates = session.flops_per_s
    for dtype in MATMUL_DTYPES:
        rate = _matmul(session, dtype, (MATMUL_TRIAL, MATMUL_TRIAL, MATMUL_TRIAL))
        if rate:
            rates[dtype] = rate
    for shape in matmul_shapes():
        for dtype in list(rates):
            m, n, k = shape
            seconds = MATMUL_CALLS * 2.0 * m * n * k / rates[dtype] + (m + n) * k * FILL_S
            what = f"matmul {dtype} {m}x{n}x{k}"
            if session.budget.left_s() < seconds or seconds > 4 * session.case_s():
                session.skip(what + ": time")
            elif not session.fits((m + n) * k * (4 + SIZE_BYTES[dtype]) + 4.0 * m * n):
                session.skip(what + ": memory")
            else:
                rates[dtype] = max(rates[dtype], _matmul(session, dtype, shape))


def _matmul(session: Session, dtype: str, shape: tuple[int, int, int]) -> float:
    """Measure and record one product; its rate, or zero where there is none."""
    m, n, k = shape
    work = 2.0 * m * n * k
    timing = session.run(
        lambda: product(session.device, dtype, shape=shape),
        fields={
            "kind": "matmul", "metric": "rate", "unit": "flop/s", "dtype": dtype,
            "conditions": {"m": m, "n": n, "k": k, "layout": "nt", "torch_dtype": NAMES[dtype]},
        },
        results=lambda timing: timing.rates(work),
    )
    return work / timing.median_s if timing else 0.0
