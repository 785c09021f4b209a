"""``sapper prove report``: one page, JUnit and JSON from a folder of proofs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.dossier.proof.summary import Found, Report

MOST_FOUND = 12
MOST_GAPS = 8

_FOUND = [
    Column("op", "proof.column.op"),
    Column("part", "proof.column.part"),
    Column("outcome", "proof.column.outcome"),
    Column("blame", "proof.column.blame"),
    Column("count", "proof.column.cases", "right"),
    Column("why", "proof.column.why"),
    Column("repro", "proof.column.repro"),
]


@click.command("report", help="prove.report.help")
@click.argument("folder", metavar="[DIR]", default="proof", type=click.Path())
@click.option("-o", "--out", type=click.Path(), default=None, metavar="FILE.html", help="prove.report.option.out")
@click.option("--junit", type=click.Path(), default=None, metavar="FILE.xml", help="prove.report.option.junit")
@click.option("--no-page", is_flag=True, help="prove.report.option.no_page")
@click.option("--json", "as_json", is_flag=True, help="prove.report.option.json")
def command(folder: str, out: str | None, junit: str | None, no_page: bool, as_json: bool) -> int:
    """Exit code 1 where the verdict is red, 2 where nothing can be said."""
    from sapper.dossier.proof import write
    from sapper.dossier.proof.summary import summarised
    from sapper.prove.results import read

    results = read(Path(folder))
    report, lang = summarised(results), messages.language()
    written: list[Path] = []
    if not no_page:
        written += write.write_pages(results, report, Path(out) if out else Path(folder) / "proof.html", lang=lang)
    if junit is not None:
        write.write_junit(report, Path(junit), lang=lang)
        written.append(Path(junit))
    if as_json:
        emit_json(write.as_json(report, lang))
    else:
        _print(report)
    if written:
        talk("prove.report.wrote", paths=", ".join(map(str, written)))
    return {"red": 1, "green": 0, "unproven": 2}[report.verdict]


def _print(report: Report) -> None:
    """Verdict and blame, what was not covered, items, findings."""
    from sapper.dossier.proof.page import lead, title

    lang, text = messages.language(), messages.text
    click.echo(title(report, lang))
    click.echo(f"{text(f'proof.verdict.{report.verdict}')}{text('proof.space')}{lead(report, lang)}")
    if report.not_covered:
        click.echo(text("prove.report.uncovered"))
        for gap in report.not_covered[:MOST_GAPS]:
            click.echo(f"  - {gap.text()}")
        _more(len(report.not_covered) - MOST_GAPS)
    answers = [check.answer for check in report.checks]
    click.echo(text("prove.report.items", passed=answers.count("pass"), failed=answers.count("fail"), unknown=answers.count("unknown")))
    if report.found:
        click.echo()
        emit([_row(one) for one in report.found[:MOST_FOUND]], _FOUND, fmt="table")
        _more(len(report.found) - MOST_FOUND)


def _more(count: int) -> None:
    if count > 0:
        click.echo(f"  {messages.text('prove.report.more', count=count)}")


def _row(one: Found) -> dict[str, Any]:
    from sapper.dossier.proof.tables import why_of
    from sapper.prove.words import blame, outcome

    place = f" ({one.where})" if one.where else ""
    return {
        "op": f"{one.op}{place}", "part": messages.text(f"proof.part.{one.part}"), "outcome": outcome(one.outcome),
        "blame": blame(one.blame) if one.blame else "-", "count": one.count, "why": why_of(one, messages.language()),
        "repro": one.repro or "-",
    }  # fmt: skip
