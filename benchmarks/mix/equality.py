"""Losses of mixed plans in fp32 against one device: every shape of plan, twenty optimizer steps, all seats as threads of one process.

    python benchmarks/mix/equality.py            # a table; exit code 1 where a loss is off by more than 2e-6 and the plan is to blame
    python benchmarks/mix/equality.py --only TEXT

The models are small and untied or tied, with dropout, hidden and ragged labels, a balance loss and clipping; weights and samples are drawn.

Where a loss is off by more, one device in fp32 may itself be as far from what it should compute: AdamW divides a gradient by its own size
plus eps, so that a gradient below eps (1e-8) that is made of rounding moves its weight by a share of the step size, in any order of sums
another one. So both are held against one device in fp64, and a plan that is no further from it than one device is, is not to blame. Beside
it stands how far eight runs of one device are from each other in which each product of a weight adds up in another drawn order.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from torch.nn import functional

import torch
from sapper.mix.run.job import Job
from sapper.mix.run.local import run_locally
from sapper.mix.run.runner import Reference
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent.parent / "tests" / "torch" / "mix"), str(HERE.parent.parent / "tests")]

STEPS = 20
BAND = 2e-6
ORDERS = 8


def jobs() -> dict[str, Any]:
    """The plans and models of the tests, which hold them to 1e-12 in fp64."""
    import test_mix_inside as inside
    import test_mix_run as outside

    found = dict(outside.JOBS)
    return found | {f"{name}, {model}": inside.job(plan, model) for name, plan in inside.PLANS.items() for model in ("llama", "qwen3")}


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    worst, blamed = 0.0, 0
    print(f"{'plan, model':75} {'seats':>5} {'loss, first to last':>20} {'|dloss| max':>11} {'cpu, s':>7}")
    for name, one in ((name, one) for name, one in jobs().items() if only in name):
        started_s = time.process_time()
        shape = msgspec.structs.replace(one.plan, precision="fp32", wire="fp32")
        job = dataclasses.replace(one, plan=shape, steps=STEPS)
        losses, logs = losses_of(job), [log.losses for log in run_locally(job)]
        apart = max(off(one, losses) for one in logs)
        worst = max(worst, apart)
        span = f"{losses[0]:.3f} to {losses[-1]:.3f}"
        print(f"{name:75} {sum(shape.chips.values()):5} {span:>20} {apart:11.1e} {time.process_time() - started_s:7.1f}", flush=True)
        if apart > BAND:
            truth = losses_of(dataclasses.replace(job, plan=msgspec.structs.replace(shape, precision="fp64", wire="fp64")))
            plan, device = max(off(one, truth) for one in logs), off(losses, truth)
            blamed += plan > device
            print(f"{'':75} from fp64: the plan {plan:.1e}, one device {device:.1e}", flush=True)
            orders = [losses, *(losses_of(job, order=seed) for seed in range(ORDERS))]
            among = max(off(some, others) for some in orders for others in orders)
            far = [off(one, truth) for one in orders]
            print(f"{'':75} orders of sums on one device: {among:.1e} apart, {min(far):.1e} to {max(far):.1e} from fp64", flush=True)
    print(f"largest difference of a loss {worst:.1e} (band {BAND:.0e}); plans to blame: {blamed}")
    return 1 if blamed else 0


def losses_of(job: Job, *, order: int | None = None) -> list[float]:
    """Of one device; ``order`` is a seed by which the terms of each product of a weight are added up in another order."""
    alone = Reference(job)
    if order is not None:
        drawn = torch.Generator().manual_seed(order)
        for module in alone.stage.module.modules():
            if isinstance(module, nn.Linear):
                module.forward = functools.partial(_product, module, torch.randperm(module.in_features, generator=drawn))
    return [alone.step().loss for _ in range(STEPS)]


def _product(module: nn.Linear, order: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x[..., order], module.weight[:, order], module.bias)


def off(some: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference of a step's loss."""
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
