"""How many copies of which columns, so that the chips of every group suffice and the value is greatest.

The relaxation is solved by the revised simplex method (one row for each group, so that the basis is tiny) and gives the price of a
chip of each group; whole numbers follow by rounding down and filling what is left, or exactly by HiGHS where it is installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats, Ints


@dataclass(frozen=True)
class Relaxed:
    """The optimum over fractional copies."""

    value: float
    amounts: Floats
    """By column."""
    prices: Floats
    """Of one chip, by group."""


class Lines:
    """``amounts @ uses <= limits`` of one pool, asked again and again with other values: each time from the vertex of the last."""

    def __init__(self, uses: Ints, limits: Ints) -> None:
        """``uses`` is [columns, groups], and no column is free of chips."""
        groups = len(limits)
        self._rows = np.concatenate((uses, np.eye(groups))).astype(float)
        self._taken = self._rows.sum(axis=1)
        self._limits = limits.astype(float)
        self._basis = np.arange(len(uses), len(uses) + groups)
        self._inverse = np.eye(groups)
        self._amounts = self._limits.copy()

    def relax(self, values: Floats, *, rounds: int = 400) -> Relaxed:
        """Maximise ``values @ amounts``."""
        costs = np.concatenate((values, np.zeros(len(self._limits))))
        least = 1e-10 * max(1.0, float(values.max(initial=0.0)))
        for turn in range(rounds):
            gains = costs - self._rows @ (costs[self._basis] @ self._inverse)
            gains[self._basis] = 0.0
            # Bland's rule late, against cycling; the best gain for its chips before.
            late = turn > rounds // 2
            entering = int(np.argmax(gains > least)) if late else int(np.argmax(gains / self._taken))
            if gains[entering] <= least and not (gains > least).any():
                break
            if gains[entering] <= least:
                entering = int(np.argmax(gains > least))
            if not self._enter(entering):
                break
        found = np.zeros(len(costs))
        found[self._basis] = self._amounts
        prices = np.maximum(costs[self._basis] @ self._inverse, 0.0)
        return Relaxed(value=float(costs @ found), amounts=found[: len(values)], prices=prices)

    def _enter(self, entering: int) -> bool:
        """One pivot; False where nothing limits the column."""
        step = self._inverse @ self._rows[entering]
        ratios = np.where(step > 1e-12, self._amounts / np.where(step > 1e-12, step, 1.0), np.inf)
        leaving = int(np.argmin(ratios))
        if not np.isfinite(ratios[leaving]):
            return False
        self._basis[leaving] = entering
        pivot = self._inverse[leaving] / step[leaving]
        self._inverse = self._inverse - np.outer(step, pivot)
        self._inverse[leaving] = pivot
        self._amounts = np.maximum(self._inverse @ self._limits, 0.0)
        return True


def whole(values: Floats, uses: Ints, *, limits: Ints, relaxed: Relaxed) -> Ints:
    """Whole copies near ``relaxed``: rounded down, then the chips left are filled by the best of two greedy orders."""
    base = np.floor(relaxed.amounts + 1e-9).astype(np.int64)
    best, best_value = base, -1.0
    for worth in (values, values / np.maximum(uses @ np.maximum(relaxed.prices, 1e-12), 1e-12)):
        counts = base.copy()
        left = limits - counts @ uses
        while True:
            fitting = np.flatnonzero((uses <= left).all(axis=1) & (values > 0.0))
            if not len(fitting):
                break
            pick = int(fitting[np.argmax(worth[fitting])])
            more = int(np.min(left[uses[pick] > 0] // uses[pick][uses[pick] > 0]))
            counts[pick] += more
            left = left - more * uses[pick]
        value = float(values @ counts)
        if value > best_value:
            best, best_value = counts, value
    return best
