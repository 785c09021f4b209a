"""A profile of a model on this device: each kind of layer measured at each asked size of micro-batch."""

from __future__ import annotations

import datetime
import math
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sapper.mix.identity import model_digest
from sapper.mix.measure.live import Live
from sapper.mix.measure.stamps import Stamps, now_s
from sapper.mix.plan import MixPlan, Pipeline
from sapper.mix.plan import Stage as Part
from sapper.mix.profiles.profile import HeldBytes, LayerCost, Profile, Timed
from sapper.mix.run import tree
from sapper.mix.run.anatomy import Anatomy
from sapper.mix.run.chain import find_chain
from sapper.mix.run.comm import DTYPES
from sapper.mix.run.data import Data
from sapper.mix.run.job import Job, Optimizer
from sapper.mix.run.models import Model, without_data
from sapper.mix.run.stage import Stage, dissect
from sapper.mix.run.update import optimizer_of

WHOLE_PARAMS = 50_000_000
"""Models up to this size are measured whole, each layer among its neighbours; of larger ones a layer of each kind, alone."""
_WARM_UP = 2
_LEAST = 5
_BATCHES = 8
"""Groups of repeats whose means tell the spread."""


_LEAST_SD = 0.01
_STATES = {"adamw": 2, "sgd": 1}
"""Numbers that an optimizer keeps of each weight."""
Sizes = dict[str, tuple[frozenset[int], int]]
"""Weight -> layers that use it, and how many numbers it has."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be measured."""

    model: Model
    data: Data
    seq_len: int
    micro_batches: Sequence[int] = (1,)
    precision: str = "fp32"
    optimizer: Optimizer = "adamw"
    device: str = "cpu"
    seconds: float = 2.0
    """For each micro-batch and window of layers."""
    name: str = ""
    """Of the chip."""
    conditions: str = ""
    """What the reader should know beside: an emulated share of a core, a clock."""


@dataclass
class _Sums:
    """Of one micro-batch size, by layer."""

    forward_s: dict[int, float]
    backward_s: dict[int, float]
    saved_bytes: dict[int, float]
    working_bytes: dict[int, float]
    boundary_bytes: dict[int, float]
    update_s: dict[int, float]
    sd: float


def measure(question: Question, *, told: Callable[[int, int], None] = lambda micro_batch, layers: None) -> Profile:
    """Measure; ``told`` hears of each micro-batch and window before it is run.

    Raises:
        SapperError: The model cannot be cut along a chain of blocks.
    """
    job = _job(question)
    anatomy = dissect(job, whole=False)
    assert anatomy is not None
    sizes = _sizes(question.model, anatomy)
    kinds = _kinds(sizes, anatomy)
    layers = anatomy.layers + 2
    whole = sum(count for _, count in sizes.values()) <= WHOLE_PARAMS
    windows = [(0, layers)] if whole else [(kinds.index(kind), kinds.index(kind) + 1) for kind in dict.fromkeys(kinds)]
    timed, spreads = [], []
    held: dict[str, list[float]] = {}
    boundary: dict[str, float] = {}
    for micro_batch in question.micro_batches:
        costs: dict[str, list[LayerCost]] = defaultdict(list)
        for first, last in windows:
            told(micro_batch, last - first)
            found = _window(job, anatomy, first=first, last=last, micro_batch=micro_batch, seconds=question.seconds)
            spreads.append(found.sd)
            for layer in range(first, last):
                costs[kinds[layer]].append(_cost(found, layer))
                held.setdefault(kinds[layer], []).append(found.update_s[layer])
                boundary[kinds[layer]] = found.boundary_bytes.get(layer, 0.0) / micro_batch
        timed.append(Timed(micro_batch=micro_batch, layers={kind: _mean(ones) for kind, ones in costs.items()}))
    narrow, wide = DTYPES[question.precision].itemsize, torch.promote_types(DTYPES[question.precision], torch.float32).itemsize
    return Profile(
        model=question.model.name, model_digest=_digest(sizes, anatomy), device=question.name or _device_name(question.device),
        seq_len=question.seq_len, precision=question.precision, optimizer=question.optimizer, layers=tuple(kinds), boundary_bytes=boundary,
        timed=tuple(timed), held=(_held(sizes, kinds, held),), weight_bytes=float(narrow if narrow == wide else narrow + wide),
        gradient_bytes=float(wide), optimizer_bytes=float(wide * _STATES[question.optimizer]), wire_bytes=float(wide),
        sd=max(_LEAST_SD, statistics.fmean(spreads)), source=_source(question), date=datetime.date.today().isoformat(),
    )  # fmt: skip


