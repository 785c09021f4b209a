"""What is kept about a repro script."""

from __future__ import annotations

import msgspec


class Repro(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A script that shows one finding alone, or why there is none."""

    path: str | None
    """Of the script; None where none shows the finding."""
    lines: int = 0
    reproduced: bool = False
    """Whether the script, as it lies there, showed the defect in a fresh process."""
    tries: int = 0
    """Scripts that were run to find it."""
    check: str | None = None
    """How the defect shows, as :data:`sapper.prove.repro.script.Check`."""
    ops: tuple[str, ...] = ()
    """What it computes, as ``aten::name.overload``."""
    wall_s: float = 0.0
    reason: str | None = None
    """Message code of why there is no script, or none that reproduced."""
    said: str | None = None
    """What the verifying run printed."""
