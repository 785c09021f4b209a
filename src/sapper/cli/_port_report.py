"""``sapper port report``: the picture of a port as a page in both languages."""

from __future__ import annotations

from pathlib import Path

import click

from sapper import messages
from sapper.cli._port_scan import scanned
from sapper.cli.output import talk


@click.command("report", help="port.report.help")
@click.argument("path", type=click.Path(), default=".")
@click.option("--to", "to", multiple=True, metavar="TARGET,...", help="port.scan.option.to")
@click.option(
    "-o", "--out", type=click.Path(), default="port.html", show_default=True, metavar="FILE.html", help="port.report.option.out"
)
@click.option("--select", multiple=True, metavar="CODE,...", help="port.scan.option.select")
@click.option("--ignore", multiple=True, metavar="CODE,...", help="port.scan.option.ignore")
@click.option("--exclude", multiple=True, metavar="GLOB", help="port.scan.option.exclude")
@click.option("--baseline", type=click.Path(), default=None, metavar="FILE", help="port.scan.option.baseline")
@click.option("--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="port.scan.option.jobs")
def command(
    path: str, to: tuple[str, ...], out: str, select: tuple[str, ...], ignore: tuple[str, ...], exclude: tuple[str, ...],
    baseline: str | None, jobs: int | None,
) -> int:  # fmt: skip
    """Exit code 1 where something ties, 0 where nothing does."""
    from sapper.dossier.port.write import write_pages
    from sapper.port import baseline as baselines
    from sapper.port.report import outcome as reports

    targets = reports.wanted_targets(to)
    choice = reports.wanted(select=select, ignore=ignore, classes=(), standings=())
    before = baselines.read(Path(baseline)) if baseline else None
    result = reports.outcome(scanned(path, jobs=jobs, exclude=exclude), targets, choice=choice, baseline=before)
    written = write_pages(result, Path(out), lang=messages.language(), name=Path(path).resolve().name)
    talk("port.scan.wrote", path=", ".join(map(str, written)))
    return 1 if result.ties else 0
