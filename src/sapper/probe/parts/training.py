"""A training step of a small decoder: forward, backward and AdamW, in one dtype throughout."""

from __future__ import annotations

from typing import Any, Callable

from sapper.probe.parts.attention import attend
from sapper.probe.parts.dtypes import torch_dtype
from sapper.probe.parts.session import Session

STEP_VOCAB, STEP_LAYERS, STEP_HEAD_DIM, STEP_SEQ_LEN = 8192, 4, 64, 512
STEP_SIZES = ((256, 2), (1024, 8), (2048, 8))
"""Hidden width and batch, small first."""

STEP_DTYPES = ("bf16", "fp32")
STEP_CALLS = 5
"""Least number of steps that timing takes."""


def measure_training(session: Session) -> None:
    """Tokens per second over the sizes that the time allows."""
    for hidden, batch in STEP_SIZES:
        params = STEP_LAYERS * 12 * hidden**2 + STEP_VOCAB * hidden
        for dtype in session.fastest_first(STEP_DTYPES):
            seconds = STEP_CALLS * session.estimate_s(dtype, 6.0 * params * batch * STEP_SEQ_LEN)
            if session.budget.left_s() < seconds:
                session.skip(f"training-step {dtype} {hidden}: time")
            else:
                _training_step(session, dtype, hidden=hidden, batch=batch)


def _training_step(session: Session, dtype: str, *, hidden: int, batch: int) -> None:
    """Measure and record one size."""
    session.run(
        lambda: _step(session, dtype, hidden=hidden, batch=batch),
        fields={
            "kind": "training-step", "metric": "throughput", "unit": "tokens/s", "dtype": dtype,
            "conditions": {
                "layers": STEP_LAYERS, "hidden": hidden, "ffn": 4 * hidden, "heads": hidden // STEP_HEAD_DIM,
                "head_dim": STEP_HEAD_DIM, "vocab": STEP_VOCAB, "seq_len": STEP_SEQ_LEN, "batch": batch, "optimizer": "adamw",
            },
        },
        results=lambda timing: timing.rates(float(batch * STEP_SEQ_LEN)),
    )


def _step(session: Session, dtype: str, *, hidden: int, batch: int) -> Callable[[], Any]:
    torch, place = session.torch, session.device.place
    functional, kind = torch.nn.functional, torch_dtype(torch, dtype)
    heads = hidden // STEP_HEAD_DIM

    def weight(*shape: int) -> Any:
        return (torch.empty(*shape, device=place).normal_() * 0.02).to(kind).requires_grad_(True)

    embedding = weight(STEP_VOCAB, hidden)
    blocks: list[list[Any]] = [
        [weight(3 * hidden, hidden), weight(hidden, hidden), weight(4 * hidden, hidden), weight(hidden, 4 * hidden)]
        for _ in range(STEP_LAYERS)
    ]
    optimizer = torch.optim.AdamW([embedding] + [part for block in blocks for part in block], lr=1e-4)
    tokens = torch.randint(0, STEP_VOCAB, (batch, STEP_SEQ_LEN + 1)).to(place)

    def forward() -> Any:
        stream = functional.embedding(tokens[:, :-1], embedding)
        for qkv, out, up, down in blocks:
            normed = functional.layer_norm(stream, (hidden,))
            split = functional.linear(normed, qkv).view(batch, STEP_SEQ_LEN, 3, heads, STEP_HEAD_DIM).permute(2, 0, 3, 1, 4)
            mixed = attend(torch, (split[0], split[1], split[2]), causal=True).transpose(1, 2).reshape(batch, STEP_SEQ_LEN, hidden)
            stream = stream + functional.linear(mixed, out)
            normed = functional.layer_norm(stream, (hidden,))
            stream = stream + functional.linear(functional.gelu(functional.linear(normed, up)), down)
        return functional.linear(functional.layer_norm(stream, (hidden,)), embedding)

    def run() -> None:
        logits = forward().float().reshape(-1, STEP_VOCAB)
        functional.cross_entropy(logits, tokens[:, 1:].reshape(-1)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run
