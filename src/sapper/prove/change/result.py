"""What a proof of changes leaves behind: ``change.jsonl``, a header and one line for each edit."""

from __future__ import annotations

import msgspec

from sapper.prove.change.edit import ORIGINAL, Edit, Setting, Size
from sapper.prove.repro import Repro
from sapper.prove.verdict import RED, Outcome

FORMAT = "sapper-prove-change"
VERSION = 2
NAME = "change.jsonl"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line of ``change.jsonl``: what was asked, and with which versions."""

    format: str
    version: int
    sapper: str
    date: str
    """When it was begun, ISO 8601."""
    setting: Setting
    digest: str
    """SHA-256 of the target."""
    versions: dict[str, str]
    edits: tuple[Edit, ...]
    """Those that are tried, in this order."""
    left_out: tuple[str, ...]
    """Ids of edits that there are and that were not asked for."""
    dropout_off: int
    """Modules whose dropout is off on both sides."""


class Smallest(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest program that fails in the same way under the same edit."""

    size: Size
    edit: Edit
    """The edit itself, made smaller where it is a length or a number of samples."""
    tries: int
    repro: Repro | None = None


class EditResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one edit."""

    id: str
    edit: Edit
    outcome: Outcome
    stage: str = ""
    label: str | None = None
    """Output, gradient or op's output that is worst."""
    ratio: float | None = None
    said: str | None = None
    """The stack's or the program's own words."""
    where: str | None = None
    op: str | None = None
    """The first op that is wrong by itself."""
    outputs: int = 0
    wall_s: float = 0.0
    smallest: Smallest | None = None


class ChangeProof(msgspec.Struct, frozen=True, kw_only=True):
    """The file, read back."""

    header: Header
    results: tuple[EditResult, ...]

    def survival(self) -> dict[str, dict[str, int]]:
        """Edits by family and outcome."""
        found: dict[str, dict[str, int]] = {}
        for one in self.results:
            row = found.setdefault(one.edit.family, {})
            row[one.outcome] = row.get(one.outcome, 0) + 1
        return found

    def unedited(self) -> EditResult | None:
        """The program as it is; None where the file was begun and not that far."""
        return next((one for one in self.results if one.id == ORIGINAL.id), None)

    def alike(self) -> list[EditResult]:
        """Edits that fail as the program does without any: they say nothing of the edit."""
        original = self.unedited()
        if original is None or original.outcome not in RED:
            return []
        return [one for one in self.results if one is not original and (one.outcome, one.op) == (original.outcome, original.op)]
