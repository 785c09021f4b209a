"""``sapper explain``: what the code of an error or a warning means."""

from __future__ import annotations

import difflib
import re

import click

from sapper import messages
from sapper.cli import _port_explain
from sapper.cli.output import Column, emit, emit_json, format_option
from sapper.errors import UnknownName


@click.command("explain", help="cli.help.explain.long")
@click.argument("code", required=False)
@format_option
def command(code: str | None, fmt: str) -> None:
    """Print the text of one code, or list all codes."""
    known = [name for name in messages.codes() if name.startswith("SP-")]
    if code is None:
        rows = [{"code": name, "text": _open(messages.entry(name)[messages.language()])} for name in known]
        emit(rows, [Column("code", "cli.explain.code"), Column("text", "cli.explain.text")], fmt=fmt)
        return
    name = code.strip("[]`").upper()
    if name.startswith("SP-PORT-"):  # a rule of the scan, which has a page of its own
        _port_explain.explain(name, fmt)
        return
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or known[:1]
        raise UnknownName("SP-CLI-005", code=code, near=", ".join(f"`{item}`" for item in near))
    texts = messages.entry(name)
    step = texts.get(f"next_{messages.language()}")
    if fmt == "json":
        emit_json({"code": name, **texts})
    elif fmt == "csv":
        emit([{"code": name, **texts}], [Column("code", "cli.explain.code")] + [Column(key, "cli.explain.text") for key in texts], fmt=fmt)
    else:
        click.echo(f"{name}: {_open(texts[messages.language()])}")
        if step:
            click.echo(messages.text("cli.explain.next", step=_open(step)))


def _open(template: str) -> str:
    """A template with its placeholders as a reader expects them: ``{name}`` as ``<name>``."""
    return re.sub(r"\{(\w+)[^}]*\}", r"<\1>", template)
