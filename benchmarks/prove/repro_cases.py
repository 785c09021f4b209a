"""Do findings shrink to a script that shows them alone: the faulty chips and state of `blame_cases.py`, each embedded in a larger graph.

    python benchmarks/prove/repro_cases.py --out benchmarks/prove/results/repros.jsonl

A case counts when its script has at most 30 lines and shows the defect in a fresh process. Stacks without a recipe of their own (the
emulated compiler) are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from blame_cases import Case, cases, prepared

import torch
from sapper.backends.computation import Computation
from sapper.prove.repro import write_repro

LINES = 30


def embedded(case: Case) -> Computation:
    """The case's function between others, so that there is something to cut away; gradients and integers stay as they are."""
    if case.gradients or not case.tensors[0].is_floating_point():
        return case.computation()

    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = (tensors[0] * 2).reshape(tensors[0].shape) / 2
        return tuple(torch.where(one != 0, one * 3, one) for one in case.fn(first, *tensors[1:]))

    found = fn(*case.tensors)
    return Computation(name=case.name, fn=fn, tensors=case.tensors, labels=tuple(f"value {at}" for at in range(len(found))))


def main() -> None:
    """Write the scripts and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scripts", type=Path)
    given = parser.parse_args()
    short = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if case.blame != "kernel" or not case.backend.startswith("tiger:"):
                continue
            scripts = given.scripts or Path(folder) / "scripts"
            found = write_repro(embedded(case), prepared(case, Path(folder)), outcome=case.seen, folder=scripts, budget_s=90)
            short.append(found.reproduced and found.lines <= LINES)
            print("ok  " if short[-1] else "MISS", case.name, found.lines, found.ops, found.tries, found.reason or "", flush=True)
            if given.out:
                given.out.parent.mkdir(parents=True, exist_ok=True)
                with given.out.open("a", encoding="utf-8") as file:
                    row = {"case": case.name, "lines": found.lines, "reproduced": found.reproduced, "ops": found.ops, "tries": found.tries}
                    file.write(json.dumps(row) + "\n")
    print(f"{sum(short)}/{len(short)} = {sum(short) / len(short):.1%}")


if __name__ == "__main__":
    main()
