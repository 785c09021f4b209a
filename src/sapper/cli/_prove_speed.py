"""``sapper prove speed``: how fast a workload's ops run against what the machine can do, and whether they are right."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapper import messages, units
from sapper.cli._proof import faults_told, running
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import Column, emit, emit_json, talk
from sapper.prove.verdict import RED
from sapper.prove.words import outcome

if TYPE_CHECKING:
    from sapper.chips.schema import Chip
    from sapper.prove.speed.result import OpSpeed, Speed

SHOWN = 16
"""Calls in the table, those that take most of the step; JSON has all."""
SAY_S = 2.0
"""Between two words of progress."""


@click.command("speed", help="prove.help.speed")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@click.option("--on", "backend", required=True, metavar="BACKEND", help="prove.option.speed_on")
@click.option("--dtype", default="keep", show_default=True, metavar="fp32|bf16|fp16|keep", help="prove.option.speed_dtype")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="prove.option.speed_batch")
@click.option("--seq", type=click.IntRange(1), metavar="N", help="prove.option.speed_seq")
@click.option("--chip", metavar="NAME", help="prove.option.speed_chip")
@click.option("--store", metavar="URL", help="prove.option.speed_store")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="prove.option.speed_threads")
@click.option("--case-time", "case", default="0.5s", show_default=True, metavar="TIME", help="prove.option.speed_case")
@click.option("--seed", type=int, default=0, show_default=True, help="prove.option.speed_seed")
@click.option("--out", type=click.Path(), default="proof", show_default=True, metavar="DIR", help="prove.option.speed_out")
@click.option("--all", "whole", is_flag=True, help="prove.option.speed_all")
@click.option("--json", "as_json", is_flag=True, help="prove.option.speed_json")
@chips_dir_option
def command(
    target: str, backend: str, dtype: str, batch: int | None, seq: int | None, chip: str | None, store: str | None,
    threads: int | None, case: str, seed: int, out: str, whole: bool, as_json: bool,
) -> int:  # fmt: skip
    """Exit code 1 where an op is wrong or does not run."""
    import msgspec

    from sapper import files
    from sapper.errors import BadValue
    from sapper.programs.needs import need_for
    from sapper.programs.opened import open_program
    from sapper.prove.ready import ready
    from sapper.prove.speed import result
    from sapper.prove.speed.known import known_verdicts
    from sapper.prove.speed.run import Question, speed_of

    need_for(target, where="sapper prove speed")
    on = ready(backend)
    if store is not None and not on.real:
        raise BadValue("SP-SPEED-002", where="--store", backend=backend)
    question = Question(
        backend=backend, target=target, dtype=dtype, seq=seq, batch=batch, seed=seed, threads=threads or _threads(),
        case_s=units.parse(case, "s", where="--case-time", positive=True),
    )  # fmt: skip
    with running(), faults_told(backend, out, "speed", anew=True):
        open_program(target, seq=seq, batch=batch, dtype=dtype, seed=seed).run()  # a mistake of the program is no device's
        found = speed_of(
            question, real=on.real, chip_of=lambda device: _chip(chip, device if on.real else None),
            known=known_verdicts(Path(out), backend), progress=_Progress().told,
        )  # fmt: skip
    path = os.path.join(out, result.FILE)
    files.write_atomic(path, msgspec.json.format(msgspec.json.encode(result.as_json(found)), indent=1) + b"\n")
    if as_json:
        emit_json(result.as_json(found))
    else:
        _print(found, most=None if whole else SHOWN)
    talk("prove.speed.wrote", path=path)
    if store is not None:
        _keep(found, store)
    return 1 if found.findings else 0


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else os.cpu_count() or 1


def _chip(name: str | None, device: str | None) -> Chip | None:
    """The chip that is named, else the one that calls itself ``device``."""
    from sapper.chips import catalogue
    from sapper.chips.limits import KnownChips

    known = catalogue()
    found = name or (KnownChips(known).guess(device) if device else None)
    return known.resolve(found) if found else None


def _keep(found: Speed, store: str) -> None:
    """Append what was measured to the store, and say what was not."""
    from sapper.chips import catalogue
    from sapper.chips.limits import KnownChips
    from sapper.evidence import Store
    from sapper.prove.speed.records import records_of

    limits = KnownChips(catalogue()).limits(found.chip) if found.chip else None
    records, refused = records_of(found, limits)
    for error in refused:
        talk("prove.speed.refused", why=error.render(messages.language()))
    with Store.open(store) as opened:
        talk("prove.speed.stored", added=opened.append(records).added, store=opened.place)
    if found.chip is None:
        talk("prove.speed.stored_nameless")


class _Progress:
    """Says on stderr how far it is, now and then, and each finding at once."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def told(self, op: OpSpeed, done: int, total: int) -> None:
        """One call is done."""
        now_s = time.monotonic()
        if op.outcome in RED or done == total or now_s - self._last_s >= SAY_S:
            self._last_s = now_s
            talk("prove.speed.progress", done=done, total=total, op=_name(op), time=_time(op), outcome=outcome(op.outcome))


