"""False alarms: every op of ten models' training steps on stacks that are held to be healthy, judged on its own inputs.

    python benchmarks/prove/healthy.py --on eager:threads --out benchmarks/prove/results/healthy-eager-threads.jsonl
    python benchmarks/prove/healthy.py --on onnxruntime --models gpt convnet --out ...
    python benchmarks/prove/healthy.py --on jax --unseen --seed 21 --out ...  # the eight models of `unseen.py`

Ops that differ in op, shapes, dtypes or attributes are run once each; the stack compiles some at a time (alone where it refuses them
together). What it refuses is counted as not covered.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import unseen
from models import MODELS, build
from tracing import Ran, recorded

import torch
from sapper.backends import Backend, find
from sapper.backends.computation import Computation, graph_of
from sapper.prove.judge import judge
from sapper.prove.reference import NoReference, refer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOGETHER = 12
"""Ops in one compilation."""
OF_EACH_OP = 1
"""Instances of an op that compiled stacks run in each model; eager runs all."""
REFUSED: set[str] = set()
"""Ops that the stack has refused; it is not asked again in other models."""
Outputs = list[torch.Tensor]


def unique(name: str, *, seed: int, dtype: torch.dtype, foreach: bool) -> list[Ran]:
    """The ops of a step, one of each id."""
    found: dict[str, Ran] = {}
    for ran in recorded(build(name, seed=seed, dtype=dtype, foreach=foreach)):
        found.setdefault(ran.call.id, ran)
    return list(found.values())


def some(ops: Sequence[Ran]) -> list[Ran]:
    """The first few of each op."""
    counts: Counter[str] = Counter()
    return [one for one in ops if counts.update([one.call.op]) or counts[one.call.op] <= OF_EACH_OP]


def together(ops: Sequence[Ran]) -> Computation:
    """Several ops as one computation, none using another's result."""
    parts = [one.call.computation() for one in ops]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part.tensors))

    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = (part.fn(*tensors[bounds[at] : bounds[at + 1]]) for at, part in enumerate(parts))
        return tuple(one for result in results for one in result)

    tensors = tuple(one for part in parts for one in part.tensors)
    labels = tuple(f"{at} {label}" for at, part in enumerate(parts) for label in part.labels)
    return Computation(name="ops of a step", fn=fn, tensors=tensors, labels=labels)


def on_stack(backend: Backend, ops: Sequence[Ran]) -> Iterator[tuple[Ran, Outputs | None, str]]:
    """Each op with its outputs on the stack; None and the stack's words where it refuses."""
    if not ops:
        return
    computation = together(ops)
    try:
        computation = dataclasses.replace(computation, fn=graph_of(computation, decompose=False))
        outputs = list(backend.prepare(computation)(computation.tensors))
    except Exception as error:
        if len(ops) == 1:
            REFUSED.add(ops[0].call.op)
            yield ops[0], None, f"{type(error).__name__}: {error}"[:200]
            return
        half = len(ops) // 2
        yield from on_stack(backend, ops[:half])
        yield from on_stack(backend, ops[half:])
        return
    for one in ops:
        count = len(one.call.labels)
        yield one, outputs[:count], ""
        outputs = outputs[count:]


@contextlib.contextmanager
def two_threads() -> Iterator[None]:
    """Sums split over two threads."""
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(1)


@contextlib.contextmanager
def no_onednn() -> Iterator[None]:
    """PyTorch's own kernels."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


EAGER: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {"threads": two_threads, "no-onednn": no_onednn}


def eagerly(setting: str, ops: Sequence[Ran]) -> Iterator[tuple[Ran, Outputs | None, str]]:
    """The trusted stack itself with other threads or libraries: another order of adding."""
    for one in ops:
        with EAGER[setting]():
            outputs = one.call.run()
        yield one, outputs, ""


def judged(stack: str, name: str, *, seed: int, dtype_name: str) -> Iterator[dict[str, Any]]:
    """A row for each op."""
    kind, _, setting = stack.partition(":")
    ops = unique(name, seed=seed, dtype=DTYPES[dtype_name], foreach=kind == "eager")
    if kind == "eager":
        ran = eagerly(setting, ops)
    else:
        backend, ops = find(stack), [one for one in some(ops) if one.call.op not in REFUSED]
        ran = (row for at in range(0, len(ops), TOGETHER) for row in on_stack(backend, ops[at : at + TOGETHER]))
    for one, outputs, said in ran:
        row: dict[str, Any] = {"stack": stack, "model": name, "dtype": dtype_name, "seed": seed, "op": one.call.op, "id": one.call.id}
        if outputs is None:
            yield {**row, "said": said}
            continue
        computation = one.call.computation()
        with contextlib.suppress(NoReference):
            scores = judge([value.detach().cpu() for value in outputs], refer(computation), computation.labels)
            yield {**row, "outcomes": [[s.label, s.outcome, s.ratio, s.reason] for s in scores]}


def main() -> None:
    """Judge all ops asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", required=True, help="a backend, or eager:threads, eager:no-onednn")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--unseen", action="store_true", help="the models of `unseen.py` in place of these; needs Transformers")
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=list(DTYPES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.unseen:
        MODELS.update(unseen.MODELS)
        given.models = list(unseen.MODELS)
    with given.out.open("w") as file:
        for dtype_name in given.dtypes:
            for name in given.models:
                begun, counts = time.perf_counter(), [0, 0, 0]
                for row in judged(given.on, name, seed=given.seed, dtype_name=dtype_name):
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    outcomes = [one[1] for one in row.get("outcomes", [])]
                    accused = sum(outcome not in ("ok", "legal") for outcome in outcomes)
                    counts = [counts[0] + len(outcomes), counts[1] + accused, counts[2] + ("said" in row)]
                print(f"{given.on} {name} {dtype_name}: {counts[1]} of {counts[0]} outputs accused, {counts[2]} ops refused, "
                      f"{time.perf_counter() - begun:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
