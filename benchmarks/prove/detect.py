"""Faults put into single ops of training steps, and who sees them: the rule beside the rules in use.

    python benchmarks/prove/detect.py --seed 1 --models gpt convnet moe --each 110 --out benchmarks/prove/results/detect.jsonl

Each fault is one op instance of one step that computes wrongly; the rest of the step goes on from there. The rule judges the op on its
own inputs. The rules in use see what they would see: loss, outputs and every op's output of the faulty run beside the clean one, or
(the double benchmark and the plain ratio) the op on its own inputs.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rivals
from faults import KINDS, broken_outputs
from models import MODELS, build
from tracing import Ran, recorded, traced

import torch
from sapper.prove.judge import judge
from sapper.prove.reference import UNIT_ROUNDOFF, NoReference, refer
from sapper.prove.verdict import RED, worst

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def sites(ops: list[Ran], *, each: int, seed: int) -> list[tuple[str, Ran]]:
    """Kind and op of the faults to try: all kinds in turn, of each kind all ops and phases in turn, instances at random."""
    chance = random.Random(seed)
    by_op: dict[tuple[str, str], list[Ran]] = defaultdict(list)
    for one in ops:
        by_op[one.phase, one.call.name].append(one)
    queues: dict[str, list[Ran]] = {}
    for kind in KINDS:
        groups = [chance.sample(group, len(group)) for group in by_op.values()]
        chance.shuffle(groups)
        queues[kind] = [group[turn] for turn in range(3) for group in groups if turn < len(group)]
    found: list[tuple[str, Ran]] = []
    while len(found) < each and any(queues.values()):
        for kind, queue in queues.items():
            while queue and len(found) < each:
                ran = queue.pop(0)
                if broken_outputs(ran.call, ran.outputs, kind=kind, seed=seed + ran.index) is not None:
                    found.append((kind, ran))
                    break
    return found


def seen_in_run(name: str, *, seed: int, dtype: torch.dtype, clean: Any, kind: str, site: Ran) -> dict[str, Any]:
    """What the rules that compare two whole runs say of a run with the fault."""
    ops, clean_outputs, clean_loss = clean
    flagged: dict[str, int | None] = dict.fromkeys(("op cosine < 0.99", "msprobe compare", "msprobe norm 50%"))

    def look(ran: Ran) -> None:
        if ran.index == site.index:
            altered = broken_outputs(ran.call, [one.clone() for one in ran.outputs], kind=kind, seed=seed + ran.index)
            if altered is not None:
                for own, one in zip(ran.outputs, altered[1], strict=True):
                    own.copy_(one)
        if ran.index >= site.index and ran.index < len(ops) and ops[ran.index].call.op == ran.call.op:
            other = ops[ran.index]
            for got, right in zip(ran.outputs, other.outputs, strict=False):
                if flagged["op cosine < 0.99"] is None and rivals.cosine_low(got, right):
                    flagged["op cosine < 0.99"] = ran.index
                if flagged["msprobe compare"] is None and rivals.msprobe_compare(got, right):
                    flagged["msprobe compare"] = ran.index
                inputs = zip(ran.call.tensors, other.call.tensors, strict=False)
                close = not any(rivals.norm_off(one, own, 0.1) for one, own in inputs)
                if flagged["msprobe norm 50%"] is None and close and rivals.norm_off(got, right, 0.5):
                    flagged["msprobe norm 50%"] = ran.index

    try:
        outputs, loss = traced(build(name, seed=seed, dtype=dtype), look)
    except (RuntimeError, ArithmeticError, IndexError):
        return {key: [True, None] for key in ("loss 1%", "outputs cosine < 0.99", *flagged)}  # the run itself dies of it
    whole = {"loss 1%": rivals.loss_differs(loss, clean_loss), "outputs cosine < 0.99": rivals.cosine_low(outputs, clean_outputs)}
    return {**{key: [True, None] if value else [False, None] for key, value in whole.items()},
            **{key: [at is not None, at == site.index] for key, at in flagged.items()}}  # fmt: skip


def faults(name: str, *, seed: int, dtype_name: str, each: int, whole_runs: bool) -> Iterator[dict[str, Any]]:
    """All faults of a model, each with what every rule says."""
    dtype = DTYPES[dtype_name]
    step = build(name, seed=seed, dtype=dtype)
    ops = recorded(step)
    again = build(name, seed=seed, dtype=dtype)
    clean = (ops, *again.run())
    for kind, ran in sites(ops, each=each, seed=seed):
        broken = broken_outputs(ran.call, ran.outputs, kind=kind, seed=seed + ran.index)
        assert broken is not None
        at, altered = broken
        computation = ran.call.computation()
        try:
            reference = refer(computation)
        except NoReference:
            continue
        scores = judge(altered, reference, computation.labels)
        outcome = worst([one.outcome for one in scores])
        deciding = max(scores, key=lambda one: (one.outcome in RED, one.ratio or 0.0))
        truth, own, got = reference.truth[at], ran.outputs[at], altered[at]
        local: dict[str, Any] = {}
        hidden = False
        if own.dtype in UNIT_ROUNDOFF:
            local["plain fp64 ratio"] = [rivals.plain_ratio(got, own, truth, roundoff=UNIT_ROUNDOFF[own.dtype])] * 2
            local["msprobe double benchmark"] = [rivals.msprobe_double(got, own, truth, op=ran.call.name)] * 2
            before, after = ((one.double() - truth).abs() for one in (own, got))
            hidden = bool(after.norm() <= 2 * before.norm() and after.max() <= 2 * before.max())
        else:
            local = {key: [not torch.equal(own, got)] * 2 for key in ("plain fp64 ratio", "msprobe double benchmark")}
        yield {
            "model": name, "dtype": dtype_name, "seed": seed, "kind": kind, "op": ran.call.op, "phase": ran.phase, "index": ran.index,
            "output": at, "outcome": outcome, "ratio": deciding.ratio, "reason": deciding.reason, "within_rounding": hidden,
            "rules": {
                "sapper": [outcome in RED, outcome in RED], **local,
                **(seen_in_run(name, seed=seed, dtype=dtype, clean=clean, kind=kind, site=ran) if whole_runs else {}),
            },
        }  # fmt: skip


def main() -> None:
    """Try all faults asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["gpt", "convnet", "moe"], choices=sorted(MODELS))
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--each", type=int, default=110, help="faults of each model and dtype")
    parser.add_argument("--local-only", action="store_true", help="leave out the rules that compare whole runs")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with given.out.open("w") as file:
        for name in given.models:
            for dtype_name in given.dtypes:
                found = count = 0
                for row in faults(name, seed=given.seed, dtype_name=dtype_name, each=given.each, whole_runs=not given.local_only):
                    file.write(json.dumps(row) + "\n")
                    count, found = count + 1, found + row["rules"]["sapper"][0]
                print(f"{name} {dtype_name}: {found} of {count} found, {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
