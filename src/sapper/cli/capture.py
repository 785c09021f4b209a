"""``sapper capture``: any PyTorch program as a Workload file."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from sapper import messages, units
from sapper.cli._help import width_of
from sapper.cli.output import Column, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.workloads import Captured


@click.command("capture", help="capture.help")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@click.option("--out", default=None, metavar="FILE", help="capture.option.out")
@click.option("--seq", "seq_len", type=click.IntRange(1, 2**24), default=None, metavar="N", help="capture.option.seq")
@click.option("--dtype", default="bf16", show_default=True, metavar="bf16|fp16|fp32|keep", help="capture.option.dtype")
@click.option("--every-layer", is_flag=True, help="capture.option.every_layer")
@click.option("--ops", "with_ops", is_flag=True, help="capture.option.ops")
@format_option
def command(
    target: str, out: str | None, seq_len: int | None, dtype: str, every_layer: bool, with_ops: bool, fmt: str
) -> None:
    """Capture, write, and say what was found."""
    import msgspec

    from sapper import files
    from sapper.capture import capture

    with contextlib.redirect_stdout(sys.stderr):  # what the program prints is no part of the answer
        found = capture(target, seq=seq_len, dtype=dtype, every_layer=every_layer)
    path = out or f"{found.name}.workload.json"
    raw = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
    files.write_atomic(path, raw)
    if fmt == "json":
        emit_json(found)
    elif fmt == "csv":
        emit(_rows(found), _COLUMNS, fmt="csv")
    else:
        _print(found)
        if with_ops:
            click.echo()
            emit(_rows(found), _COLUMNS, fmt="table")
    talk("capture.wrote", path=path, size=units.scaled(float(len(raw)), "B"))


def _print(found: Captured) -> None:
    from sapper.workloads.notes import said

    totals, batch = found.totals, found.batch
    forward, back = totals.forward_flops, totals.backward_flops
    full, ratio = _number(totals.forward_full_flops / batch), f"{back / forward if forward else 0.0:.2f}"
    layers = ", ".join(f"{block.count} x {block.name}" for block in found.blocks if block.role == "layer")
    many = found.tokens_per_sequence > 1
    lines = [
        (
            "model",
            messages.text(
                "capture.show.model" if many else "capture.show.model_one", name=found.name, source=found.source, dtype=found.dtype,
                tokens=found.tokens_per_sequence,
            ),
        ),
        ("params", f"{found.params:,}"),
        ("layers", layers),
        ("forward", messages.text("capture.show.forward", causal=_number(forward / batch), full=full)),
        ("backward", messages.text("capture.show.backward", flops=_number(back / batch), ratio=ratio)),
        (
            "bytes",
            messages.text("capture.show.bytes", fused=_number(totals.fused_bytes), eager=_number(totals.eager_bytes), batch=batch),
        ),
        ("ops", messages.text("capture.show.ops", calls=sum(op.count for op in found.ops), distinct=len({op.op for op in found.ops}))),
    ]
    unpriced = [
        messages.text("capture.show.unpriced", op=entry.op, count=entry.count, share=f"{100 * entry.bytes_share:.2g}%")
        for entry in found.unpriced
    ]
    lines.append(("unpriced", "; ".join(unpriced) or messages.text("predict.nothing")))
    width = max(width_of(messages.text(f"capture.line.{key}")) for key, _ in lines)
    for key, value in lines:
        label = messages.text(f"capture.line.{key}")
        click.echo(f"{label}{' ' * (width - width_of(label))}  {value}")
    for text in found.notes:
        click.echo(f"  * {said(text)}")


def _rows(found: Captured) -> list[dict[str, Any]]:
    return [{name: getattr(op, name) for name in op.__struct_fields__} for op in found.ops]


def _number(value: float) -> str:
    return units.scaled(value, "").strip()


_COLUMNS = [
    *(Column(key, f"capture.column.{key}") for key in ("phase", "op", "kind")),
    Column("count", "capture.column.count", "right"),
    *(Column(key, f"capture.column.{key}") for key in ("inputs", "outputs")),
    *(Column(key, f"capture.column.{key}", "right", _number) for key in ("flops", "size_bytes")),
]
