"""The planner against the exhaustive optimum of small problems, and against the parts of larger clusters.

    python benchmarks/mix/optimum.py                # 300 small problems, 200 clusters, as JSON
    python benchmarks/mix/optimum.py --small 20 --clusters 10

Small problems have 2 to 8 chips of 1 to 3 groups and 3 to 12 layers; those whose enumeration would exceed the limits of
``exhaustive.py`` are drawn again and counted. ``quality`` is optimum over planned step time: 1 is the optimum. The certificate is wrong
where the optimum is below the printed bound. A violation is a cluster whose plan is slower than the plan of a part of its groups.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from exhaustive import TooLarge, optimum
from instances import instance

from sapper.mix.search import search

EPSILON = 1e-9


def small(count: int, *, seed: int) -> dict[str, Any]:
    """Quality and certificates of ``count`` small problems."""
    draw = np.random.default_rng(seed)
    rows, redrawn, infeasible = [], 0, 0
    while len(rows) < count:
        chips = int(draw.integers(2, 9))
        layers = int(draw.integers(3, 13))
        asked = instance(draw, chips=chips, layers=layers, batch=int(draw.integers(2, 17)), groups=int(draw.integers(1, min(3, chips) + 1)))
        start = time.process_time()
        found = search(asked)
        spent = time.process_time() - start
        if found.score is None:
            infeasible += 1
            continue
        assert found.bound_s is not None
        try:
            best = optimum(asked, within_s=found.score.step_s * (1 + EPSILON))
        except TooLarge:
            redrawn += 1
            continue
        best = min(best, found.score.step_s)
        rows.append(
            {
                "chips": chips, "layers": layers, "groups": len(asked.groups), "batch": asked.global_batch,
                "quality": best / found.score.step_s, "bound_over_optimum": found.bound_s / best, "cpu_s": spent,
            }
        )  # fmt: skip
    quality = np.array([row["quality"] for row in rows])
    return {
        "instances": len(rows), "redrawn": redrawn, "no_plan_found": infeasible, "most_chips": max(row["chips"] for row in rows),
        "most_layers": max(row["layers"] for row in rows), "geometric_mean": float(np.exp(np.log(quality).mean())),
        "worst": float(quality.min()), "optimal": float((quality > 1 - EPSILON).mean()),
        "certificates_wrong": sum(row["bound_over_optimum"] > 1 + EPSILON for row in rows),
        "bound_over_optimum_median": float(np.median([row["bound_over_optimum"] for row in rows])),
        "search_cpu_s_median": float(np.median([row["cpu_s"] for row in rows])),
        "worst_five": sorted(rows, key=lambda row: row["quality"])[:5],
    }  # fmt: skip


def clusters(count: int, *, seed: int) -> dict[str, Any]:
    """Whether the plan of a cluster is ever slower than the plan of a part of its groups, asked as a problem of its own."""
    draw = np.random.default_rng(seed)
    violations, compared, worst = 0, 0, 0.0
    for _ in range(count):
        groups = int(draw.integers(2, 4))
        chips = int(draw.integers(groups, 65))
        asked = instance(draw, chips=chips, layers=int(draw.integers(4, 33)), batch=int(draw.integers(8, 129)), groups=groups)
        found = search(asked)
        for size in range(1, groups):
            for part in itertools.combinations(asked.groups, size):
                alone = search(replace(asked, groups=part))
                if alone.score is None:
                    continue
                compared += 1
                over = (found.score.step_s if found.score is not None else np.inf) / alone.score.step_s - 1
                worst = max(worst, over)
                violations += over > EPSILON
    return {"clusters": count, "parts_compared": compared, "violations": violations, "worst_excess": worst}


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    print(json.dumps({"small": small(args.small, seed=args.seed), "clusters": clusters(args.clusters, seed=args.seed + 1)}, indent=1))


if __name__ == "__main__":
    main()
