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


class Cell(msgspec.Struct, frozen=True):
    """Where a code cell of a notebook stands in the text of its source."""

    number: int
    """Of the cell in the notebook, from 1, Markdown cells counted."""
    first_line: int
    """In the text, from 1."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file in memory."""

    path: str
    """Relative to the scanned root, with forward slashes."""
    language: Language
    text: str
    """Decoded; line ends as they are in the file (``fix`` writes them back).

    Of a notebook: its code cells as one Python module, each cell's lines after the other's; lines that IPython or a shell
    runs are ``pass``, at the same place.
    """
    encoding: str = "utf-8"
    """As a codec's name; ``utf-8-sig`` where the file has a byte-order mark."""
    cells: tuple[Cell, ...] = ()
    """Of a notebook; empty otherwise."""
    shell: str = ""
    """Of a notebook: what a shell runs, at the lines and columns where it stands in ``text``, all else blank."""
