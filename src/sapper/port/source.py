"""A file as text, with what was needed to read it; nothing here knows a rule."""

from __future__ import annotations

from typing import Literal

import msgspec

Language = Literal[
    "python",
    "notebook",
    "cuda",
    "cpp",
    "docker",
    "requirements",
    "pyproject",
    "setup",
    "conda",
    "shell",
    "yaml",
    "cmake",
    "make",
    "config",
]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file in memory."""

    path: str
    """Relative to the scanned root, with forward slashes."""
    language: Language
    text: str
    """Decoded; line ends as they are in the file (``fix`` writes them back)."""
    encoding: str = "utf-8"
    """As a codec's name; ``utf-8-sig`` where the file has a byte-order mark."""
