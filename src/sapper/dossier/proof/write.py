"""Write the pages of a proof, JUnit XML and JSON, each atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sapper import files, messages
from sapper.dossier.proof.junit import junit
from sapper.dossier.proof.page import page
from sapper.dossier.proof.summary import Report
from sapper.prove.results import Results


def write_pages(results: Results, report: Report, path: Path, *, lang: str) -> tuple[Path, ...]:
    """Write the page in ``lang`` to ``path`` and the other language's beside it; both are made before the first is written.

    Raises:
        BadFile: The system refuses to write.
        InputError: matplotlib, which draws the charts, is not installed.
    """
    other = next(one for one in messages.LANGUAGES if one != lang)
    places = {lang: path, other: path.with_name(f"{path.stem}.{other}{path.suffix or '.html'}")}
    contents = {
        where: page(results, report, one, other=places[other if one == lang else lang].name) for one, where in places.items()
    }  # fmt: skip
    for where, content in contents.items():
        files.write_atomic(where, content)
    return tuple(contents)


def write_junit(report: Report, path: Path, *, lang: str) -> None:
    """Write JUnit XML.

    Raises:
        BadFile: The system refuses to write.
    """
    files.write_atomic(path, junit(report, lang))


def as_json(report: Report, lang: str) -> dict[str, Any]:
    """The report as JSON, each sentence with its text in ``lang`` beside its code."""
    return dict(_spoken(msgspec.to_builtins(report), lang))


def _spoken(value: Any, lang: str) -> Any:
    if isinstance(value, dict):
        found = {name: _spoken(item, lang) for name, item in value.items()}
        if "code" in value and set(value) <= {"code", "values"}:
            values = {name: item.get("text", item) if isinstance(item, dict) else item for name, item in found.get("values", {}).items()}
            found["text"] = messages.text(value["code"], lang, **values)
        return found
    return [_spoken(item, lang) for item in value] if isinstance(value, list | tuple) else value
