"""bars: the promises of predict, each measured today on the rows that ship.

A bar is a figure with a target. None is computed from a prior that saw the chip (or vendor, or source) in question.
"""

from __future__ import annotations

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.bars.run import Bars, bars

__all__ = ["Bar", "Bars", "Figure", "bars"]
