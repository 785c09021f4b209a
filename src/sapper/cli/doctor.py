"""``sapper doctor``: which software stacks work here, how precisely, and what mends those that do not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.backends.checkup import Checkup

_COLUMNS = [
    Column("name", "doctor.column.name"),
    Column("state", "doctor.column.state"),
    Column("where", "doctor.column.where"),
    Column("tried", "doctor.column.tried"),
    Column("versions", "doctor.column.versions"),
]
_PRECISION = [
    Column("name", "doctor.column.name"),
    Column("dtype", "doctor.column.dtype"),
    Column("family", "doctor.column.family"),
    Column("bits", "doctor.column.bits", "right"),
    Column("nominal", "doctor.column.nominal", "right"),
    Column("accumulator", "doctor.column.accumulator", "right"),
    Column("verdict", "doctor.column.verdict"),
]


@click.command("doctor", help="doctor.help")
@click.argument("backends", nargs=-1, metavar="[BACKEND]...")
@click.option("--quick", is_flag=True, help="doctor.option.quick")
@click.option("--timeout", "limit_s", type=click.FloatRange(1), default=None, metavar="SECONDS", help="doctor.option.timeout")
@click.option("--json", "as_json", is_flag=True, help="doctor.option.json")
def command(backends: tuple[str, ...], quick: bool, limit_s: float | None, as_json: bool) -> None:
    """Check the stacks named, or all."""
    from sapper.backends import find
    from sapper.backends.doctor import LIMIT_S, checkups

    for name in backends:
        find(name)  # an unknown name or option is said before minutes are spent on the others
    found = []
    for one in checkups(backends, with_precision=not quick, limit_s=limit_s or LIMIT_S):
        found.append(one)
        talk("doctor.progress", name=one.name, state=_state(one))
    if as_json:
        emit_json(found)
    else:
        _print(found, detailed=bool(backends))
    if any(one.findings() for one in found):
        sys.exit(1)
    if backends and any(one.state == "missing" for one in found):
        sys.exit(2)


def _state(one: Checkup) -> str:
    return messages.text(f"doctor.state.{one.state}")


def _print(found: list[Checkup], *, detailed: bool) -> None:
    rows = [
        {
            "name": one.name,
            "state": _state(one),
            "where": one.where or "-",
            "tried": one.tried if one.tried else messages.text("doctor.tried.never"),
            "versions": ", ".join(f"{name} {version}" for name, version in one.versions.items()) or "-",
        }
        for one in found
    ]
    emit(rows, _COLUMNS, fmt="table")
    for one in found:
        for line in _lines(one):
            click.echo(f"{one.name}: {line}")
    measured = [one for one in found if one.precision is not None]
    if detailed and measured:
        click.echo()
        emit([row for one in measured for row in _families(one)], _PRECISION, fmt="table", title=messages.text("doctor.title.precision"))


def _lines(one: Checkup) -> list[str]:
    """What is wrong with a stack or worth knowing, a line each."""
    lines = []
    if one.problem:
        lines.append(one.problem)
    if one.remedy:
        lines.append(messages.text("doctor.line.remedy", command=one.remedy))
    if one.state == "passed" and one.where is None:
        lines.append(messages.text("doctor.line.void"))
    if one.fallbacks:
        lines.append(messages.text("doctor.line.fallbacks", ops=", ".join(one.fallbacks)))
    precision = one.precision
    if precision is None:
        return lines
    for family, runs_as in precision.downgrades():
        lines.append(messages.text("doctor.line.downgrade", dtype=family.dtype, family=family.family, bits=family.bits, format=runs_as))
    for family in precision.narrow():
        lines.append(messages.text("doctor.line.narrow", dtype=family.dtype, family=family.family, bits=family.accumulator_bits))
    if precision.hides_nan:
        lines.append(messages.text("doctor.line.nan", functions=", ".join(precision.hides_nan)))
    flushed = [name for name, state in precision.subnormals.items() if state == "flushed"]
    if flushed:
        lines.append(messages.text("doctor.line.flushed", ops=", ".join(flushed)))
    odd = [f"{name} {mode}" for name, mode in precision.rounding.items() if mode != "nearest-even"]
    if odd:
        lines.append(messages.text("doctor.line.rounding", casts=", ".join(odd)))
    for what, said in precision.unmeasured.items():
        lines.append(messages.text("doctor.line.unmeasured", what=what, said=said))
    return lines


def _families(one: Checkup) -> list[dict[str, Any]]:
    from sapper.backends.checkup import NOMINAL_BITS

    assert one.precision is not None
    rows = []
    for family in one.precision.families:
        width = family.accumulator_bits
        runs_as = family.downgrade()
        verdict = messages.text("doctor.verdict.fine")
        if runs_as:
            verdict = messages.text("doctor.verdict.runs_as", format=runs_as)
        elif family.narrow():
            verdict = messages.text("doctor.verdict.narrow")
        rows.append(
            {
                "name": one.name, "dtype": family.dtype, "family": family.family, "bits": "-" if family.bits is None else family.bits,
                "nominal": NOMINAL_BITS[family.dtype],
                "accumulator": "-" if width is None else f"{'>= ' if family.accumulator_capped else ''}{width}", "verdict": verdict,
            }
        )  # fmt: skip
    return rows
