"""The runtime's own order of work on a simulated clock: what each seat does when, for a plan that may be too large to run here."""

from __future__ import annotations

from sapper.mix.simulate.clock import Event, Timeline, simulate

__all__ = ["Event", "Timeline", "simulate"]
