"""What becomes of a coupling on a target: one cell of the matrix findings x targets.

The tables and the search in them are :mod:`sapper.port.verdicts`. A cell without a row is unknown, and said so.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["works", "shim", "rewrite", "library", "kernel", "none", "unknown"]
"""``works``: unchanged, the stack presents itself as CUDA or knows the name. ``shim``: through the vendor's run-time
redirection. ``rewrite``: after a rewrite to neutral code. ``library``: a replacement library, which is named.
``kernel``: kernel work, of the kind that is named. ``none``: no known way. ``unknown``: no source was read."""

Silence = Literal["loud", "slower", "inexact", "silent"]
"""What one sees if nothing is done: ``loud``: it fails. ``slower``: it runs, and loses speed. ``inexact``: it runs, and
computes otherwise. ``silent``: it runs on another path (mostly the CPU's), and says nothing."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one finding on one target."""

    status: Status
    silence: Silence | None = None
    """If the code is left as it is and the vendor's shim is not loaded; None is unknown, or ``works``: nothing is lost."""
    equivalent: str | None = None
    """What takes its place: a library, an API, a kind of kernel work."""
    note_en: str | None = None
    note_zh: str | None = None
    source: str | None = None
    """URL that was read; None where none was, and then ``status`` is ``unknown``."""
    date: str | None = None
    silence_source: str | None = None
    """Where ``silence`` rests on a source of its own."""
    silence_date: str | None = None


UNKNOWN = Cell(status="unknown")
