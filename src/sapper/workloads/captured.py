"""The Workload file: a program as ``sapper capture`` wrote it, read without PyTorch.

docs/capture.md describes the format. Per-sample numbers and the numbers that do not grow with the batch are apart, so
that the file serves any batch; the length of a sequence is the one that was traced.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sapper import files
from sapper.errors import BadFile, BadValue
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.notes import note
from sapper.workloads.op import DTYPE_BYTES, MATRIX_KINDS, Block, Op, Unfused

FORMAT: Literal["sapper-workload"] = "sapper-workload"
VERSION = 1


class CapturedOp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All calls of one ATen op on the same shapes, at the batch that was traced."""

    phase: Literal["forward", "backward", "optimizer"]
    op: str
    inputs: tuple[str, ...]
    """Dtype and shape of each tensor argument, such as ``bf16[2,4096]``."""
    outputs: tuple[str, ...]
    kind: str
    count: int
    flops: float | None
    """Of all calls; None: unknown, since no rule prices the op."""
    flops_full: float | None
    size_bytes: float
    """Read and written by all calls, each op on its own (unfused)."""


class Unpriced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An op whose FLOPs are unknown."""

    op: str
    count: int
    size_bytes: float
    bytes_share: float
    """Of the bytes of its step."""


class Totals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums over one step at ``batch`` samples; FLOPs of the model-FLOP kinds."""

    forward_flops: float
    forward_full_flops: float
    backward_flops: float
    backward_unattributed_flops: float
    """Part of ``backward_flops`` that no forward op could be found for."""
    fixed_flops: float
    """Part of ``forward_flops`` that does not grow with the batch."""
    eager_bytes: float
    """Of the forward pass, each op on its own."""
    fused_bytes: float
    """Of the forward pass, as the blocks have it."""


