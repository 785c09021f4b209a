"""``sapper prove record``: what a correct training step looks like, as a capsule."""

from __future__ import annotations

import click

from sapper import units
from sapper.cli._proof import running
from sapper.cli.output import talk


@click.command("record", help="prove.record.help")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@click.option("-o", "--out", required=True, metavar="FILE.capsule", help="prove.record.option.out")
@click.option("--dtype", default="fp32", show_default=True, metavar="fp32|bf16|fp16|keep", help="prove.model.option.dtype")
@click.option("--seq", type=click.IntRange(1), default=None, metavar="N", help="prove.model.option.seq")
@click.option("--batch", type=click.IntRange(1), default=None, metavar="N", help="prove.model.option.batch")
@click.option("--steps", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="prove.model.option.steps")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="prove.model.option.seed")
@click.option("--runs", type=click.IntRange(5), default=5, show_default=True, metavar="N", help="prove.model.option.runs")
def command(
    target: str, out: str, *, dtype: str, seq: int | None, batch: int | None, steps: int, seed: int, runs: int
) -> None:
    """Record and write."""
    from sapper.programs.needs import need_for

    need_for(target, where="sapper prove record")
    from sapper.programs.opened import open_program
    from sapper.prove.model import capsule as capsules
    from sapper.prove.model.proof import checked
    from sapper.prove.model.step import TrainingStep

    with running():
        opened = open_program(target, seq=seq, batch=batch, dtype=dtype, seed=seed)
        checked(TrainingStep(opened=opened, steps=steps), talk)
        talk("prove.model.progress.record")
        found = capsules.record(opened, steps=steps, runs=runs)
    size_bytes = capsules.save(found, out)
    talk("prove.record.show.wrote", path=out, size=units.scaled(float(size_bytes), "B"), rows=len(found.truth), runs=runs + 1)
