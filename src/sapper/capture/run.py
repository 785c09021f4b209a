"""capture: a program or a Transformers config becomes what a Workload file holds."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from sapper import __version__
from sapper.capture import assemble, library
from sapper.capture.attention import fused
from sapper.capture.likeness import Unlike
from sapper.capture.measure import Measurement, measure
from sapper.capture.shards import Cuts
from sapper.capture.step import cast, tokens_of, traced, trainable
from sapper.capture.trace import Row, Trace
from sapper.errors import BadValue
from sapper.programs import faults
from sapper.programs import library as models
from sapper.programs import program as contract
from sapper.programs.dataless import without_data
from sapper.programs.library import is_config
from sapper.programs.program import DTYPES, Program
from sapper.workloads.captured import FORMAT, VERSION, Captured, CapturedOp, Totals, Unpriced
from sapper.workloads.notes import note
from sapper.workloads.op import DTYPE_BYTES, MODEL_FLOP_KINDS, Block

BATCHES = (2, 4)
"""Batches that are traced: not 1, where programs often take a way of their own."""
SMALL = 0.001
"""Fixed FLOPs below this share of the forward pass are not worth a note."""


@dataclasses.dataclass
class _Steps:
    """The program at its batches, built and traced."""

    program: Program
    batch: int
    trace: Trace
    pair: assemble.Pair
    notes: list[str]
    transformers: str | None = None


def capture(target: str, *, seq: int | None = None, dtype: str = "bf16", every_layer: bool = False) -> Captured:
    """Trace one training step of ``target`` on fake tensors.

    Args:
        target: ``file.py:build``, a config.json, a folder with one, or the name of a bundled model.
        seq: Tokens of a sample, for builders that take ``seq`` and for configs (4096 where not given).
        dtype: Compute dtype that weights and inputs are cast to; ``keep`` leaves them.
        every_layer: Run each layer, also those equal to one that ran (:mod:`sapper.capture.repeat`).

    Raises:
        SapperError: What the target does wrong, with the place in its own file.
    """
    if dtype != "keep" and dtype not in DTYPES:
        raise BadValue("SP-PROG-002", where="--dtype", value=dtype, known=", ".join((*DTYPES, "keep")))
    try:
        return _capture(target, seq=seq, dtype=dtype, every_layer=every_layer)
    except Unlike:
        return _capture(target, seq=seq, dtype=dtype, every_layer=True)


def _capture(target: str, *, seq: int | None, dtype: str, every_layer: bool) -> Captured:
    with without_data(), fused(), faults.no_talk(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = (_of_config if is_config(target) else _of_program)(target, seq=seq, dtype=dtype, every_layer=every_layer)
        return _captured(steps, target, dtype)


def _of_config(target: str, *, seq: int | None, dtype: str, every_layer: bool) -> _Steps:
    import transformers

    path = models.config_path(target)
    config = models.config_of(models.raw_config(path), models.config_place(path))
    program = library.program_of(config, models.config_name(path), batch=BATCHES[0], seq=seq, dtype=DTYPES.get(dtype))
    larger = dataclasses.replace(
        program, inputs=models.inputs_of(config, program.module, batch=BATCHES[1], seq=program.seq or 1, labels=True)
    )
    with models.quiet(), library.unpacked(), library.indexed_refused(config, models.config_place(path)):
        return _trace(program, larger, BATCHES, str(path), every_layer=every_layer, transformers=transformers.__version__)


def _of_program(target: str, *, seq: int | None, dtype: str, every_layer: bool) -> _Steps:
    builder, path = contract.load_builder(target)

    def made(batch: int | None) -> Program:
        return cast(contract.build(builder, path, batch=batch, seq=seq), DTYPES.get(dtype))

    if contract.takes_batch(builder):
        return _trace(made(BATCHES[0]), made(BATCHES[1]), BATCHES, path, every_layer=every_layer)
    program = made(None)
    given = contract.batch_of(program)
    if given is None:
        return _trace(program, None, (1, 1), path, every_layer=every_layer)
    return _trace(program, contract.at_batch(program, 2 * given), (given, 2 * given), path, every_layer=every_layer)


def _trace(
    program: Program, larger: Program | None, batches: tuple[int, int], path: str, *, every_layer: bool, transformers: str | None = None
) -> _Steps:
    """Trace the whole step at the first batch and the forward pass at the second."""
    trace = traced(program, path, backward=True, every_layer=every_layer)
    first = measure(trace, program.module, Cuts(program.tp_plan))
    second: Measurement | None = None
    if larger is not None:
        again = traced(larger, path, backward=False, every_layer=every_layer)
        second = measure(again, larger.module, Cuts(program.tp_plan))
    pair = assemble.Pair.of(batches[0], first, batches[1], second)
    notes = [] if pair.second is not None else [note("one-batch", batch=batches[0])]
    return _Steps(program, batches[0], trace, pair, notes, transformers)


def _captured(steps: _Steps, target: str, dtype: str) -> Captured:
    program, trace, batch = steps.program, steps.trace, steps.batch
    sizes = {name: parameter.numel() for name, parameter in program.module.named_parameters()}
    seq_len = tokens_of(program)
    compute = dtype if dtype != "keep" else _main_dtype(program.module)
    boundary = {path: size / batch / DTYPE_BYTES[compute] for path, size in trace.boundary_bytes.items()}
    blocks = assemble.blocks_of(steps.pair, sizes, boundary_elements=boundary, seq_len=seq_len)
    fixed = assemble.fixed_flops(steps.pair)
    frozen = sum(sizes.values()) - sum(parameter.numel() for parameter in trainable(program.module))
    unread = steps.pair.first.unread
    notes = [*steps.notes]
    if unread:
        notes.append(note("never-read", count=len(unread), first=unread[0]))
    if frozen:
        notes.append(note("frozen", count=f"{frozen:,}"))
    if fixed > SMALL * trace.flops("forward"):
        notes.append(note("fixed-flops", share=f"{100 * fixed / trace.flops('forward'):.1f}%"))
    if trace.repeated_layers:
        notes.append(note("repeated-layers", count=trace.repeated_layers))
    if not program.tp_plan:
        notes.append(note("not-cut"))
    return Captured(
        format=FORMAT, version=VERSION, name=program.name or _name(target), source=_shown(target), sapper=__version__,
        torch=torch.__version__.partition("+")[0], transformers=steps.transformers, dtype=compute, batch=batch, seq_len=seq_len,
        tokens_per_sequence=program.tokens or seq_len, params=sum(sizes.values()), trainable_params=sum(sizes.values()) - frozen,
        shards_known=bool(program.tp_plan), blocks=blocks, ops=_rows(trace), unpriced=_unpriced(trace),
        totals=_totals(trace, blocks, batch, fixed), notes=tuple(notes),
    )


def _name(target: str) -> str:
    path, _, attribute = target.rpartition(":") if ":" in target else (target, "", "")
    stem = Path(path).stem
    return stem if attribute in ("", "build") else f"{stem}-{attribute}"


def _shown(target: str) -> str:
    """The target without the folders of one machine."""
    return re.sub(r"^.*[\\/](?=[^\\/]+$)", "", target) if os.path.isabs(target) else target


def _main_dtype(module: Any) -> str:
    """The dtype of most weights."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    sizes: dict[str, int] = {}
    for parameter in module.parameters():
        name = names.get(parameter.dtype, "fp32")
        sizes[name] = sizes.get(name, 0) + parameter.numel()
    return max(sizes, key=lambda name: sizes[name], default="fp32")