class Captured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds."""

    format: Literal["sapper-workload"]
    version: int
    name: str
    source: str
    """What was captured, as it was given."""
    sapper: str
    torch: str
    transformers: str | None
    dtype: str
    """Compute dtype; bytes of the blocks scale from it to the dtype of a job."""
    batch: int
    """Samples of the traced step that ``ops`` and ``totals`` describe."""
    seq_len: int
    tokens_per_sequence: int
    params: int
    trainable_params: int
    shards_known: bool
    """Whether the module said how tensor parallelism cuts it."""
    blocks: tuple[Block, ...]
    ops: tuple[CapturedOp, ...]
    unpriced: tuple[Unpriced, ...]
    totals: Totals
    notes: tuple[str, ...]


def is_captured(raw: Any) -> bool:
    """Whether parsed JSON claims to be a Workload file."""
    return isinstance(raw, Mapping) and (("format" in raw and "blocks" in raw) or raw.get("format") == FORMAT)


def read(path: str | os.PathLike[str]) -> Captured:
    """The Workload file at ``path``.

    Raises:
        BadFile: Missing, malformed, newer than this Sapper, or with a field that cannot be; the field is named.
    """
    return check(files.read_json(path), os.fspath(path))


def check(raw: Any, where: str) -> Captured:
    """Parsed JSON as a Workload file, checked.

    Raises:
        BadFile: As :func:`read`.
    """
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
        raise BadFile("SP-CAP-020", where=where, expected=FORMAT, found=str(raw.get("format") if isinstance(raw, Mapping) else raw)[:60])
    version = raw.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise BadFile("SP-CAP-021", where=f"{where}: version", found=version, known=VERSION)
    found = files.decode(Captured, raw, where)
    for place, value in _numbers(found):
        if not math.isfinite(value) or value < 0:
            raise BadFile("SP-CAP-022", where=f"{where}: {place}", value=f"{value:g}")
    _sensible(found, where)
    return found


def _numbers(value: Any, place: str = "") -> Any:
    """(path, number) of every number inside."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _numbers(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, (tuple, list)):
        for at, item in enumerate(value):
            yield from _numbers(item, f"{place}[{at}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place, value


def _sensible(found: Captured, where: str) -> None:
    if found.dtype not in DTYPE_BYTES:
        raise BadFile("SP-CAP-023", where=f"{where}: dtype", value=found.dtype, expected=", ".join(DTYPE_BYTES))
    for name in ("version", "batch", "seq_len", "tokens_per_sequence"):
        if getattr(found, name) < 1:
            raise BadFile("SP-CAP-023", where=f"{where}: {name}", value=getattr(found, name), expected=">= 1")
    if not any(block.role == "layer" for block in found.blocks):
        raise BadFile("SP-CAP-023", where=f"{where}: blocks", value=len(found.blocks), expected="role = layer")
    for at, block in enumerate(found.blocks):
        if block.count < 1:
            raise BadFile("SP-CAP-023", where=f"{where}: blocks[{at}].count", value=block.count, expected=">= 1")
    total = sum(block.params * block.count for block in found.blocks)
    if total != found.params:
        raise BadFile("SP-CAP-024", where=f"{where}: params", found=found.params, total=total)


def as_model(captured: Captured, *, source: str) -> Model:
    """The file as a Model, which is what predict and assess take."""
    shapes = [op.attention for block in captured.blocks for op in block.ops if op.attention is not None]
    layers = [block for block in captured.blocks if block.role == "layer"]
    tables = [op.n for block in captured.blocks for op in block.ops if op.kind == "embedding" and block.role == "embedding"]
    first = shapes[0] if shapes else None
    total_bytes = sum(op.size_bytes for op in captured.ops if op.phase == "forward")
    unknown_bytes = sum(op.size_bytes for op in captured.ops if op.phase == "forward" and op.flops is None)
    return Model(
        name=captured.name,
        family="captured",
        layers=sum(block.count for block in layers),
        hidden=layers[0].hidden_size,
        heads=first.heads if first else 0,
        kv_heads=first.kv_heads if first else 0,
        head_dim=first.qk_dim if first else 0,
        vocab=max(tables, default=0),
        blocks=functools.partial(_blocks, captured),
        layer_types=tuple(kind for block in layers for kind in [_type_of(block)] * block.count),
        fixed_seq_len=captured.seq_len,
        causal=False,
        sequence_tokens=lambda _: captured.tokens_per_sequence,
        unpriced=tuple(dict.fromkeys(entry.op for entry in captured.unpriced)),
        unpriced_bytes_share=unknown_bytes / total_bytes if total_bytes else 0.0,
        unfused=_unfused(captured),
        shards_known=captured.shards_known,
        trainable_share=captured.trainable_params / captured.params if captured.params else 1.0,
        origin="capture",
        notes=(*captured.notes, note("captured", source=captured.source, torch=captured.torch)),
        source=source,
    )


def _type_of(block: Block) -> str:
    """A word for a layer that a reader knows: its module list, without numbers."""
    return "-".join(part for part in block.name.split(".") if not part[:1].isdigit()) or "layer"


def _unfused(captured: Captured) -> Unfused:
    """The memory-bound ops as they were recorded, one kernel each."""
    passes = [
        [op for op in captured.ops if op.phase == phase and op.kind not in MATRIX_KINDS and op.kind != "attention"]
        for phase in ("forward", "backward")
    ]
    forward, backward = ((sum(op.size_bytes for op in ops) / captured.batch, sum(op.count for op in ops)) for ops in passes)
    fused = [(op, block.count) for block in captured.blocks for op in block.ops if not (op.is_product or op.is_attention_core)]
    return Unfused(
        moved_bytes=(forward[0], backward[0]), calls=(forward[1], backward[1]),
        fused_bytes=sum(op.forward_bytes * count for op, count in fused if op.kind != "loss"),
        fused_loss_bytes=sum(op.forward_bytes * count for op, count in fused if op.kind == "loss"),
        fused_kernels=sum(count for op, count in fused if op.is_launched),
    )  # fmt: skip


def _blocks(captured: Captured, kit: Kit) -> tuple[Block, ...]:
    """Blocks in the job's dtype, and without what only training has for the other purposes."""
    if kit.attention_impl == "unfused":
        raise BadValue("SP-CAP-025", where="--attention", model=captured.name)
    if kit.purpose == "decode" or kit.tokens != captured.seq_len:
        raise BadValue("SP-CAP-027", where="purpose", model=captured.name)
    ratio = kit.width / DTYPE_BYTES[captured.dtype]
    training = kit.purpose == "train"
    return tuple(
        msgspec.structs.replace(
            block, ops=tuple(_op(op, ratio, training=training) for op in block.ops if training or op.kind != "loss"),
        )
        for block in captured.blocks
    )


def _op(op: Op, ratio: float, *, training: bool) -> Op:
    """One op in another dtype; the kept values of a loss are fp32 whatever the dtype."""
    saved = op.saved_bytes if op.kind == "loss" else op.saved_bytes * ratio
    return msgspec.structs.replace(
        op, input_bytes=op.input_bytes * ratio, weight_bytes=op.weight_bytes * ratio, output_bytes=op.output_bytes * ratio,
        saved_bytes=saved if training else 0.0,
    )
