"""Faults of an emulated chip, from end to end: each a personality of papertiger, made from a seed, on which a training step runs.

    python benchmarks/prove/emulated.py --seed 1 --each 30 --out benchmarks/prove/results/emulated.jsonl

The chip is a real device of PyTorch with its own kernels; the shadow judges each op on the inputs that the chip really had and knows
nothing of the personality. Counted are: the broken launch found; named first, and among the first three; and what honest chips are
accused of. A fault that changes no bit of the step's weights and loss is no fault.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models import MODELS, Step, build

import torch
from sapper.backends import papertiger
from sapper.backends.papertiger.personality import Fault, Personality, load
from sapper.prove.model.result import OpRecord
from sapper.prove.model.shadow import Shadow
from sapper.prove.model.tracker import Tracker
from sapper.prove.verdict import RED

KINDS = (
    "wrong-kernel", "narrow-accumulation", "low-precision-input", "wrong-constant", "cancellation", "tile-edge", "dropped-tail",
    "stale-output", "bad-element", "bias", "saturation", "swapped-arguments", "ignored-strides", "uninitialised", "scaled-gradient",
    "lost-gradient",
)  # fmt: skip
HONEST = ("honest-fp32", "honest-tf32", "honest-bf16")
"""The first must not be accused; the others compute fp32 products in less, unasked, and must be."""


def watched(name: str, personality: Personality, *, seed: int) -> tuple[list[OpRecord], list[torch.Tensor]]:
    """Records of the ops of one step on the chip, and what the step leaves: loss, outputs, weights."""
    papertiger.install(personality)
    device = torch.device(papertiger.chip().device, 0)
    given = build(name, seed=seed, foreach=False)
    module = given.module.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, foreach=False)
    step = Step(name, module, tuple(one.to(device) for one in given.inputs), given.target.to(device), optimizer)
    shadow = Shadow(Tracker(), device=device.type, launched=papertiger.chip().counters.total)
    phases = {"forward": "forward", "backward": "backward", "step": "optimizer"}
    weights = dict(module.named_parameters())
    with shadow.watching(module):
        left = step.run(lambda phase: shadow.begin(phases[phase], weights))  # type: ignore[arg-type]
    return shadow.tally.records, [one.cpu() for one in (*left, *(weight.detach() for weight in module.parameters()))]


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Bit by bit."""
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True))


def faults(records: Sequence[OpRecord], *, each: int, seed: int) -> list[tuple[Fault, OpRecord]]:
    """Kinds in turn, ops and launches at random; with each the record of the launch that it breaks."""
    chance = random.Random(seed)
    found = []
    for at in range(each):
        kind = KINDS[at % len(KINDS)]
        fits = [one for one in records if one.phase == "backward"] if "gradient" in kind else records
        target = chance.choice(fits)
        op = target.op.split(".")[0]
        launches = [one.index for one in fits if one.op.split(".")[0] == op]
        found.append((Fault(kind=kind, op=op, call=launches.index(target.index) + 1), target))  # type: ignore[arg-type]
    return found


def campaign(name: str, *, seed: int, each: int) -> list[dict[str, Any]]:
    """Rows of one model."""
    honest = load("honest-fp32")
    records, right = watched(name, honest, seed=seed)
    rows: list[dict[str, Any]] = [{"model": name, "honest": "honest-fp32", "ops": len(records), "accused": accused(records)}]
    for fault, target in faults(records, each=each, seed=seed):
        row: dict[str, Any] = {"model": name, "kind": fault.kind, "op": target.op, "phase": target.phase, "index": target.index}
        try:
            got, left = watched(name, Personality(faults=(fault,)), seed=seed)
        except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
            rows.append({**row, "raised": f"{type(error).__name__}: {error}"[:200]})
            continue
        if same(left, right):
            rows.append({**row, "inert": True})
            continue
        red = accused(got)
        named = {"found": target.index in red, "first": red[:1] == [target.index], "three": target.index in red[:3]}
        rows.append({**row, **named, "red": red[:5]})
    return rows


def accused(records: Sequence[OpRecord]) -> list[int]:
    """Indices of findings in the order in which they happened."""
    return sorted(one.index for one in records if one.outcome in RED)


def main() -> None:
    """Try all faults asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["gpt", "convnet", "moe"], choices=sorted(MODELS))
    parser.add_argument("--each", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with given.out.open("w") as file:
        for name in given.models:
            rows = campaign(name, seed=given.seed, each=given.each)
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            live = [row for row in rows if "found" in row]
            print(f"{name}: {sum(row['found'] for row in live)} of {len(live)} found, {sum(row['first'] for row in live)} named first; "
                  f"{sum('inert' in row for row in rows)} without effect; honest chip: {rows[0]['accused']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