def _held(sizes: Sizes, kinds: Sequence[str], updates_s: dict[str, list[float]]) -> HeldBytes:
    return HeldBytes(
        params={kinds[layer]: _params(sizes, layer) for layer in reversed(range(len(kinds)))},
        update_s={kind: statistics.fmean(ones) for kind, ones in updates_s.items()},
        tied_params=sum(count for used, count in sizes.values() if {0, len(kinds) - 1} <= used),
    )


def _job(question: Question) -> Job:
    with without_data():
        chain = find_chain(question.model.shapes().module)
    blocks = len(chain.names) if chain is not None else 0
    part = Part(group="here", first=0, last=blocks + 2)
    plan = MixPlan(
        model=question.model.name, model_digest="", cluster="here", cluster_digest="", layers=blocks, seq_len=question.seq_len,
        global_batch=1, precision=question.precision, optimizer=question.optimizer,
        pipelines=(Pipeline(stages=(part,), micro_batch=1, micro_batches=1),),
    )  # fmt: skip
    return Job(
        plan=plan, model=question.model, data=question.data, steps=1, optimizer=question.optimizer, device=question.device, lr=1e-6
    )


def _sizes(model: Model, anatomy: Anatomy) -> Sizes:
    with without_data():
        named = {name: one.numel() for name, one in model.shapes().module.named_parameters()}
    return {name: (layers, named[name]) for name, layers in anatomy.used.items()}


def _params(sizes: Sizes, layer: int) -> int:
    """Weights of a layer; a tied one belongs to its first layer."""
    return sum(count for used, count in sizes.values() if used and min(used) == layer)


def _kinds(sizes: Sizes, anatomy: Anatomy) -> list[str]:
    """Kind of each layer: blocks are alike that hold weights of the same names and numbers."""
    names: dict[tuple[tuple[str, int], ...], str] = {}
    found = ["embedding"]
    for block in anatomy.chain.names:
        own = tuple(sorted((name.removeprefix(block), count) for name, (_, count) in sizes.items() if name.startswith(f"{block}.")))
        names.setdefault(own, "block" if not names else f"block-{len(names) + 1}")
        found.append(names[own])
    return [*found, "head"]


def _digest(sizes: Sizes, anatomy: Anatomy) -> str:
    blocks = [sum(count for name, (_, count) in sizes.items() if name.startswith(f"{block}.")) for block in anatomy.chain.names]
    return model_digest(blocks, params=sum(count for _, count in sizes.values()))


def _window(job: Job, anatomy: Anatomy, *, first: int, last: int, micro_batch: int, seconds: float) -> _Sums:
    """Measure the layers ``first`` to ``last`` (excluded) as one stage."""
    stage = Stage(job, first=first, last=last, dtype=job.plan.precision)
    inputs = job.data.batch(list(range(micro_batch)))
    received = _received(anatomy, first, stage, micro_batch)
    stamps = Stamps(stage.module, anatomy, first=first, last=last)

    def once() -> tuple[dict[int, float], dict[int, float]]:
        stamps.begin()
        passed = stage.forward(received, inputs, step=0, samples=range(micro_batch), weight=1.0)
        stamps.turn()
        if not stage.is_last:
            stamps.boundary_bytes[last - 1] = float(sum(one.numel() * one.element_size() for one in passed.sent))
        stage.backward(passed, [torch.ones_like(one) for one in passed.sent] if not stage.is_last else ())
        return stamps.end()

    for _ in range(_WARM_UP):
        once()
    passes: list[tuple[dict[int, float], dict[int, float]]] = []
    ends_s = time.perf_counter() + seconds
    while len(passes) < _LEAST or time.perf_counter() < ends_s:
        passes.append(once())
    stamps.close()
    saved, working = _bytes(stage, anatomy, received, inputs, first=first, last=last, micro_batch=micro_batch)
    layers = range(first, last)
    totals = [sum(forward.values()) + sum(backward.values()) for forward, backward in passes]
    return _Sums(
        forward_s={one: statistics.fmean(forward[one] for forward, _ in passes) for one in layers},
        backward_s={one: statistics.fmean(backward[one] for _, backward in passes) for one in layers},
        saved_bytes=saved, working_bytes=working, boundary_bytes=stamps.boundary_bytes, update_s=_updates(job, stage, anatomy, seconds),
        sd=_spread(totals),
    )  # fmt: skip


