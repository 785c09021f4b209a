"""``sapper mix check``: the same plan at toy width, proved equal to one device in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._proof import need_torch
from sapper.cli.output import Column, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.mix.check.prove import Part, Proof


@click.command("check", help="mix.check.help")
@click.argument("plan", type=click.Path())
@click.option("--model", default=None, metavar="NAME|CONFIG", help="mix.check.option.model")
@click.option("--builder", default=None, metavar="FILE.py:BUILDER", help="mix.check.option.builder")
@click.option("--steps", type=click.IntRange(1, 100), default=2, show_default=True, metavar="N", help="mix.check.option.steps")
@click.option("--seats", type=click.IntRange(1, 64), default=6, show_default=True, metavar="N", help="mix.check.option.seats")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="mix.check.option.seed")
@format_option
def command(plan: str, model: str | None, builder: str | None, steps: int, seats: int, seed: int, fmt: str) -> int:
    """Exit code 1 where the plan computes something else than one device."""
    need_torch()
    from sapper.mix.check.prove import prove
    from sapper.mix.check.subject import subject
    from sapper.mix.plan import read_plan

    wanted = read_plan(plan)
    folded, small, data = subject(wanted, seats=seats, model=model, builder=builder, where=plan)
    talk("mix.check.runs", seats=folded.seats, steps=steps)
    proof = prove(folded, small, data, steps=steps, seed=seed)
    if fmt == "table":
        _show(proof, wanted.model)
    elif fmt == "json":
        emit_json({**_head(proof), "parts": proof.parts, "folded": proof.folded, "equal": proof.equal})
    else:
        emit([_raw(part) for part in proof.parts], [Column(key, "mix.check.column.what") for key in _CSV], fmt="csv")
    return 0 if proof.equal else 1


_CSV = ("what", "pipeline", "stage", "group", "first", "last", "values", "error", "equal")
_COLUMNS = [
    Column("part", "mix.check.column.part"),
    Column("layers", "mix.check.column.layers", "right"),
    Column("what", "mix.check.column.what"),
    Column("values", "mix.check.column.values", "right", lambda count: f"{count:,}"),
    Column("error", "mix.check.column.error", "right", lambda error: f"{error:.1e}"),
    Column("equal", "mix.check.column.equal"),
]


def _head(proof: Proof) -> dict[str, Any]:
    return {"steps": proof.steps, "torch": proof.torch}


def _raw(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in _CSV}


def _show(proof: Proof, model: str) -> None:
    folded = proof.folded
    click.echo(
        messages.text(
            "mix.check.head", model=model, before=folded.seats_before, seats=folded.seats, blocks_before=folded.blocks_before,
            blocks=folded.plan.layers,
        )
    )  # fmt: skip
    if folded.dropped:
        click.echo(messages.text("mix.check.dropped", count=folded.dropped))
    emit([_cells(part) for part in proof.parts], _COLUMNS, fmt="table")
    worst = max(proof.parts, key=lambda part: part.error)
    code = "mix.check.equal" if proof.equal else "mix.check.unequal"
    click.echo(messages.text(code, steps=proof.steps, error=f"{worst.error:.1e}", part=_part(worst), what=_what(worst)))


def _cells(part: Part) -> dict[str, Any]:
    layers = None if part.first is None else f"{part.first}-{part.last}"
    shown = {"part": _part(part), "layers": layers or "-", "what": _what(part)}
    return {**shown, "values": part.values, "error": part.error, "equal": part.equal}


def _part(part: Part) -> str:
    if part.stage is None:
        return messages.text("mix.check.whole")
    return f"{part.pipeline}.{part.stage} {part.group}"


def _what(part: Part) -> str:
    return messages.text(f"mix.check.what.{part.what}")
