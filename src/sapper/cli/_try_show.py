"""What ``sapper port try`` prints for a reader."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit

if TYPE_CHECKING:
    from sapper.port.dryrun.result import Seen, Trial

MOST_ROWS = 40
MOST_OPS = 6
MOST_WORDS = 90
MOST_UNREACHED = 12

_COLUMNS = [
    Column("place", "port.try.column.place"),
    Column("symbol", "port.try.column.touch"),
    Column("outcome", "port.try.column.outcome"),
    Column("says", "port.try.column.says"),
    Column("codes", "port.try.column.findings"),
    Column("count", "port.try.column.count", "right"),
]
_UNSCANNED = [column for column in _COLUMNS if column.key != "codes"]


def show(trial: Trial) -> None:
    """Verdict, what ran where, scan bugs, touches, coverage."""
    from sapper.port import target as targets

    text = messages.text
    how = text(f"port.try.{'shim' if trial.shim else 'no_shim'}")
    label = targets.label(targets.find(trial.target))
    click.echo(text("port.try.head", target=label, device=trial.device, how=how, command=shlex.join(trial.command)))
    click.echo(text("port.try.unreal"))
    click.echo()
    click.echo(text(f"port.try.verdict.{trial.verdict}", touches=len(trial.counting), code=trial.exit_code))
    if trial.overran:
        click.echo(text("port.try.overran", seconds=f"{trial.limit_s:g}"))
    elif trial.exit_code and trial.verdict != "unfinished":
        click.echo(text("port.try.ended", code=trial.exit_code))
    _where_it_ran(trial)
    _warnings(trial)
    beyond = [one for one in trial.own if one.beyond_scan]
    columns = _UNSCANNED if trial.scan is None else _COLUMNS
    _table("port.try.beyond", beyond, _UNSCANNED)
    _table("port.try.own", [one for one in trial.own if not (one.beyond_scan or one.carried) and one.touch.kind != "chip"], columns)
    lacking = messages.Phrase("port.try.personality", name=trial.personality, source=trial.personality_source or text("cli.unknown"))
    _table("port.try.lacking", [one for one in trial.own if one.touch.kind == "chip"], _UNSCANNED, source=lacking)
    _table("port.try.carried", [one for one in trial.own if one.carried and one.touch.outcome != "works"], columns)
    _table("port.try.in_packages", [one for one in trial.packages if one.touch.outcome not in ("works", "carries")], _UNSCANNED)
    named = sum(one.touch.outcome == "carries" for one in trial.packages)
    if named:
        click.echo(text("port.try.named_in_packages", count=named))
    _coverage(trial)


def _where_it_ran(trial: Trial) -> None:
    share = trial.chip_share
    shown = "-" if share is None else f"{share:.1%}"
    launched, host = f"{trial.launched_on_chip:,}", f"{trial.computed_on_host:,}"
    click.echo(messages.text("port.try.ran", chip=launched, host=host, share=shown, device=trial.device))
    if trial.on_host and trial.launched_on_chip:
        ops = ", ".join(f"{name} {count:,}" for name, count in list(trial.on_host.items())[:MOST_OPS])
        click.echo(messages.text("port.try.on_host", ops=ops))
    with_torch = [unit for unit in trial.processes if unit.torch]
    cut = sum(not unit.ended for unit in trial.processes)
    click.echo(messages.text("port.try.processes", count=len(trial.processes), torch=len(with_torch), cut=cut))


def _warnings(trial: Trial) -> None:
    for line in trial.unwatched:
        click.echo(messages.text("port.try.unwatched", line=line))
    for why in trial.unlooked:
        click.echo(messages.text("port.try.unlooked", why=why))
    for remark in trial.remarks:
        click.echo(messages.text(f"port.try.remark.{remark.key}", **remark.values))


def _table(heading: str, seen: Sequence[Seen], columns: Sequence[Column], **values: Any) -> None:
    if not seen:
        return
    click.echo()
    click.echo(messages.text(heading, count=len(seen), **values))
    emit([_row(one) for one in seen[:MOST_ROWS]], columns, fmt="table")
    if len(seen) > MOST_ROWS:
        click.echo(messages.text("port.try.more", count=len(seen) - MOST_ROWS))


def _row(one: Seen) -> dict[str, Any]:
    touch = one.touch
    place = f"{touch.path}:{touch.line}" if touch.path else messages.text("port.try.backward")
    if touch.via:
        place += f" <- {touch.via}"
    says = touch.says or ""
    if touch.note:
        says = messages.text(f"port.try.note.{touch.note.key}", **touch.note.values)
    if len(says) > MOST_WORDS:
        says = says[: MOST_WORDS - 3] + "..."
    if one.equivalent:
        says = f"{says + '; ' if says else ''}{one.equivalent}"
    return {
        "place": place, "symbol": touch.symbol, "outcome": messages.text(f"port.try.outcome.{touch.outcome}"), "says": says,
        "codes": ", ".join(one.findings), "count": touch.count,
    }  # fmt: skip


def _coverage(trial: Trial) -> None:
    if trial.scan is None:
        return
    click.echo()
    kinds = {kind: [one for one in trial.scan if one.coverage == kind] for kind in ("confirmed", "reached", "unreached", "unlooked")}
    click.echo(messages.text("port.try.coverage", total=len(trial.scan), **{kind: len(found) for kind, found in kinds.items()}))
    unreached = [one.finding for one in kinds["unreached"] if one.finding.standing == "ties"]
    for finding in unreached[:MOST_UNREACHED]:
        click.echo(f"  {finding.place.path}:{finding.place.line}  {finding.code}  {finding.symbol}")
    if len(unreached) > MOST_UNREACHED:
        click.echo(messages.text("port.try.more", count=len(unreached) - MOST_UNREACHED))