def _bytes(
    stage: Stage, anatomy: Anatomy, received: list[torch.Tensor], inputs: Any, *, first: int, last: int, micro_batch: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Of each layer: what autograd keeps, and what is alive beside it at most."""
    live = Live()
    weights = {one.untyped_storage()._cdata for one in stage.module.parameters()}
    stamps = Stamps(stage.module, anatomy, first=first, last=last, entered=live.enter)
    with live, live.saving(weights):
        stamps.begin()
        passed = stage.forward(received, inputs, step=0, samples=range(micro_batch), weight=1.0)
        forward_peak = dict(live.peak_bytes)
    stamps.close()
    stage.backward(passed, [torch.ones_like(one) for one in passed.sent] if not stage.is_last else ())
    saved = {layer: float(live.saved_bytes.get(layer, 0)) for layer in range(first, last)}
    # A backward pass holds a layer's gradients of activations beside what was saved: about as much as the forward pass had alive.
    return saved, {layer: max(0.0, forward_peak.get(layer, 0) - saved[layer]) for layer in range(first, last)}


def _received(anatomy: Anatomy, first: int, stage: Stage, micro_batch: int) -> list[torch.Tensor]:
    """What the stage before would send: numbers of the right shape."""
    if first == 0:
        return []
    shape = (micro_batch, *anatomy.inputs[min(first, anatomy.layers) - 1][1:])
    found = [torch.randn(shape, dtype=stage.dtype, device=stage.device) for _ in anatomy.carried[first]]
    for side in anatomy.sides_before(first):
        found.append(torch.randn(tree.at(side.like, side.path).shape, dtype=stage.dtype, device=stage.device))
    return found


def _updates(job: Job, stage: Stage, anatomy: Anatomy, seconds: float) -> dict[int, float]:
    """Seconds of the optimizer's step on the weights of each layer."""
    found = {}
    for layer in range(stage.first, stage.last):
        own = [stage.masters[name] for name in stage.masters if min(anatomy.used[name], default=0) == layer]
        if not own:
            found[layer] = 0.0
            continue
        for one in own:
            one.grad = torch.zeros_like(one)
        optimizer = optimizer_of(job, own)
        optimizer.step()
        times: list[float] = []
        ends_s = time.perf_counter() + seconds / 8.0
        while len(times) < _LEAST or time.perf_counter() < ends_s:
            start_s = now_s()
            optimizer.step()
            times.append(now_s() - start_s)
        found[layer] = statistics.fmean(times)
    return found


def _cost(found: _Sums, layer: int) -> LayerCost:
    return LayerCost(
        forward_s=found.forward_s[layer], backward_s=found.backward_s[layer], saved_bytes=found.saved_bytes[layer],
        working_bytes=found.working_bytes[layer],
    )  # fmt: skip


def _mean(costs: Sequence[LayerCost]) -> LayerCost:
    names = ("forward_s", "backward_s", "saved_bytes", "working_bytes")
    return LayerCost(**{name: statistics.fmean(getattr(one, name) for one in costs) for name in names})


def _spread(totals: Sequence[float]) -> float:
    """Standard deviation of the logarithm of means over groups of repeats."""
    size = max(1, len(totals) // _BATCHES)
    means = [math.log(statistics.fmean(totals[at : at + size])) for at in range(0, len(totals) - size + 1, size)]
    return statistics.stdev(means) if len(means) > 1 else 0.0


def _device_name(device: str) -> str:
    if device == "cpu":
        return platform.processor() or platform.machine()
    module: Any = getattr(torch, device.partition(":")[0], None)
    return str(module.get_device_name()) if hasattr(module, "get_device_name") else device


def _source(question: Question) -> str:
    parts = [f"sapper mix profile on {question.device}", f"torch {torch.__version__}", f"{torch.get_num_threads()} threads"]
    return ", ".join([*parts, *filter(None, [question.conditions])])
