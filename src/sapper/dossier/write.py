"""Write the pages and the JSON of an Assessment, each atomically."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sapper import files
from sapper.assess.assessment import Assessment
from sapper.dossier.page import page


def slug(model: str) -> str:
    """A model's name as part of a file name: ``Qwen/Qwen2.5-7B`` is ``qwen2.5-7b``."""
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.") or "model"


def write_dossier(assessment: Assessment, folder: Path, *, languages: Sequence[str] = ("en", "zh")) -> tuple[Path, ...]:
    """Write ``assess-<model>.<lang>.html`` for each language and ``assess-<model>.json``; return their paths.

    All pages are made before the first file is written, so that a failure leaves nothing behind.

    Raises:
        BadFile: The system refuses to make the folder or to write.
        InputError: matplotlib, which draws the charts, is not installed.
    """
    stem = f"assess-{slug(assessment.asked.model)}"
    pages = {lang: f"{stem}.{lang}.html" for lang in languages}
    contents: dict[str, str | bytes] = {}
    for lang, name in pages.items():
        other = next((file for known, file in pages.items() if known != lang), None)
        contents[name] = page(assessment, lang, other=other)
    contents[f"{stem}.json"] = msgspec.json.format(msgspec.json.encode(assessment), indent=1)
    written = []
    for name, content in contents.items():
        files.write_atomic(folder / name, content)
        written.append(folder / name)
    return tuple(written)