def _rows(trace: Trace) -> tuple[CapturedOp, ...]:
    order = {"forward": 0, "backward": 1, "optimizer": 2}
    rows = sorted(trace.rows.values(), key=lambda row: (order[row.phase], row.op, row.inputs, row.outputs))
    return tuple(
        CapturedOp(
            phase=row.phase, op=row.op, inputs=row.inputs, outputs=row.outputs, kind=row.kind, count=row.count,
            flops=row.flops if row.priced else None, flops_full=row.flops_full if row.priced else None, size_bytes=row.size_bytes,
        )
        for row in rows
    )  # fmt: skip


def _unpriced(trace: Trace) -> tuple[Unpriced, ...]:
    total = sum(row.size_bytes for row in trace.rows.values())
    found: dict[str, list[Row]] = {}
    for row in trace.rows.values():
        if not row.priced:
            found.setdefault(row.op, []).append(row)
    return tuple(
        Unpriced(
            op=op, count=sum(row.count for row in rows), size_bytes=sum(row.size_bytes for row in rows),
            bytes_share=sum(row.size_bytes for row in rows) / total if total else 0.0,
        )
        for op, rows in sorted(found.items())
    )  # fmt: skip


def _totals(trace: Trace, blocks: tuple[Block, ...], batch: int, fixed: float) -> Totals:
    eager = sum(row.size_bytes for row in trace.rows.values() if row.phase == "forward")
    fused = sum(
        block.count * sum(batch * (op.input_bytes + op.output_bytes) + op.weight_bytes for op in block.ops) for block in blocks
    )
    known = sum(row.flops for row in trace.rows.values() if row.phase == "backward" and row.kind in MODEL_FLOP_KINDS)
    return Totals(
        forward_flops=trace.flops("forward"), forward_full_flops=trace.flops("forward", full=True), backward_flops=known,
        backward_unattributed_flops=trace.unattributed_flops, fixed_flops=fixed, eager_bytes=eager, fused_bytes=fused,
    )
