"""``sapper port scan``: everything that ties a tree to CUDA, and what becomes of it on each target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sapper import messages
from sapper.cli._help import printable
from sapper.cli.output import console, is_unicode, talk

if TYPE_CHECKING:
    from sapper.port.finding import Scan
    from sapper.port.report.outcome import Outcome

FORMATS = ("concise", "full", "summary", "json", "sarif", "junit")
MOST_UNREAD = 10


@click.command("scan", help="port.scan.help")
@click.argument("path", type=click.Path(), default=".")
@click.option("--to", "to", multiple=True, metavar="TARGET,...", help="port.scan.option.to")
@click.option("--format", "fmt", type=click.Choice(FORMATS), default="concise", show_default=True, help="port.scan.option.format")
@click.option("-o", "--out", type=click.Path(), default=None, metavar="FILE", help="port.scan.option.out")
@click.option("--select", multiple=True, metavar="CODE,...", help="port.scan.option.select")
@click.option("--ignore", multiple=True, metavar="CODE,...", help="port.scan.option.ignore")
@click.option("--class", "classes", multiple=True, metavar="CLASS,...", help="port.scan.option.class")
@click.option("--standing", "standings", multiple=True, metavar="WORD,...", help="port.scan.option.standing")
@click.option("--exclude", multiple=True, metavar="GLOB", help="port.scan.option.exclude")
@click.option("--limit", type=click.IntRange(min=0), default=None, metavar="N", help="port.scan.option.limit")
@click.option("--baseline", type=click.Path(), default=None, metavar="FILE", help="port.scan.option.baseline")
@click.option("--write-baseline", type=click.Path(), default=None, metavar="FILE", help="port.scan.option.write_baseline")
@click.option("--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="port.scan.option.jobs")
def command(
    path: str, to: tuple[str, ...], fmt: str, out: str | None, select: tuple[str, ...], ignore: tuple[str, ...], classes: tuple[str, ...],
    standings: tuple[str, ...], exclude: tuple[str, ...], limit: int | None, baseline: str | None, write_baseline: str | None,
    jobs: int | None,
) -> int:  # fmt: skip
    """Exit code 1 where something ties (and no baseline knows it), 0 where nothing does, 2 where no file could be read."""
    from sapper.port import baseline as baselines
    from sapper.port.report import outcome as reports

    targets = reports.wanted_targets(to)
    choice = reports.wanted(select=select, ignore=ignore, classes=classes, standings=standings)
    before = baselines.read(Path(baseline)) if baseline else None
    scan = scanned(path, jobs=jobs, exclude=exclude)
    result = reports.outcome(scan, targets, choice=choice, baseline=before)
    _say(result)
    if write_baseline:
        written = baselines.write(Path(write_baseline), scan.findings)
        talk("port.scan.wrote_baseline", path=write_baseline, count=sum(one.count for one in written.known))
    _deliver(result, fmt, out=out, limit=limit)
    if scan.says_nothing:
        return 2
    return 1 if result.ties and not write_baseline else 0


def scanned(path: str, *, jobs: int | None, exclude: tuple[str, ...]) -> Scan:
    """Scan with a sign of life on a terminal, and say what was read."""
    import time

    from sapper.port.scan import scan

    began = time.perf_counter()
    with console(stderr=True).status(messages.text("port.scan.reading", path=path)):
        found = scan(Path(path), jobs=jobs, exclude=exclude)
    talk("port.scan.read", files=f"{found.files:,}", lines=f"{found.lines:,}", seconds=f"{time.perf_counter() - began:.1f}")
    return found


def _say(result: Outcome) -> None:
    """What could not be read, and comments that keep nothing, on stderr."""
    unread = result.scan.unread
    for one in unread[:MOST_UNREAD]:
        place = one.path if one.line is None else f"{one.path}:{one.line}"
        talk("port.scan.unread", place=printable(place), why=messages.text(one.code, **one.values), code=one.code)
    if len(unread) > MOST_UNREAD:
        talk("port.scan.more_unread", count=len(unread) - MOST_UNREAD)
    for keep in result.scan.unused_keeps:
        talk("SP-SCAN-005" if keep.code else "SP-SCAN-006", place=printable(f"{keep.path}:{keep.line}"), name=keep.code or "")
    if result.known:
        talk("port.scan.known", count=result.known)


def _deliver(result: Outcome, fmt: str, *, out: str | None, limit: int | None) -> None:
    """Print the report, or write it to ``out``."""
    import contextlib
    import io
    import json

    from sapper import files
    from sapper.cli import _scan_show
    from sapper.port.report import outcome as reports

    makers = {"json": reports.as_json, "sarif": reports.as_sarif, "junit": reports.as_junit}
    into = io.StringIO() if out is not None else sys.stdout
    with contextlib.redirect_stdout(into):
        if fmt in makers:
            text = makers[fmt](result)
            if fmt != "junit" and out is None and not is_unicode(sys.stdout):
                text = json.dumps(json.loads(text)) + "\n"  # with escapes of JSON's own
            into.write(text)
        else:
            _scan_show.show(result, fmt, limit=limit)
    if out is not None and isinstance(into, io.StringIO):
        files.write_atomic(out, into.getvalue())
        talk("port.scan.wrote", path=out)
