"""A rewrite of one coupling: its pieces, its grade, and what it needs at the top of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sapper.port.fix.text import Piece, Span

Grade = Literal["safe", "unsafe", "display"]
GRADES: tuple[Grade, ...] = ("safe", "unsafe", "display")
"""From what is always applied to what is only shown."""


@dataclass(frozen=True)
class Need:
    """A statement that has to stand at the top of the module, and the name that it binds there."""

    statement: str
    """``from package import helper``, or the assignments of a prelude; lines parted by LF."""
    name: str
    after_torch: bool = False
    """Whether it uses ``torch``, and so has to stand below its import."""


@dataclass(frozen=True)
class Expression:
    """Source of an expression that a policy gives, with what it needs."""

    text: str
    needs: tuple[Need, ...] = ()
    torch: tuple[int, int] | None = None
    """Oldest PyTorch that has what ``text`` names; None where any will do."""


@dataclass(frozen=True)
class Change:
    """One rewrite. ``pieces`` may be empty for one that is only shown."""

    symbol: str
    """What ties, as a finding has it: ``torch.cuda.synchronize``, ``"cuda"``, ``.cuda()``."""
    anchor: Span
    """The expression or statement that the pieces change; syntax outside of it stays equal."""
    pieces: tuple[Piece, ...]
    grade: Grade = "safe"
    needs: tuple[Need, ...] = ()
    torch: tuple[int, int] | None = None
    binding: str | None = None
    """Imported name that the rewritten code still uses, in the meaning that its changed import gives it."""
    despite: bool = False
    """Whether it is made although the scan calls the place another vendor's: the only one beside CUDA is ``mps``."""
    removes: bool = False
    """Whether the statement of the anchor goes as a whole."""
