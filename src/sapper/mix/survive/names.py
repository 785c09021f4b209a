"""What the launcher and its workers tell each other without a message: variables, an exit code."""

from __future__ import annotations

RANK, MEET, DOORS, GROUP, MACHINE = (f"SAPPER_MIX_{name}" for name in ("RANK", "MEET", "DOORS", "GROUP", "MACHINE"))
"""Variables by which the launcher tells a worker who it is."""
OUTCAST = 75
"""Exit code of a worker that the others go on without: it may come again (``EX_TEMPFAIL`` of sysexits.h)."""
