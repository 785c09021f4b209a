"""What an op should take: by the catalogue's roofline of its chip, and by predict."""

from __future__ import annotations

from sapper.chips.schema import Chip
from sapper.errors import MissingFact
from sapper.evidence import Interval
from sapper.predict.single import op_time
from sapper.prove.speed.result import Bound, OpSpeed, Roofline
from sapper.workloads.op import AttentionShape, Op


def catalogue_roofline(chip: Chip, dtype: str) -> Roofline:
    """Dense peak of ``dtype`` and nominal bandwidth; None where the catalogue has none."""
    peak, bandwidth = chip.peak_flops_per_s.get(dtype), chip.memory.bandwidth_bytes_per_s
    return Roofline(
        peak_flops_per_s=peak.number if peak else None, memory_bytes_per_s=bandwidth.number if bandwidth else None,
    )  # fmt: skip


def limit_of(roofline: Roofline, *, flops: float, size_bytes: float) -> tuple[Bound | None, float | None]:
    """The limit that leaves an op the most time, and that time; (None, None) where none is known."""
    limits = roofline.limits_s(flops=flops, size_bytes=size_bytes)
    if not limits:
        return None, None
    bound = max(limits, key=lambda name: limits[name])
    return bound, limits[bound]


def predicted(op: OpSpeed, chip: Chip, dtype: str) -> Interval | None:
    """What predict says of one call; None where the catalogue does not know enough of the chip, or predict of the op."""
    if not op.priced:
        return None
    attention = _attention(op) if op.kind == "attention" else None
    m, n, k = (int(op.sizes.get(name, 0)) for name in ("m", "n", "k"))
    as_op = Op(
        name=op.op, kind=op.kind, flops=op.flops, input_bytes=op.size_bytes, output_bytes=0.0, m=m, n=n, k=k,
        groups=int(op.sizes.get("groups", 1)), attention=attention,
    )  # fmt: skip
    try:
        return op_time(as_op, chip, dtype)
    except MissingFact:
        return None


def _attention(op: OpSpeed) -> AttentionShape:
    size = {name: int(op.sizes[name]) for name in ("heads", "kv_heads", "head_dim", "query_len", "kv_len")}
    return AttentionShape(
        heads=size["heads"], kv_heads=size["kv_heads"], qk_dim=size["head_dim"], v_dim=size["head_dim"], q_len=size["query_len"],
        kv_len=size["kv_len"], causal=bool(op.sizes["causal"]),
    )  # fmt: skip
