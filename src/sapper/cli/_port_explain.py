"""``sapper port explain``: a rule's page, with what becomes of its coupling on each target."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, format_option

if TYPE_CHECKING:
    from sapper.port.rule import Rule

_COLUMNS = [
    Column("code", "port.column.code"),
    Column("class", "port.column.class"),
    Column("silent", "port.column.silent"),
    Column("fix", "port.column.fix"),
    Column("title", "port.column.title"),
]


@click.command("explain", help="port.explain.help")
@click.argument("code", required=False)
@format_option
def command(code: str | None, fmt: str) -> None:
    """Print the page of one rule, or list all rules."""
    from sapper.port.rule import rules

    if code is None:
        emit([_row(rule) for rule in rules().values()], _COLUMNS, fmt=fmt)
    else:
        explain(code, fmt)


def explain(code: str, fmt: str) -> None:
    """The page of the rule ``code`` as Markdown, its data as JSON, or its row as CSV.

    Raises:
        UnknownName: SP-SCAN-002, with near codes.
    """
    from sapper.errors import UnknownName
    from sapper.port.report import rulepage
    from sapper.port.rule import rules

    wanted = code.strip("[]`").upper()
    if wanted not in rules():
        near = difflib.get_close_matches(wanted, rules(), n=3) or list(rules())[:3]
        raise UnknownName("SP-SCAN-002", name=code, near=", ".join(f"`{item}`" for item in near))
    rule = rules()[wanted]
    if fmt == "json":
        emit_json({"rule": rule, "verdicts": rulepage.cells(rule)})
    elif fmt == "csv":
        emit([_row(rule)], _COLUMNS, fmt=fmt)
    else:
        click.echo(rulepage.markdown(rule, messages.language(), level=1), nl=False)


def _row(rule: Rule) -> dict[str, Any]:
    from sapper.port.report.rulepage import title

    return {"code": rule.code, "name": rule.name, "class": rule.klass, "silent": rule.silent, "fix": rule.fix, "title": title(rule)}