def _print(found: Speed, *, most: int | None) -> None:
    for line in _head(found):
        click.echo(line)
    shown = found.ops[:most]
    emit([_row(op) for op in shown], _COLUMNS if found.chip else [one for one in _COLUMNS if one.key not in _OF_CHIP], fmt="table")
    rest = found.ops[len(shown) :]
    if rest:
        share = sum(op.step_share or 0.0 for op in rest)
        click.echo(messages.text("prove.speed.more", count=len(rest), share=_percent(share)))
    for line in _tail(found):
        click.echo(line)


def _head(found: Speed) -> list[str]:
    """What was run, and first of all what was not covered."""
    text = messages.text
    there = found.conditions
    lines = [
        text(
            "prove.speed.head", target=found.target, dtype=found.dtype, backend=found.backend, device=found.device,
            threads=there.get("threads", "?"), load=there.get("load", "?"),
        )
    ]  # fmt: skip
    if not found.real:
        lines.append(text("prove.speed.emulated"))
    gaps = text("assess.label.comma").join(gap.text() for gap in found.gaps())
    lines.append(text("prove.speed.not_covered", what=gaps or text("prove.speed.nothing")))
    return lines


def _tail(found: Speed) -> list[str]:
    text, roof = messages.text, found.measured
    lines = [
        text(
            "prove.speed.measured", peak=_scaled(roof.peak_flops_per_s, "FLOP/s"), side=roof.matmul[0] if roof.matmul else "?",
            bandwidth=_scaled(roof.memory_bytes_per_s, "B/s"), launch=_duration(roof.launch_s),
        )
    ]  # fmt: skip
    if found.catalogue is not None:
        sheet = found.catalogue
        peak, bandwidth = _scaled(sheet.peak_flops_per_s, "FLOP/s"), _scaled(sheet.memory_bytes_per_s, "B/s")
        lines.append(text("prove.speed.catalogue_line", chip=found.chip, peak=peak, bandwidth=bandwidth))
    if found.step_s is not None:
        total_s = sum(op.count * op.timing.median_s for op in found.ops if op.timing)
        lines.append(text("prove.speed.step", step=units.duration(found.step_s), ops=units.duration(total_s)))
    if found.launch_bound:
        share = sum(op.step_share or 0.0 for op in found.launch_bound)
        lines.append(text("prove.speed.launch_bound", share=_percent(share), ops=_names(found.launch_bound)))
    if found.findings:
        lines.append(text("prove.speed.findings", ops=_names(found.findings)))
    return lines


def _row(op: OpSpeed) -> dict[str, Any]:
    timing = op.timing
    return {
        "op": _name(op), "inputs": forms(op.inputs), "count": op.count, "time": timing.median_s if timing else None,
        "quartiles": f"{_duration(timing.low_s)} - {_duration(timing.high_s)}" if timing else None, "share": op.step_share,
        "flops": op.flops_per_s, "bytes": op.bytes_per_s, "roof": op.roof_share, "catalogue": op.catalogue_share,
        "predicted": op.predicted.mid if op.predicted else None, "bound": op.bound, "outcome": op.outcome,
    }  # fmt: skip


def forms(inputs: Sequence[str]) -> str:
    """Dtypes and shapes, equal ones in a row once: ``fp32[4,8] x3``."""
    runs = [(form, len(list(alike))) for form, alike in itertools.groupby(inputs)]
    return " ".join(form if count == 1 else f"{form} x{count}" for form, count in runs)


def _name(op: OpSpeed) -> str:
    return op.op.removeprefix("aten::")


def _names(ops: tuple[OpSpeed, ...]) -> str:
    return ", ".join(dict.fromkeys(_name(op) for op in ops))


def _time(op: OpSpeed) -> str:
    return units.duration(op.timing.median_s) if op.timing else messages.text("prove.speed.not_timed")


def _duration(value_s: float | None) -> str:
    return units.duration(value_s) if value_s is not None else messages.text("cli.unknown")


def _scaled(value: float | None, unit: str) -> str:
    return units.scaled(value, unit) if value is not None else messages.text("cli.unknown")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


_OF_CHIP = ("catalogue", "predicted")
_COLUMNS = [
    Column("op", "prove.speed.op"),
    Column("inputs", "prove.speed.inputs"),
    Column("count", "prove.speed.count", "right"),
    Column("time", "prove.speed.time", "right", units.duration),
    Column("quartiles", "prove.speed.quartiles", "right"),
    Column("share", "prove.speed.share", "right", _percent),
    Column("flops", "prove.speed.flops", "right", lambda value: units.scaled(value, "").strip()),
    Column("bytes", "prove.speed.bytes", "right", lambda value: units.scaled(value, "").strip()),
    Column("roof", "prove.speed.roof", "right", _percent),
    Column("bound", "prove.speed.bound", show=lambda value: messages.text(f"prove.bound.{value}")),
    Column("catalogue", "prove.speed.catalogue", "right", _percent),
    Column("predicted", "prove.speed.predicted", "right", units.duration),
    Column("outcome", "prove.speed.outcome", show=outcome),
]
