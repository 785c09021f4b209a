"""``sapper prove train``: a short training on a device beside the envelope of correct runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._proof import backend_option, exit_code, faults_told, json_option, need_torch, out_option, running
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.prove.train.result import Departure, TrainProof

_SHOWN = 12
"""Steps that the table shows, and departures that are listed."""


@click.command("train", help="prove.train.help")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@backend_option
@click.option("--steps", type=click.IntRange(2, 100_000), default=50, show_default=True, metavar="N", help="prove.train.option.steps")
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True, help="prove.train.option.dtype")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True, help="prove.train.option.optimizer")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=None, metavar="RATE", help="prove.train.option.lr")
@click.option("--data", "loader", default=None, metavar="FILE.py:LOADER", help="prove.train.option.data")
@click.option("--batch", type=click.IntRange(1), default=None, metavar="N", help="prove.train.option.batch")
@click.option("--seq", type=click.IntRange(1), default=None, metavar="N", help="prove.train.option.seq")
@click.option("--members", type=click.IntRange(3, 100), default=7, show_default=True, metavar="N", help="prove.train.option.members")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="prove.train.option.seed")
@click.option(
    "--limit", "limit_s", type=click.FloatRange(1), default=600.0, show_default=True, metavar="SECONDS", help="prove.train.option.limit"
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="prove.train.option.workers")
@out_option
@json_option
def command(
    target: str, on: str, steps: int, dtype: str, optimizer: Any, lr: float | None, loader: str | None, batch: int | None, seq: int | None,
    members: int, seed: int, limit_s: float, workers: int, out: str, as_json: bool,
) -> int:  # fmt: skip
    """Train on both, compare, say who left first."""
    need_torch()
    from sapper.prove.train.plan import Settings
    from sapper.prove.train.run import RESULT, prove_train

    settings = Settings(
        target=target, on=on, steps=steps, dtype=dtype, optimizer=optimizer, lr=lr, data=loader, batch=batch, seq=seq, members=members,
        seed=seed,
    )  # fmt: skip
    with running(kept=out), faults_told(on, out, "train", anew=False):
        proof = prove_train(settings, Path(out), told=talk, workers=workers, limit_s=limit_s)
    if as_json:
        emit_json(proof)
    else:
        _print(proof)
    talk("prove.wrote", path=str(Path(out) / RESULT))
    return exit_code([proof.outcome])


def _print(proof: TrainProof) -> None:
    for note in proof.notes:
        click.echo(f"* {messages.text(note.code, **note.values)}")
    click.echo()
    emit([_row(proof, at) for at in _shown(proof)], _COLUMNS, fmt="table")
    click.echo()
    click.echo(_verdict(proof))
    for one in proof.departures[:_SHOWN]:
        click.echo(f"  {_said(one)}")
    if len(proof.departures) > _SHOWN:
        click.echo(f"  {messages.text('prove.train.more', count=len(proof.departures) - _SHOWN)}")


def _verdict(proof: TrainProof) -> str:
    common = {"backend": proof.backend, "where": proof.where or messages.text("cli.unknown"), "steps": len(proof.rows)}
    if proof.first is not None:
        return messages.text("prove.train.verdict.left", **common, step=proof.first.step, phase=_phase(proof.first))
    if proof.outcome == "ok":
        return messages.text("prove.train.verdict.ok", **common, things=sum(proof.covered.values()), members=proof.members)
    meaning = "prove.train.verdict.no_truth" if proof.outcome == "void" and proof.blame == "model" else f"prove.meaning.{proof.outcome}"
    said = (proof.said or messages.text(meaning)).strip()
    return messages.text("prove.train.verdict.ended", **common, outcome=messages.text(f"prove.outcome.{proof.outcome}"), said=said)


def _said(one: Departure) -> str:
    kind, _, name = one.thing.partition(" ")
    thing = messages.text(f"prove.train.thing.{kind}", name=name)
    ratio = messages.text("prove.train.beyond") if one.ratio is None else f"{one.ratio:,.3g}"
    degrees = f"{math.degrees(one.angle_rad):.3g}" if one.angle_rad is not None else "-"
    scale = f"{one.scale:.4g}" if one.scale is not None else "-"
    manner = messages.text(f"prove.train.manner.{one.manner}", scale=scale, degrees=degrees)
    return messages.text("prove.train.departure", step=one.step, phase=_phase(one), thing=thing, manner=manner, ratio=ratio)


def _phase(one: Departure) -> str:
    return messages.text(f"prove.train.phase.{one.phase}")


def _shown(proof: TrainProof) -> list[int]:
    """The first steps, the one that left, and some between it and the last."""
    last = len(proof.rows) - 1
    wanted = {0, 1, 2, last, *(round(last * at / (_SHOWN - 4)) for at in range(_SHOWN - 3))}
    if proof.first is not None:
        wanted.add(proof.first.step)
    return sorted(at for at in wanted if 0 <= at <= last)


def _row(proof: TrainProof, at: int) -> dict[str, Any]:
    row = proof.rows[at]
    apart = None if row.loss is None or row.loss_truth is None else abs(row.loss - row.loss_truth)
    ratios = [row.forward_ratio, row.backward_ratio, row.optimizer_ratio]
    return {
        "step": row.step, "loss": row.loss_truth, "apart": apart, "allowed": row.loss_allowed, "forward": ratios[0], "backward": ratios[1],
        "optimizer": ratios[2], "gradient": row.gradient, "angle_rad": row.angle_rad,
    }  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3g}"


_COLUMNS = [
    Column("step", "prove.train.column.step", "right"),
    Column("loss", "prove.train.column.loss", "right", lambda value: f"{value:.6g}"),
    *(Column(key, f"prove.train.column.{key}", "right", _short) for key in ("apart", "allowed", "forward", "backward", "optimizer")),
    Column("gradient", "prove.train.column.gradient"),
    Column("angle_rad", "prove.train.column.angle", "right", lambda value: f"{math.degrees(value):.2g}"),
]
