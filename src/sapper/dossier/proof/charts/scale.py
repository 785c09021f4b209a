"""Logarithmic axes over errors, whose values span many decades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sapper import units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DECADES = 24


def log_axis(ax: Axes, values: Sequence[float]) -> float:
    """Make y logarithmic over whole decades around ``values``; returns its lower end."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    positive = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    high = math.ceil(math.log10(max(positive) * 1.3))
    low = max(math.floor(math.log10(min(positive) / 1.3)), high - MOST_DECADES)
    ax.set_yscale("log")
    ax.set_ylim(10.0**low, 10.0**high)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    return float(10.0**low)


def power(value: float) -> str:
    """``1e-6`` for small and large values, plain numbers between."""
    return f"{value:g}" if 1e-3 < value < 1e4 else f"1e{round(math.log10(value))}"


def shown(value: float | None) -> str:
    """An error or a ratio for a table."""
    if value is None:
        return "-"
    return units.significant(value, 2) if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.1e}"
