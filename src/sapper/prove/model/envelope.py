"""The envelope: how far correct runs of the whole model lie from the truth.

The truth is the step in fp64. A correct run is the same step where weights, inputs and the result of every op are moved by up
to a unit roundoff of the device's dtype, which is what any stack does that rounds its results, in whatever order it computes
(Monte Carlo arithmetic: Parker, Pierce, Eggert, "Monte Carlo arithmetic: how to gamble with floating point and win", 2000). The
step on the CPU in the dtype under test is one more correct run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import torch
from sapper.programs.opened import parameters
from sapper.prove import traits
from sapper.prove.judge import RED
from sapper.prove.model.activations import Activations
from sapper.prove.model.result import Error
from sapper.prove.model.step import LEARNING_RATE, TrainingStep
from sapper.prove.reference import UNIT_ROUNDOFF, Widened, widen

RUNS = 5
"""Perturbed runs that the envelope is taken over."""
_NOISE = 1 << 20


@dataclass(kw_only=True)
class Truth:
    """The step in fp64."""

    values: dict[str, torch.Tensor]
    """Losses, gradients, updated weights and buffers, by label."""
    layers: Activations


@dataclass(kw_only=True)
class Envelope:
    """Largest error of the correct runs, as a length |run - truth|_2, by label and by layer."""

    roundoff: float
    """Of the dtype under test."""
    runs: int = 0
    values: dict[str, float] = field(default_factory=dict)
    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)

    def widen_to(self, truth: Truth, values: Mapping[str, torch.Tensor], layers: Activations) -> None:
        """Take in one more correct run."""
        self.runs += 1
        for ours, true, theirs in (
            (self.values, truth.values, values), (self.forward, truth.layers.forward, layers.forward),
            (self.backward, truth.layers.backward, layers.backward),
        ):  # fmt: skip
            for label, one in theirs.items():
                if label in true and one.shape == true[label].shape:
                    ours[label] = max(ours.get(label, 0.0), distance(one, true[label]))


class Perturbed(TorchDispatchMode):
    """Moves the result of each op that computes by up to a unit roundoff, a random share of it for each element."""

    def __init__(self, roundoff: float, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        share = torch.rand(2 * _NOISE, generator=self._generator, dtype=torch.float64) * 2 - 1
        self._noise = 1 + share * roundoff

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        named = traits.bound(func, args, kwargs or {})
        if not given or func.is_view or traits.kind_of(func.name(), named, given) == "exact":
            return out
        storages = {one.untyped_storage()._cdata for one in given}
        for one in tree_leaves(out):
            floating = isinstance(one, torch.Tensor) and one.dtype in UNIT_ROUNDOFF and one.numel() > 0
            if floating and (func._schema.is_mutable or one.untyped_storage()._cdata not in storages):
                self.move(one)
        return out

    def all(self, tensors: Sequence[torch.Tensor]) -> None:
        """The floating ones among the inputs, in place."""
        for one in tensors:
            if one.dtype in UNIT_ROUNDOFF and one.numel():
                self.move(one)

    def move(self, tensor: torch.Tensor) -> None:
        """Each element by a share of its own, in place."""
        count = tensor.numel()
        start = int(torch.randint(0, _NOISE, (), generator=self._generator))
        noise = self._noise[start : start + _NOISE]
        if count > _NOISE:
            noise = noise.repeat(-(-count // _NOISE))
        tensor.mul_(noise[:count].reshape(tensor.shape))


def roundoff_of(step: TrainingStep) -> float:
    """Unit roundoff of the dtype that most weights have."""
    sizes: dict[Any, int] = {}
    for one in parameters(step.opened.program).values():
        sizes[one.dtype] = sizes.get(one.dtype, 0) + one.numel()
    return UNIT_ROUNDOFF[max(sizes, key=lambda dtype: sizes[dtype])]


def turned(gradient: torch.Tensor, allowed: float) -> float:
    """How far one AdamW step of a correct run may land from another's, as a length, where gradients are too small to have a sign.

    The first steps of Adam move a weight by the learning rate in the direction of its gradient, however small that is: of elements
    within the error of the gradient either direction is right.

    Args:
        gradient: In fp64.
        allowed: Length of the largest error of the correct runs' gradients.
    """
    if not gradient.numel() or not math.isfinite(allowed):
        return 0.0
    uncertain = int((gradient.abs() <= RED * allowed / gradient.numel() ** 0.5).sum())
    return float(2 * LEARNING_RATE * uncertain**0.5)


def truth_of(step: TrainingStep) -> Truth:
    """The step in fp64, with what flows between its modules."""
    layers = Activations()
    computation = step.computation(layers)
    with Widened():
        outputs = computation([widen(one) for one in computation.tensors])
    return Truth(values=dict(zip(computation.labels, map(widen, outputs), strict=True)), layers=layers)


def envelope_of(
    step: TrainingStep, truth: Truth, *, roundoff: float, runs: int = RUNS, seed: int = 0, told: Callable[[int], None] | None = None
) -> Envelope:
    """The envelope over the perturbed runs and the peer's.

    Args:
        step: What runs.
        truth: Of the same step.
        roundoff: Unit roundoff of the device.
        runs: Perturbed ones.
        seed: Of the perturbations.
        told: Called with the number of each run that is done.
    """
    envelope = Envelope(roundoff=roundoff)
    for run in range(runs):
        layers = Activations()
        computation = step.computation(layers)
        noise = Perturbed(roundoff, seed + run)
        wide = [widen(one).clone() for one in computation.tensors]
        noise.all(wide)
        with Widened(), noise:
            outputs = computation(wide)
        envelope.widen_to(truth, dict(zip(computation.labels, outputs, strict=True)), layers)
        if told is not None:
            told(run + 1)
    layers = Activations()
    computation = step.computation(layers)
    envelope.widen_to(truth, dict(zip(computation.labels, computation(), strict=True)), layers)
    for name in step.trained:
        grad, updated = f"grad of {name}", f"updated {name}"
        either = step.steps * turned(truth.values[grad], envelope.values.get(grad, 0.0))
        envelope.values[updated] = max(envelope.values.get(updated, 0.0), either)
    return envelope


def distance(one: torch.Tensor, true: torch.Tensor) -> float:
    """|one - true|_2 in fp64; infinite where their NaN and infinities are not in the same places."""
    wide, true = widen(one), widen(true)
    if not wide.numel():
        return 0.0
    if wide.dtype not in (torch.float64, torch.complex128):
        return 0.0 if torch.equal(wide, true) else float("inf")
    apart = (wide - true).abs()
    total = float(apart.square().sum())
    if total == total and total != float("inf"):
        return float(total**0.5)
    odd = ~torch.isfinite(true)
    same = torch.equal(torch.nan_to_num(wide[odd]), torch.nan_to_num(true[odd])) and bool(torch.isfinite(wide[~odd]).all())
    return float(apart[~odd].square().sum().sqrt()) if same else float("inf")


def error_of(label: str, *, got: torch.Tensor, true: torch.Tensor, allowed: float | None, roundoff: float) -> Error:
    """The accumulated error of one quantity against the envelope.

    Args:
        label: Of the quantity.
        got: The device's, on the CPU.
        true: In fp64.
        allowed: Length of the largest error of the correct runs; None: not known.
        roundoff: Unit roundoff of the dtype under test; the rounding of the quantity itself is always allowed.
    """
    if got.shape != true.shape:
        return Error(label=label, outcome="wrong")
    scale = float(true.abs().square().sum()) ** 0.5 if true.numel() else 0.0
    scale = scale if 0 < scale < float("inf") else 1.0
    length = distance(got, true)
    if length == float("inf"):
        return Error(label=label, outcome="nan", allowed_l2=None if allowed is None else allowed / scale)
    if allowed is None:
        return Error(label=label, outcome="skipped", error_l2=length / scale)
    unit = max(allowed, roundoff / 3**0.5 * scale if true.is_floating_point() else 0.0, torch.finfo(torch.float32).tiny)
    ratio = length / unit
    outcome: Any = "ok" if ratio <= RED else "wrong"
    return Error(label=label, outcome=outcome, error_l2=length / scale, allowed_l2=unit / scale, ratio=ratio)
