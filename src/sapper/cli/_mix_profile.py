"""``sapper mix profile``: times and memory of each kind of layer of a model on this device, for the planner."""

from __future__ import annotations

from typing import Any

import click

from sapper.cli.output import Column, emit, format_option, talk

_PRECISIONS = ("fp32", "bf16", "fp16", "fp64")


@click.command("profile", help="mix.profile.help")
@click.argument("model", metavar="NAME|CONFIG|FILE.py:BUILDER")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="mix.profile.option.device")
@click.option("--seq", type=click.IntRange(1), default=512, show_default=True, metavar="N", help="mix.profile.option.seq")
@click.option("--micro-batch", "sizes", default="1,2,4", show_default=True, metavar="N,N,...", help="mix.profile.option.micro_batch")
@click.option("--precision", type=click.Choice(_PRECISIONS), default="fp32", show_default=True, help="mix.profile.option.precision")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True, help="mix.profile.option.optimizer")
@click.option("--data", default=None, metavar="FILE.py:LOADER", help="mix.profile.option.data")
@click.option(
    "--seconds", type=click.FloatRange(0.01), default=3.0, show_default=True, metavar="S", help="mix.profile.option.seconds"
)
@click.option("--name", default="", metavar="CHIP", help="mix.profile.option.name")
@click.option("--out", default="profile.json", show_default=True, metavar="FILE", help="mix.profile.option.out")
@format_option
def command(
    model: str, device: str, seq: int, sizes: str, precision: str, optimizer: Any, data: str | None, seconds: float, name: str, out: str,
    fmt: str,
) -> None:  # fmt: skip
    """Measure and write."""
    from sapper.errors import BadValue
    from sapper.programs.needs import need_for

    need_for(model, where="sapper mix profile")
    try:
        wanted = tuple(sorted({int(one) for one in sizes.split(",")}))
        assert wanted[0] > 0
    except (ValueError, AssertionError) as error:
        raise BadValue("SP-MIX-226", where="--micro-batch", value=sizes) from error
    from sapper.mix.measure import Question, measure
    from sapper.mix.profiles.profile import write_own
    from sapper.mix.run.targets import check_device, model_of, own_inputs, samples_of

    check_device(device)
    found = model_of(model, seq_len=seq)
    question = Question(
        model=found, data=samples_of(data, found, seq_len=seq) or own_inputs(found), seq_len=seq, micro_batches=wanted,
        precision=precision, optimizer=optimizer, device=device, seconds=seconds, name=name, conditions=_conditions(),
    )  # fmt: skip
    profile = measure(question, told=lambda size, layers: talk("mix.profile.progress", size=size, layers=layers))
    write_own(out, profile)
    _print(profile, fmt)
    talk("mix.profile.wrote", path=out)


def _conditions() -> str:
    """What an emulation holds this process to, where one started it."""
    import os

    from sapper.mix.emulate.world import CONDITIONS

    return os.environ.get(CONDITIONS, "")


def _print(profile: Any, fmt: str) -> None:
    held = profile.held[0]
    rows = [
        {
            "kind": kind, "count": profile.layers.count(kind), "micro_batch": timed.micro_batch, "forward_s": cost.forward_s,
            "backward_s": cost.backward_s, "update_s": held.update_s[kind], "saved_bytes": cost.saved_bytes,
            "working_bytes": cost.working_bytes, "params": held.params[kind],
        }
        for timed in profile.timed for kind, cost in timed.layers.items()
    ]  # fmt: skip
    emit(rows, _columns(), fmt=fmt)


def _columns() -> list[Column]:
    from sapper import units

    def size(value: float) -> str:
        return units.scaled(value, "B")

    times = [Column(key, f"mix.profile.column.{key}", "right", units.duration) for key in ("forward_s", "backward_s", "update_s")]
    bytes_ = [Column(key, f"mix.profile.column.{key}", "right", size) for key in ("saved_bytes", "working_bytes")]
    return [
        Column("kind", "mix.profile.column.kind"),
        Column("count", "mix.profile.column.count", "right"),
        Column("micro_batch", "mix.profile.column.micro_batch", "right"),
        *times,
        *bytes_,
        Column("params", "mix.profile.column.params", "right", lambda value: f"{value:,}"),
    ]
