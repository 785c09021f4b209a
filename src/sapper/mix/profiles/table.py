"""Layers in a row, as the peers' files list them, and the profile that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sapper.mix.profiles.profile import HeldBytes, LayerCost, Profile, Timed

FORWARD_SHARE = 1.0 / 3.0
"""Of a pass forward and back, where a source gives only their sum: a gradient costs two products for each forward one
(arXiv:2104.04473, appendix)."""
FLOAT_BYTES = 4.0


class Row(NamedTuple):
    """One layer in one shape."""

    forward_s: float
    backward_s: float
    saved_bytes: float
    params: int
    """On one chip."""
    output_bytes: float
    """Of one sequence."""
    working_bytes: float = 0.0


class Stack(NamedTuple):
    """What the source's training software holds and takes, in bytes: fp32 with Adam unless it says otherwise."""

    weight_bytes: float = 4.0
    gradient_bytes: float = 4.0
    optimizer_bytes: float = 8.0
    wire_bytes: float = 4.0
    overhead_bytes: float = 0.0
    precision: str = "fp32"


def kinds_of(count: int) -> tuple[str, ...]:
    """Names of ``count`` layers from the embedding to the head: each block is a kind of its own, as it was measured."""
    return ("embedding", *(f"block {layer}" for layer in range(1, count - 1)), "head")


def profile_of(
    model: str,
    device: str,
    *,
    measured: Mapping[tuple[int, int], Sequence[Row]],
    seq_len: int,
    update_s: Mapping[int, float],
    source: str,
    stack: Stack | None = None,
) -> Profile:
    """The profile of layers that were measured at (tensor degree, micro-batch).

    Args:
        model: As the source names it.
        device: As the source names it.
        measured: The layers of each shape, in order; all shapes have equally many.
        seq_len: Tokens of a sequence.
        update_s: Tensor degree -> the optimizer over the whole model; each layer takes its share by weights.
        source: Where it is from.
        stack: Of the source's software; None: fp32 with Adam.

    Raises:
        ValueError: Nothing was measured, or shapes of different depth.
    """
    depths = {len(rows) for rows in measured.values()}
    if len(depths) != 1:
        raise ValueError(f"layers: {sorted(depths)}")
    kinds, shapes = kinds_of(depths.pop()), sorted(measured)
    first = {tp: measured[tp, size] for tp, size in reversed(shapes)}
    known = stack or Stack()
    return Profile(
        model=model, device=device, seq_len=seq_len, layers=kinds, precision=known.precision,
        boundary_bytes={kind: row.output_bytes for kind, row in zip(kinds, measured[shapes[0]], strict=True)},
        timed=tuple(Timed(tp=tp, micro_batch=size, layers=_costs(kinds, measured[tp, size])) for tp, size in shapes),
        held=tuple(_held(kinds, rows, tp=tp, update_s=update_s.get(tp, 0.0)) for tp, rows in sorted(first.items())),
        weight_bytes=known.weight_bytes, gradient_bytes=known.gradient_bytes, optimizer_bytes=known.optimizer_bytes,
        wire_bytes=known.wire_bytes, overhead_bytes=known.overhead_bytes, source=source,
    )  # fmt: skip


def _costs(kinds: Sequence[str], rows: Sequence[Row]) -> dict[str, LayerCost]:
    return {
        kind: LayerCost(forward_s=row.forward_s, backward_s=row.backward_s, saved_bytes=row.saved_bytes, working_bytes=row.working_bytes)
        for kind, row in zip(kinds, rows, strict=True)
    }


def _held(kinds: Sequence[str], rows: Sequence[Row], *, tp: int, update_s: float) -> HeldBytes:
    total = max(sum(row.params for row in rows), 1)
    return HeldBytes(
        tp=tp, params={kind: row.params for kind, row in zip(kinds, rows, strict=True)},
        update_s={kind: update_s * row.params / total for kind, row in zip(kinds, rows, strict=True)},
    )  # fmt: skip
