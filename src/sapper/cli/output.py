"""What every verb prints with: listings as table, JSON or CSV on stdout, and talk on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

from sapper import messages
from sapper.cli._help import printable

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "json", "csv")


@dataclass(frozen=True)
class Column:
    """A column of a listing.

    Args:
        key: Key of the row's mapping; the name in JSON and CSV.
        label: Message code of the heading in tables.
        align: Numbers stand right.
        show: Makes the text of a table's cell from the raw value (never called with None).
    """

    key: str
    label: str
    align: Literal["left", "right"] = "left"
    show: Callable[[Any], str] | None = None


def format_option(function: F) -> F:
    """Adds ``--format table|json|csv``, given to the function as ``fmt``."""
    option = click.option("--format", "fmt", type=click.Choice(FORMATS), default="table", show_default=True, help="cli.option.format")
    return option(function)


def emit(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, fmt: str, title: str | None = None) -> None:
    """Print a listing to stdout.

    Args:
        rows: Raw values by key; None is unknown.
        columns: What a table and a CSV show, in this order. JSON has every key of the rows.
        fmt: ``table``, ``json`` or ``csv``.
        title: Heading of the table, already in the user's language.
    """
    if fmt == "json":
        emit_json([dict(row) for row in rows])
    elif fmt == "csv":
        _write(_csv(rows, columns))
    else:
        _emit_table(rows, columns, title)


def emit_json(obj: Any) -> None:
    """Print anything that msgspec encodes (structs, mappings, sequences) as indented JSON."""
    import msgspec

    raw = msgspec.json.format(msgspec.json.encode(obj, enc_hook=str), indent=2).decode("utf-8")
    # Where stdout is not Unicode (LANG=C, an old Windows console) JSON has escapes of its own, and no reader sees a difference.
    _write((raw if is_unicode(sys.stdout) else json.dumps(json.loads(raw), indent=2)) + "\n")


def talk(code: str, /, **values: Any) -> None:
    """Print the message ``code`` to stderr: progress, warnings, what was written."""
    click.echo(messages.text(code, **values), err=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console for stdout (or stderr): colour only on a terminal, and no cropping where it is none."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else 400
    return Console(file=stream, width=width, highlight=False, emoji=False, soft_wrap=False)


def _emit_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(Text(messages.text(column.label)), justify=column.align, overflow="fold")
    unknown = messages.text("cli.unknown")
    for row in rows:
        table.add_row(*(Text(printable(_cell(row.get(column.key), column, unknown))) for column in columns))
    print_rich(table)


def print_rich(renderable: Any) -> None:
    """Print a rich renderable to stdout; where that is no terminal, without colour and without spaces at line ends."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as captured:
        target.print(renderable)
    _write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _cell(value: Any, column: Column, unknown: str) -> str:
    if value is None:
        return unknown
    if column.show is not None:
        return column.show(value)
    if isinstance(value, bool):
        return messages.text("cli.yes" if value else "cli.no")
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    writer.writerows([_raw(row.get(column.key)) for column in columns] for row in rows)
    return buffer.getvalue()


def _raw(value: Any) -> Any:
    import msgspec

    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, (str, int, float)):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode("utf-8")


def _write(text: str) -> None:
    # Not click.echo: it strips what looks like an escape sequence, and data must come out as it went in.
    sys.stdout.write(text)


def is_unicode(stream: IO[str]) -> bool:
    """Whether ``stream`` can show any character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")
