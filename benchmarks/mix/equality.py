"""Losses of mixed plans in fp32 against one device: every shape of plan, twenty optimizer steps, all seats as threads of one process.

    python benchmarks/mix/equality.py            # a table; exit code 1 where a loss is off by more than 2e-6

The models are small and untied or tied, with dropout, hidden and ragged labels, a balance loss and clipping; weights and samples are drawn.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from sapper.mix.run.local import run_locally
from sapper.mix.run.runner import Reference

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent.parent / "tests" / "torch" / "mix"), str(HERE.parent.parent / "tests")]

STEPS = 20
BAND = 2e-6


def jobs() -> dict[str, Any]:
    """The plans and models of the tests, which hold them to 1e-12 in fp64."""
    import test_mix_inside as inside
    import test_mix_run as outside

    found = dict(outside.JOBS)
    return found | {f"{name}, {model}": inside.job(plan, model) for name, plan in inside.PLANS.items() for model in ("llama", "qwen3")}


def main() -> int:
    """The table."""
    worst = 0.0
    print(f"{'plan, model':75} {'seats':>5} {'loss, first to last':>20} {'|dloss| max':>11} {'cpu, s':>7}")
    for name, one in jobs().items():
        started_s = time.process_time()
        shape = msgspec.structs.replace(one.plan, precision="fp32", wire="fp32")
        job = dataclasses.replace(one, plan=shape, steps=STEPS)
        alone = Reference(job)
        losses = [alone.step().loss for _ in range(STEPS)]
        apart = max(abs(a - b) for log in run_locally(job) for a, b in zip(log.losses, losses, strict=True))
        worst = max(worst, apart)
        span = f"{losses[0]:.3f} to {losses[-1]:.3f}"
        print(f"{name:75} {sum(shape.chips.values()):5} {span:>20} {apart:11.1e} {time.process_time() - started_s:7.1f}", flush=True)
    print(f"largest difference of a loss {worst:.1e} (band {BAND:.0e})")
    return 0 if worst <= BAND else 1


if __name__ == "__main__":
    sys.exit(main())
