"""``sapper prove change``: edits of a model on a device, and what survives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._proof import backend_option, exit_code, faults_told, json_option, need_torch, out_option, running
from sapper.cli.output import Column, emit, emit_json, talk
from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.prove.change.result import ChangeProof, EditResult

_DEFAULT = "40"


@click.command("change", help="prove.change.help")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@backend_option
@click.option("--edits", default=_DEFAULT, show_default=True, metavar="N|all", help="prove.change.option.edits")
@click.option("--only", "pattern", default=None, metavar="PATTERNS", help="prove.change.option.only")
@click.option("--edits-file", default=None, metavar="FILE.py:EDITS", help="prove.change.option.edits_file")
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True, help="prove.change.option.dtype")
@click.option("--batch", type=click.IntRange(1), default=None, metavar="N", help="prove.change.option.batch")
@click.option("--seq", type=click.IntRange(1), default=None, metavar="N", help="prove.change.option.seq")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="prove.change.option.seed")
@click.option(
    "--limit", "limit_s", type=click.FloatRange(1), default=120.0, show_default=True, metavar="SECONDS", help="prove.change.option.limit"
)
@click.option(
    "--memory", "memory_gb", type=click.FloatRange(0, min_open=True), default=None, metavar="GB", help="prove.change.option.memory"
)
@click.option("--no-shrink", is_flag=True, help="prove.change.option.no_shrink")
@out_option
@json_option
def command(
    target: str, on: str, edits: str, pattern: str | None, edits_file: str | None, dtype: str, batch: int | None, seq: int | None,
    seed: int, limit_s: float, memory_gb: float | None, no_shrink: bool, out: str, as_json: bool,
) -> int:  # fmt: skip
    """Edit, run, judge, make small."""
    need_torch()
    from sapper.prove.change.edit import ORIGINAL, Setting
    from sapper.prove.change.result import NAME
    from sapper.prove.change.run import Options, prove_change
    from sapper.prove.verdict import RED

    setting = Setting(target=target, on=on, dtype=dtype, batch=batch, seq=seq, seed=seed, edits_file=edits_file)
    options = Options(
        edits=_count(edits), pattern=pattern, limit_s=limit_s, memory_bytes=None if memory_gb is None else int(memory_gb * 1e9),
        shrink=not no_shrink,
    )  # fmt: skip
    with running(kept=out), faults_told(on, out, "change", anew=False):
        proof = prove_change(setting, Path(out), options=options, told=talk)
    if as_json:
        emit_json(proof)
    else:
        _print(proof)
    talk("prove.wrote", path=str(Path(out) / NAME))
    # that the program itself is right proves nothing of an edit
    return exit_code([one.outcome for one in proof.results if one.id != ORIGINAL.id or one.outcome in RED])


def _count(edits: str) -> int | None:
    if edits == "all":
        return None
    if not edits.isdigit() or not int(edits):
        raise BadValue("SP-CHANGE-004", where="--edits", value=edits)
    return int(edits)


def _print(proof: ChangeProof) -> None:
    if proof.header.left_out:
        click.echo(f"* {messages.text('prove.change.note.left_out', count=len(proof.header.left_out))}")
    if proof.header.dropout_off:
        click.echo(f"* {messages.text('prove.change.note.dropout', modules=proof.header.dropout_off)}")
    alike = proof.alike()
    if alike:
        click.echo(f"* {messages.text('prove.change.note.alike', count=len(alike))}")
    survival = proof.survival()
    outcomes = sorted({name for row in survival.values() for name in row}, key=_severity)
    rows: list[dict[str, Any]] = [{"family": messages.text(f"prove.change.family.{family}"), **row} for family, row in survival.items()]
    columns = [Column("family", "prove.change.column.family"), *(Column(name, f"prove.outcome.{name}", "right") for name in outcomes)]
    emit([{**dict.fromkeys(outcomes, 0), **row} for row in rows], columns, fmt="table")
    for one in proof.results:
        if one.outcome not in ("ok", "legal"):
            click.echo(_line(one, alike=one in alike))


def _severity(outcome: Any) -> int:
    from sapper.prove.verdict import SEVERITY

    return SEVERITY.index(outcome)


def _line(one: EditResult, *, alike: bool) -> str:
    """An edit that did not pass, with what shows it and how small it can be made."""
    parts = [messages.text("prove.change.line", edit=one.id, outcome=messages.text(f"prove.outcome.{one.outcome}"))]
    if alike:
        parts.append(messages.text("prove.change.alike"))
    if one.op is not None:
        parts.append(messages.text("prove.change.op", op=one.op))
    if one.label is not None and one.ratio is not None:
        parts.append(messages.text("prove.change.ratio", label=one.label, ratio=f"{one.ratio:.3g}"))
    if one.stage:
        parts.append(messages.text("prove.change.stage", stage=one.stage))
    if one.said:
        parts.append(one.said.splitlines()[0][:200])
    if one.smallest is not None:
        size = one.smallest.size
        known = {"layers": size.layers, "batch": size.batch, "seq": size.seq, **one.smallest.edit.args}
        shown = ", ".join(f"{key}={value}" for key, value in known.items() if value is not None)
        parts.append(messages.text("prove.change.smallest", size=shown or "-"))
        if one.smallest.repro is not None and one.smallest.repro.path is not None:
            parts.append(messages.text("prove.change.repro_at", path=one.smallest.repro.path))
    return "  ".join(parts)
