"""Emulate: unlike chips and slow links from one machine's like cores, so that a mix can be run, timed and broken without the chips.

A process is held to a share of a core by a quota of the kernel, by stopping and continuing it, or by sleeping in it; each result
carries which of them was used, because they are not equally honest (docs/testing.md has the table). Nothing here imports PyTorch.
"""

from __future__ import annotations

from sapper.mix.emulate.limits import Allowed, Limits, Link, Used
from sapper.mix.emulate.pace import Pace, Toll
from sapper.mix.emulate.probe import probe
from sapper.mix.emulate.world import Started, World

__all__ = ["Allowed", "Limits", "Link", "Pace", "Started", "Toll", "Used", "World", "probe"]
