"""What a scan finds: a coupling to CUDA at a place, by a rule."""

from __future__ import annotations

from typing import Literal

import msgspec

Standing = Literal["ties", "guarded", "vendor", "kept"]
"""``ties``: the code needs CUDA. ``guarded``: it runs only where CUDA was asked for and found, and something else runs
elsewhere. ``vendor``: a file, class or branch that is CUDA's own, beside others for other chips. ``kept``: the author
said so by ``# sapper: keep SP-...``. Only ``ties`` makes the exit code 1."""

Context = Literal["code", "test", "build", "config", "kernel"]
"""Where the line lives; effort weighs them apart."""


class Place(msgspec.Struct, frozen=True, order=True):
    """A span of a file. Lines count from 1, columns from 0, in characters (not bytes); the end is exclusive."""

    path: str
    """Relative to the scanned root, with forward slashes."""
    line: int
    column: int
    end_line: int
    end_column: int
    cell: int | None = None
    """Of a notebook: the cell, from 1; lines then count inside the cell."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One coupling.

    A line that only carries what another line asked CUDA for (a variable, a helper of the project) is a finding of its
    own, with ``because`` naming where the coupling comes from.
    """

    code: str
    """Of the rule, such as ``SP-PORT-101``."""
    place: Place
    symbol: str
    """What ties: a qualified name (``torch.cuda.synchronize``), a literal (``"cuda:0"``), a package (``flash-attn``)."""
    excerpt: str
    """The source line of the place's start, without its line end."""
    standing: Standing = "ties"
    context: Context = "code"
    because: str | None = None
    """``path:line`` of what makes this line a coupling, where the line does not say so itself."""
    values: dict[str, str] = {}
    """More for the rule's texts and for verdicts, such as ``package`` or ``version``."""


class Unread(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file, or a part of one, that could not be read as its language; ``code`` is a message code of the catalogue."""

    path: str
    code: str
    line: int | None = None
    values: dict[str, str] = {}
    scanned: Literal["not", "partly"] = "not"


class UnusedKeep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A comment ``# sapper: keep CODE`` that keeps nothing: the coupling is gone, or the code is misspelt or missing (None)."""

    path: str
    line: int
    code: str | None
    cell: int | None = None


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scan, as ``--format json`` prints it (with verdicts beside)."""

    root: str
    findings: tuple[Finding, ...]
    """By path, line, column, code; none twice."""
    unread: tuple[Unread, ...]
    files: int
    """Files of a language that we read, whether or not something was found."""
    lines: int
    by_language: dict[str, int]
    """Lines by language."""
    unused_keeps: tuple[UnusedKeep, ...] = ()

    @property
    def unscanned(self) -> int:
        """How many files (and folders) could not be read at all."""
        return sum(one.scanned == "not" for one in self.unread)

    @property
    def says_nothing(self) -> bool:
        """Whether there were files and none could be read: then that nothing was found says nothing."""
        return self.unscanned > 0 and self.unscanned >= self.files and not self.findings
