"""Attention: prefill forward and with backward, and decoding against a cache."""

from __future__ import annotations

import math
from typing import Any, Callable, Sequence

from sapper.probe.parts.dtypes import SIZE_BYTES, torch_dtype
from sapper.probe.parts.session import Session

ATTENTION_HEADS, ATTENTION_HEAD_DIM = 32, 128
ATTENTION_LENGTHS = (512, 2048, 1024, 4096, 8192)
ATTENTION_CACHES = ((1, 4096), (16, 1024), (16, 4096), (64, 4096), (1, 32768))
"""Batch and cached tokens of decoding."""

ATTENTION_DTYPES = ("bf16", "fp16", "fp32")

def attend(torch: Any, operands: Sequence[Any], *, causal: bool) -> Any:
    """The fused operator where this PyTorch has one, else the formula; ``operands`` are query, key and value."""
    query, key, value = operands
    fused = getattr(torch.nn.functional, "scaled_dot_product_attention", None)
    if fused is not None:
        return fused(query, key, value, is_causal=causal)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(mask, float("-inf"))
    return torch.softmax(scores, dim=-1) @ value


def measure_attention(session: Session) -> None:
    """Prefill by length and decoding by cache in turn, each in all dtypes."""
    for index in range(max(len(ATTENTION_LENGTHS), len(ATTENTION_CACHES))):
        for dtype in session.fastest_first(ATTENTION_DTYPES):
            for length in ATTENTION_LENGTHS[index : index + 1]:
                _prefill(session, dtype, length, backward=False)
                _prefill(session, dtype, length, backward=True)
            for batch, cached in ATTENTION_CACHES[index : index + 1]:
                _decode(session, dtype, batch=batch, cached=cached)


def _attention_conditions(session: Session, sizes: tuple[int, int, int], *, causal: bool, what: str) -> dict[str, Any]:
    batch, query_len, kv_len = sizes
    fused = hasattr(session.torch.nn.functional, "scaled_dot_product_attention")
    return {
        "batch": batch, "heads": ATTENTION_HEADS, "kv_heads": ATTENTION_HEADS, "head_dim": ATTENTION_HEAD_DIM,
        "query_len": query_len, "kv_len": kv_len,
        "causal": causal, "pass": what, "implementation": "sdpa" if fused else "unfused",
    }


def _attention_affordable(session: Session, what: str, *, seconds: float, need_bytes: float) -> bool:
    if not session.fits(need_bytes):
        session.skip(what + ": memory")
        return False
    if session.budget.left_s() < seconds or seconds > 4 * session.case_s():
        session.skip(what + ": time")
        return False
    return True


def _prefill(session: Session, dtype: str, length: int, *, backward: bool) -> None:
    torch, place = session.torch, session.device.place
    # Two products over half of the square; the backward pass has four, and recomputes nothing that we count.
    shape = (1, ATTENTION_HEADS, length, ATTENTION_HEAD_DIM)
    work = 2.0 * ATTENTION_HEADS * length * length * ATTENTION_HEAD_DIM * (3 if backward else 1)
    what = "forward+backward" if backward else "forward"
    name = f"attention {dtype} {what} {length}"
    seconds, scores_bytes = session.estimate_s(dtype, 8 * work), 8.0 * ATTENTION_HEADS * length * length
    if not _attention_affordable(session, name, seconds=seconds, need_bytes=scores_bytes):
        return

    def make() -> Callable[[], Any]:
        kind = torch_dtype(torch, dtype)
        operands = [torch.empty(shape, device=place).normal_().to(kind).requires_grad_(backward) for _ in range(3)]
        if not backward:
            return lambda: attend(torch, operands, causal=True)
        up = torch.ones(shape, device=place).to(kind)
        return lambda: torch.autograd.grad(attend(torch, operands, causal=True), operands, up)

    session.run(
        make,
        fields={
            "kind": "attention", "metric": "rate", "unit": "flop/s", "dtype": dtype,
            "conditions": _attention_conditions(session, (1, length, length), causal=True, what=what),
        },
        results=lambda timing: timing.rates(work),
    )


def _decode(session: Session, dtype: str, *, batch: int, cached: int) -> None:
    torch, place = session.torch, session.device.place
    read = 2.0 * batch * ATTENTION_HEADS * cached * ATTENTION_HEAD_DIM * SIZE_BYTES[dtype]
    if not _attention_affordable(session, f"attention {dtype} decode {batch}x{cached}", seconds=read * 1e-8, need_bytes=6 * read):
        return

    def make() -> Callable[[], Any]:
        kind = torch_dtype(torch, dtype)
        query = torch.empty(batch, ATTENTION_HEADS, 1, ATTENTION_HEAD_DIM, device=place).normal_().to(kind)
        key, value = (torch.ones(batch, ATTENTION_HEADS, cached, ATTENTION_HEAD_DIM, device=place, dtype=kind) for _ in range(2))
        return lambda: attend(torch, (query, key, value), causal=False)

    session.run(
        make,
        fields={
            "kind": "attention", "metric": "bandwidth", "unit": "bytes/s", "dtype": dtype,
            "conditions": {**_attention_conditions(session, (batch, 1, cached), causal=False, what="decode"), "bytes": int(read)},
        },
        results=lambda timing: timing.rates(read),
    )
