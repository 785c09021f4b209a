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


def relax(values: Floats, uses: Ints, *, limits: Ints, rounds: int = 400) -> Relaxed:
    """Maximise ``values @ amounts`` with ``amounts @ uses <= limits``; ``uses`` is [columns, groups] and no column is free of chips."""
    groups = len(limits)
    costs = np.concatenate((values, np.zeros(groups)))
    rows = np.concatenate((uses, np.eye(groups))).astype(float)
    basis = np.arange(len(values), len(values) + groups)
    inverse = np.eye(groups)
    amounts = limits.astype(float)
    for turn in range(rounds):
        prices = costs[basis] @ inverse
        gains = costs - rows @ prices
        gains[basis] = 0.0
        better = np.flatnonzero(gains > 1e-10 * max(1.0, float(np.abs(costs).max(initial=0.0))))
        if not len(better):
            break
        # Bland's rule late, against cycling; the best gain for its chips before.
        entering = int(better[0]) if turn > rounds // 2 else int(better[np.argmax(gains[better] / rows[better].sum(axis=1))])
        step = inverse @ rows[entering]
        ratios = np.where(step > 1e-12, amounts / np.where(step > 1e-12, step, 1.0), np.inf)
        leaving = int(np.argmin(ratios))
        if not np.isfinite(ratios[leaving]):
            break
        basis[leaving] = entering
        pivot = inverse[leaving] / step[leaving]
        inverse = inverse - np.outer(step, pivot)
        inverse[leaving] = pivot
        amounts = np.maximum(inverse @ limits, 0.0)
    found = np.zeros(len(costs))
    found[basis] = amounts
    prices = np.maximum(costs[basis] @ inverse, 0.0)
    return Relaxed(value=float(costs @ found), amounts=found[: len(values)], prices=prices)


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
