"""Milp: least cost of whole numbers of things under linear limits, with the gap that is proven.

HiGHS (``highspy``, the extra ``mix``) where it is installed; otherwise branch and bound on a dense simplex, which is exact too and
quick at the size of these questions (some tens of unknowns).
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Bools, Floats

GAP = 1e-6
"""Relative difference of cost and bound at which a solution counts as proven."""
WHOLE = 1e-6
"""Distance from a whole number below which a value counts as one."""
TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Program:
    """min ``cost`` x with ``at_most`` x <= ``limits``, 0 <= x <= ``upper``, x whole where ``whole``."""

    cost: Floats
    at_most: Floats
    """Rows are limits, columns unknowns."""
    limits: Floats
    upper: Floats
    whole: Bools


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The cheapest found, and what no solution beats."""

    values: Floats
    cost: float
    bound: float
    solver: str
    """``highs`` or ``branch-and-bound``."""

    @property
    def gap(self) -> float:
        """By how much, relative to the cost, a better solution may be cheaper; 0: none is."""
        return max(0.0, (self.cost - self.bound) / self.cost) if self.cost > 0 else 0.0


def solve(program: Program, *, time_s: float = 10.0, highs: bool | None = None) -> Solution | None:
    """The cheapest solution, or None where there is none.

    Args:
        program: What is asked.
        time_s: After which the best found so far is returned with its gap.
        highs: Whether to use HiGHS; None: where it is installed.
    """
    if highs if highs is not None else importlib.util.find_spec("highspy") is not None:
        return _highs(program, time_s)
    return _branch(program, time_s)


def _highs(program: Program, time_s: float) -> Solution | None:
    import highspy

    with _muted():  # it prints its name to the process's own stdout, before any option can say no
        model = highspy.Highs()
    model.silent()
    model.setOptionValue("time_limit", time_s)
    model.setOptionValue("mip_rel_gap", GAP)
    model.setOptionValue("threads", 1)
    count = len(program.cost)
    model.addVars(count, np.zeros(count), np.where(np.isfinite(program.upper), program.upper, highspy.kHighsInf))
    for at in range(count):
        model.changeColCost(at, float(program.cost[at]))
        if program.whole[at]:
            model.changeColIntegrality(at, highspy.HighsVarType.kInteger)
    for row, limit in zip(program.at_most, program.limits, strict=True):
        index = np.flatnonzero(row).astype(np.int32)
        model.addRow(-highspy.kHighsInf, float(limit), len(index), index, row[index])
    model.run()
    if model.getInfo().primal_solution_status != 2:  # kSolutionStatusFeasible
        return None
    values = np.array(model.getSolution().col_value, float)
    cost = float(program.cost @ values)
    bound = float(model.getInfo().mip_dual_bound) if program.whole.any() else cost
    return Solution(values=values, cost=cost, bound=min(cost, bound), solver="highs")


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Nothing written to file descriptor 1 meanwhile reaches anybody."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _branch(program: Program, time_s: float) -> Solution | None:
    """Best-first branch and bound: each node tightens the bounds of one unknown."""
    end = time.monotonic() + time_s
    count = len(program.cost)
    first = _relaxed(program, np.zeros(count), program.upper)
    if first is None:
        return None
    best: Floats | None = None
    least = math.inf
    queue: list[tuple[float, int, Floats, Floats, Floats]] = [(first[0], 0, first[1], np.zeros(count), program.upper)]
    numbered = 0
    while queue and queue[0][0] < least - GAP * abs(least if best is not None else 1.0):
        if time.monotonic() > end and best is not None:
            break
        bound, _, values, low, high = heapq.heappop(queue)
        part = np.where(program.whole, np.abs(values - np.rint(values)), 0.0)
        at = int(part.argmax())
        if part[at] < WHOLE:
            if bound < least:
                best, least = np.where(program.whole, np.rint(values), values), bound
            continue
        for side in (0, 1):
            lower, upper = low.copy(), high.copy()
            if side:
                lower[at] = math.floor(values[at]) + 1.0
            else:
                upper[at] = math.floor(values[at])
            found = _relaxed(program, lower, upper)
            if found is not None and found[0] < least:
                numbered += 1
                heapq.heappush(queue, (found[0], numbered, found[1], lower, upper))
    if best is None:
        return None
    bound = min([least, *(entry[0] for entry in queue[:1])])
    return Solution(values=best, cost=float(program.cost @ best), bound=bound, solver="branch-and-bound")


def _relaxed(program: Program, low: Floats, high: Floats) -> tuple[float, Floats] | None:
    """(cost, values) of the program without whole numbers; None where the limits exclude each other."""
    if np.any(high < low):
        return None
    bounded = np.isfinite(high)
    rows = np.vstack([program.at_most, np.eye(len(low))[bounded]])
    limits = np.concatenate([program.limits - program.at_most @ low, (high - low)[bounded]])
    values = _simplex(program.cost, rows, limits)
    if values is None:
        return None
    shifted = values + low
    return float(program.cost @ shifted), shifted


def _simplex(cost: Floats, rows: Floats, limits: Floats) -> Floats | None:
    """X >= 0 of least ``cost`` x (costs >= 0) with ``rows`` x <= ``limits``: the dual simplex method from the slack basis, which such
    costs make dual feasible; Bland's rule on ties. None where no x keeps the limits."""
    count, width = rows.shape
    table = np.hstack([rows, np.eye(count), limits[:, None]]).astype(float)
    reduced = np.concatenate([cost, np.zeros(count + 1)])
    basis = np.arange(width, width + count)
    for _ in range(200 * (count + width)):
        out = int(table[:, -1].argmin())
        if table[out, -1] >= -TINY:
            values = np.zeros(width + count)
            values[basis] = table[:, -1]
            return values[:width]
        row = table[out, :-1]
        down = np.flatnonzero(row < -TINY)
        if not len(down):
            return None
        ratios = reduced[down] / -row[down]
        into = int(down[ratios <= ratios.min() + TINY][0])
        table[out] /= table[out, into]
        others = np.arange(count) != out
        table[others] -= np.outer(table[others, into], table[out])
        reduced -= reduced[into] * table[out]
        basis[out] = into
    return None
