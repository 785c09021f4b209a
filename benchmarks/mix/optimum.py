"""The planner against the exhaustive optimum of small problems, and against the parts of larger clusters.

    python benchmarks/mix/optimum.py --rows rows.jsonl      # 300 small problems, 200 clusters, as JSON; goes on where it was ended
    python benchmarks/mix/optimum.py --small 20 --clusters 10

Small problems have 2 to 8 chips of 1 to 3 groups and 3 to 12 layers. ``quality`` is the optimum by enumeration over the planned step
time: 1 is the optimum. None is drawn again: where the enumeration would exceed the limits of ``exhaustive.py``, ``quality`` is the
search's own bound over its step time, which is no more than that. The certificate is wrong where the optimum is below the printed
bound. A violation is a cluster whose plan is slower than the plan of a part of its groups, asked as a problem of its own; parts on which
no plan can be faster than the cluster's, by the bound, are counted as ruled out and not searched.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from exhaustive import TooLarge, optimum
from instances import instance

from sapper.mix.problem import Problem
from sapper.mix.search import search
from sapper.mix.search.bound import bound_s
from sapper.mix.search.segments import Table

EPSILON = 1e-9


def problems(seed: int) -> Iterator[tuple[int, Problem]]:
    """Small problems without end, by number."""
    draw = np.random.default_rng(seed)
    for number in itertools.count():
        chips, layers = int(draw.integers(2, 9)), int(draw.integers(3, 13))
        batch, groups = int(draw.integers(2, 17)), int(draw.integers(1, min(3, chips) + 1))
        yield number, instance(draw, chips=chips, layers=layers, batch=batch, groups=groups)


def small(count: int, *, seed: int, rows: Rows) -> dict[str, Any]:
    """Quality and certificates of ``count`` small problems that a plan fits."""
    found: list[dict[str, Any]] = []
    infeasible = 0
    for number, asked in problems(seed):
        row = rows.known.get(("small", number)) or rows.add("small", number, _solved(asked))
        if row["step_s"] is None:
            infeasible += 1
        else:
            found.append(row)
        if len(found) == count:
            break
    return {"no_plan_found": infeasible, **summary(found)}


def _solved(asked: Problem) -> dict[str, Any]:
    """One small problem, by the search and by enumeration."""
    start = time.process_time()
    found = search(asked)
    spent = time.process_time() - start
    row: dict[str, Any] = {
        "chips": [one.chips for one in asked.groups], "layers": asked.layers, "batch": asked.global_batch,
        "tps": len(asked.groups[0].tps), "recomputes": len(asked.recomputes), "step_s": None, "search_cpu_s": spent,
    }  # fmt: skip
    if found.score is None or found.bound_s is None:
        return row
    step_s, start = found.score.step_s, time.process_time()
    try:
        best: float | None = min(optimum(asked, within_s=step_s * (1 + EPSILON)), step_s)
    except TooLarge:
        best = None
    return row | {
        "step_s": step_s, "bound_s": found.bound_s, "optimum_s": best, "quality": (found.bound_s if best is None else best) / step_s,
        "enumeration_cpu_s": time.process_time() - start,
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of rows of small problems."""
    quality = np.array([row["quality"] for row in rows])
    judged = [row for row in rows if row["optimum_s"] is not None]
    spent = [row["search_cpu_s"] for row in rows]
    return {
        "problems": len(rows), "enumerated": len(judged), "geometric_mean": float(np.exp(np.log(quality).mean())),
        "worst": float(quality.min()), "optimal": int((quality > 1 - EPSILON).sum()),
        "certificates_wrong": sum(row["bound_s"] > row["optimum_s"] * (1 + EPSILON) for row in judged),
        "proved_optimal": sum(row["bound_s"] >= row["step_s"] * (1 - EPSILON) for row in rows),
        "worst_gap": max(row["step_s"] / row["bound_s"] - 1 for row in rows),
        "search_cpu_s_median": float(np.median(spent)), "search_cpu_s_max": max(spent),
        "worst_five": sorted(rows, key=lambda row: row["quality"])[:5],
    }  # fmt: skip


def clusters(count: int, *, seed: int, rows: Rows) -> dict[str, Any]:
    """Whether the plan of a cluster is ever slower than the plan of a part of its groups, asked as a problem of its own."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        groups = int(draw.integers(2, 4))
        chips = int(draw.integers(groups, 65))
        asked = instance(draw, chips=chips, layers=int(draw.integers(4, 33)), batch=int(draw.integers(8, 129)), groups=groups)
        found.append(rows.known.get(("cluster", number)) or rows.add("cluster", number, _against_parts(asked)))
    excess = [row["worst_excess"] for row in found if row["worst_excess"] is not None]
    spent = [row["search_cpu_s"] for row in found]
    return {
        "clusters": count, "parts_compared": sum(row["parts"] for row in found),
        "parts_ruled_out": sum(row.get("parts_ruled_out", 0) for row in found), "violations": sum(row["violations"] for row in found),
        "worst_excess": max(excess, default=None), "plans_that_mix": sum(row["mixes"] for row in found),
        "plans_that_leave_chips_out": sum(row["idle"] for row in found), "search_cpu_s_median": float(np.median(spent)),
        "search_cpu_s_max": max(spent), "cpu_s": sum(row["cpu_s"] for row in found),
    }  # fmt: skip


def _against_parts(asked: Problem) -> dict[str, Any]:
    """One cluster and its parts."""
    start = time.process_time()
    found = search(asked)
    spent = time.process_time() - start
    step_s = found.score.step_s if found.score is not None else np.inf
    excess, ruled_out = [], 0
    for size in range(1, len(asked.groups)):
        for part in itertools.combinations(asked.groups, size):
            if step_s <= bound_s(Table(asked), part):
                ruled_out += 1
                continue
            alone = search(replace(asked, groups=part))
            if alone.score is not None:
                excess.append(step_s / alone.score.step_s - 1)
    return {
        "cluster": [one.chips for one in asked.groups], "layers": asked.layers, "batch": asked.global_batch,
        "step_s": None if found.score is None else found.score.step_s, "gap": found.gap, "parts": len(excess),
        "parts_ruled_out": ruled_out,
        "violations": sum(one > EPSILON for one in excess), "worst_excess": max(excess, default=None),
        "mixes": found.best is not None and len(found.best.chips) > 1, "idle": found.best is not None and bool(found.best.idle),
        "search_cpu_s": spent, "cpu_s": time.process_time() - start,
    }  # fmt: skip


class Rows:
    """Rows of a file, one for each problem as it is done; a file that has some already is gone on with."""

    def __init__(self, path: Path | None) -> None:
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.known = {(row["kind"], row["number"]): row for row in map(json.loads, lines)}
        self._path = path

    def add(self, kind: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """Keep one more."""
        row = {"kind": kind, "number": number, **row}
        if self._path is not None:
            with self._path.open("a") as out:
                print(json.dumps(row), file=out)
        return row


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--rows", type=Path, help="append a row for each problem as it is done; those that are there are not done again")
    args = parser.parse_args()
    rows, report = Rows(args.rows), {}
    if args.small:
        report["small"] = small(args.small, seed=args.seed, rows=rows)
    if args.clusters:
        report["clusters"] = clusters(args.clusters, seed=args.seed + 1, rows=rows)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
