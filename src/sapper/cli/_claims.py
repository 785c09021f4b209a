"""What ``sapper validate --claims`` prints: the rows that cannot be taken at their word, and what could not be checked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sapper import messages
from sapper.cli.output import Column, emit, emit_json

if TYPE_CHECKING:
    from sapper.predict.claims import Checked
    from sapper.predict.rows import Rows
    from sapper.predict.rows.row import Row

_FOUND = [
    Column("id", "claims.row"),
    Column("chip", "claims.chip"),
    Column("claimed", "claims.value"),
    Column("kind", "claims.what", show=lambda kind: messages.text(f"claims.kind.{kind}")),
    Column("code", "claims.code"),
    Column("reason", "claims.reason"),
]
_FOUND_CSV = [
    Column("id", "claims.row"), Column("chip", "claims.chip"), Column("value", "claims.value"), Column("unit", "claims.unit"),
    Column("kind", "claims.what"), Column("code", "claims.code"), Column("reason", "claims.reason"),
]
_GAPS = [Column("count", "claims.count", "right"), Column("code", "claims.code"), Column("lacks", "claims.lacks")]
_KNOWN_LACKS = ("chip", "n_chips", "model", "speculation", "prefix_cache", "metric")


def emit_claims(given: Rows, checked: Checked, *, fmt: str) -> None:
    """Print the checker's answer for the rows of ``given``."""
    by_id = {row.id: row for row in given.rows}
    found = [_line(by_id[finding.row_id], finding.code, finding.kind, finding.text) for finding in checked.findings]
    if fmt == "json":
        emit_json(
            {
                "file": given.path, "rows": checked.rows, "flagged": len(checked.flagged), "findings": found,
                "gaps": [msgspec.to_builtins(gap) | {"reason": lacking(gap.lacks)} for gap in checked.gaps],
                "refused": [{"line": one.line, "id": one.row_id, "code": one.code, "reason": one.text} for one in given.refused],
            },
        )
    elif fmt == "csv":
        emit(found, _FOUND_CSV, fmt=fmt)
    else:
        _table(checked, found)


def _line(row: Row, code: str, kind: str, reason: str) -> dict[str, Any]:
    return {
        "id": row.id, "chip": row.chip, "value": row.value, "unit": row.unit, "claimed": f"{row.value:,.6g} {row.unit}", "kind": kind,
        "code": code, "reason": reason,
    }


def _table(checked: Checked, found: list[dict[str, Any]]) -> None:
    count = len(checked.flagged)
    if found:
        emit(found, _FOUND, fmt="table", title=messages.text("claims.flagged", flagged=count, rows=checked.rows))
    else:
        click.echo(messages.text("claims.none", rows=checked.rows))
    if checked.gaps:
        click.echo()
        counted = Counter((gap.rule, gap.lacks) for gap in checked.gaps)
        lines = [{"count": number, "code": rule, "lacks": lacking(lacks)} for (rule, lacks), number in counted.most_common()]
        emit(lines, _GAPS, fmt="table", title=messages.text("claims.gaps"))


def lacking(field: str) -> str:
    """What a rule lacked, in the user's language."""
    return messages.text(f"claims.lack.{field}") if field in _KNOWN_LACKS else messages.text("claims.lack.field", field=field)
