"""The planner against the exhaustive optimum of small problems, and against the parts of larger clusters.

    python benchmarks/mix/optimum.py --rows rows.jsonl      # 300 small problems, 200 clusters, as JSON
    python benchmarks/mix/optimum.py --small 20 --clusters 10

Small problems have 2 to 8 chips of 1 to 3 groups and 3 to 12 layers. ``quality`` is the optimum by enumeration over the planned step
time: 1 is the optimum. None is drawn again: where the enumeration would exceed the limits of ``exhaustive.py``, ``quality`` is the
search's own bound over its step time, which is no more than that. The certificate is wrong where the optimum is below the printed
bound. A violation is a cluster whose plan is slower than the plan of a part of its groups.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from exhaustive import TooLarge, optimum
from instances import instance

from sapper.mix.search import search

EPSILON = 1e-9


def small(count: int, *, seed: int, out: TextIO | None) -> dict[str, Any]:
    """Quality and certificates of ``count`` small problems."""
    draw = np.random.default_rng(seed)
    rows, infeasible = [], 0
    while len(rows) < count:
        chips, layers = int(draw.integers(2, 9)), int(draw.integers(3, 13))
        asked = instance(draw, chips=chips, layers=layers, batch=int(draw.integers(2, 17)), groups=int(draw.integers(1, min(3, chips) + 1)))
        start = time.process_time()
        found = search(asked)
        spent = time.process_time() - start
        if found.score is None or found.bound_s is None:
            infeasible += 1
            continue
        step_s, start = found.score.step_s, time.process_time()
        try:
            best: float | None = min(optimum(asked, within_s=step_s * (1 + EPSILON)), step_s)
        except TooLarge:
            best = None
        rows.append(
            {
                "chips": [one.chips for one in asked.groups], "layers": layers, "batch": asked.global_batch,
                "tps": len(asked.groups[0].tps), "recomputes": len(asked.recomputes), "step_s": step_s, "bound_s": found.bound_s,
                "optimum_s": best, "quality": (found.bound_s if best is None else best) / step_s, "search_cpu_s": spent,
                "enumeration_cpu_s": time.process_time() - start,
            }
        )  # fmt: skip
        if out is not None:
            print(json.dumps(rows[-1]), file=out, flush=True)
    return {"no_plan_found": infeasible, **summary(rows)}


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


def clusters(count: int, *, seed: int, out: TextIO | None) -> dict[str, Any]:
    """Whether the plan of a cluster is ever slower than the plan of a part of its groups, asked as a problem of its own."""
    draw = np.random.default_rng(seed)
    violations, compared, idle, mixed, worst, spent = 0, 0, 0, 0, 0.0, []
    for _ in range(count):
        groups = int(draw.integers(2, 4))
        chips = int(draw.integers(groups, 65))
        asked = instance(draw, chips=chips, layers=int(draw.integers(4, 33)), batch=int(draw.integers(8, 129)), groups=groups)
        start = time.process_time()
        found = search(asked)
        spent.append(time.process_time() - start)
        if found.best is not None:
            idle += bool(found.best.idle)
            mixed += len(found.best.chips) > 1
        before = violations
        for size in range(1, groups):
            for part in itertools.combinations(asked.groups, size):
                alone = search(replace(asked, groups=part))
                if alone.score is None:
                    continue
                compared += 1
                over = (found.score.step_s if found.score is not None else np.inf) / alone.score.step_s - 1
                worst = max(worst, over)
                violations += over > EPSILON
        if out is not None:
            row = {"cluster": [one.chips for one in asked.groups], "layers": asked.layers, "batch": asked.global_batch,
                   "violations": violations - before, "search_cpu_s": spent[-1]}  # fmt: skip
            print(json.dumps(row), file=out, flush=True)
    return {
        "clusters": count, "parts_compared": compared, "violations": violations, "worst_excess": worst, "plans_that_mix": mixed,
        "plans_that_leave_chips_out": idle, "search_cpu_s_median": float(np.median(spent)), "search_cpu_s_max": max(spent),
    }  # fmt: skip


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--rows", type=Path, help="write a row for each problem as it is done")
    args = parser.parse_args()
    with args.rows.open("w") if args.rows else contextlib.nullcontext() as out:
        report = {}
        if args.small:
            report["small"] = small(args.small, seed=args.seed, out=out)
        if args.clusters:
            report["clusters"] = clusters(args.clusters, seed=args.seed + 1, out=out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
