"""The capsule: what a correct step looks like, in kilobytes, to be checked on a machine that has no trusted one beside it.

It holds the inputs, how the weights are made and their digest, and for each op, layer and result of the step the fingerprint of the
fp64 run with how far those of correct runs lie from it. Weights and tensors themselves are made anew where it is checked.
"""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sapper import __version__, files
from sapper.errors import BadFile, BadValue
from sapper.messages import Phrase
from sapper.programs.opened import Opened, weights_digest
from sapper.programs.program import tensors_in
from sapper.prove.judge import RED
from sapper.prove.model.envelope import RUNS, Perturbed, roundoff_of, turned
from sapper.prove.model.fingerprint import Fingerprints
from sapper.prove.model.result import Error
from sapper.prove.model.step import TrainingStep
from sapper.prove.reference import Widened, widen
from sapper.prove.stored import Unkept, from_bytes, to_bytes

BEYOND_FP32 = 2.0**60
"""Length of a tensor from which a chip's own fingerprint may overflow: masks that hold the lowest number there is."""
FORMAT = "sapper-capsule"
VERSION = 4
"""Since 3 fingerprints have other signs."""


@dataclass(frozen=True, kw_only=True)
class Capsule:
    """A recorded step."""

    facts: Mapping[str, Any]
    """What program it is of and how it was recorded, as JSON; keys in the order in which they are compared."""
    truth: Mapping[str, list[float]]
    """Fingerprints of the fp64 run by name."""
    allowed: Mapping[str, list[float]]
    """Largest deviation of correct runs, of sum, length and projections."""
    inputs: tuple[torch.Tensor, ...]

    def errors(self, prints: Mapping[str, Sequence[float | None]]) -> list[Error]:
        """A run's fingerprints against those of correct runs, in the order of the run.

        Ops have a counterpart where as many of one name ran in the same layer: of a stack that takes attention apart the third
        addition is not the capsule's third.

        Args:
            prints: None for what is no finite number, since JSON has none.
        """
        ours, theirs = Counter(map(_unnumbered, prints)), Counter(map(_unnumbered, self.truth))
        alike = [name for name in prints if name in self.truth and ours[_unnumbered(name)] == theirs[_unnumbered(name)]]
        rows = {name: [math.nan if one is None else one for one in prints[name]] for name in alike}
        return [_error(name, row, self.truth[name], self.allowed[name]) for name, row in rows.items()]

    def to_bytes(self) -> bytes:
        """One safetensors file."""
        names = list(self.truth)
        numbers = [torch.tensor([rows[name] for name in names], dtype=torch.float64) for rows in (self.truth, self.allowed)]
        return to_bytes([*numbers, *self.inputs], {"capsule": json.dumps({**self.facts, "names": names})})


def record(opened: Opened, *, steps: int = 1, runs: int = RUNS) -> Capsule:
    """Run the step in fp64 and as correct runs do, and keep the fingerprints.

    Args:
        opened: The program on the CPU.
        steps: Training steps.
        runs: Perturbed runs; the step on the CPU in the dtype under test is one more.
    """
    step = TrainingStep(opened=opened, steps=steps)
    roundoff = roundoff_of(step)
    gradients: dict[str, torch.Tensor] = {}
    truth = _prints(step, wide=True, gradients=gradients)
    allowed = {name: [0.0, 0.0, 0.0] for name in truth}
    for run in range(runs + 1):
        noise = Perturbed(roundoff, opened.seed + run) if run < runs else None
        for name, row in _prints(step, wide=noise is not None, noise=noise).items():
            if name in truth:
                allowed[name] = [max(pair) for pair in zip(allowed[name], _deviations(row, truth[name]), strict=True)]
    for name, gradient in gradients.items():
        either = steps * turned(gradient, allowed[f"grad of {name}"][2])
        allowed[f"updated {name}"] = [max(one, either) for one in allowed[f"updated {name}"]]
    return Capsule(
        facts=_facts(opened, steps=steps, runs=runs, roundoff=roundoff), truth=truth, allowed=allowed,
        inputs=tuple(one.detach().cpu() for one in tensors_in(opened.program.inputs)),
    )  # fmt: skip


def save(capsule: Capsule, path: str) -> int:
    """Write it; its size in bytes.

    Raises:
        BadFile: It cannot be written.
    """
    raw = capsule.to_bytes()
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, raw)
    except OSError as error:
        raise BadFile("SP-PRM-002", where=path, problem=error.strerror or str(error)) from error
    return len(raw)


def load(path: str) -> Capsule:
    """What :func:`save` wrote.

    Raises:
        BadFile: It is missing, no capsule, or of a later format.
    """
    try:
        tensors, held = from_bytes(Path(path).read_bytes())
    except OSError as error:
        raise BadFile("SP-FILE-001", where=path) from error
    except Unkept as error:
        raise BadFile("SP-PRM-007", where=path) from error
    if "capsule" not in held:
        raise BadFile("SP-PRM-007", where=path)
    facts = json.loads(held["capsule"])
    if facts.get("format") != FORMAT:
        raise BadFile("SP-PRM-007", where=path)
    if facts.get("version") != VERSION:
        raise BadFile("SP-PRM-008", where=path, name="version", then=facts.get("version"), now=VERSION)
    names = facts.pop("names")
    truth, allowed = tensors[0].tolist(), tensors[1].tolist()
    return Capsule(
        facts=facts, truth=dict(zip(names, truth, strict=True)), allowed=dict(zip(names, allowed, strict=True)), inputs=tuple(tensors[2:])
    )


def matched(capsule: Capsule, opened: Opened, *, path: str, steps: int) -> None:
    """Refuse a capsule of another program, with what differs first.

    Raises:
        BadFile: It is of another program, or its weights cannot be made anew here.
    """
    now = _facts(opened, steps=steps, runs=0, roundoff=0.0)
    for name in _COMPARED:
        if capsule.facts.get(name) != now[name]:
            raise BadFile("SP-PRM-008", where=path, name=name, then=capsule.facts.get(name), now=now[name])
    for at, (one, ours) in enumerate(zip(capsule.inputs, tensors_in(opened.program.inputs), strict=True)):
        if not torch.equal(one.nan_to_num(), ours.nan_to_num()):
            raise BadFile("SP-PRM-008", where=path, name=f"input {at}", then=_some(one), now=_some(ours))
    digest = weights_digest(opened.program)
    if capsule.facts["weights"] != digest:
        raise BadFile(
            "SP-PRM-009", where=path, then=capsule.facts["torch"], now=str(torch.__version__), seed=opened.seed
        )


def needed(capsule: Capsule, name: str, given: Any, *, where: str) -> Any:
    """A setting as the capsule has it.

    Raises:
        BadValue: The user gave another.
    """
    recorded = capsule.facts.get(name)
    if given is not None and given != recorded:
        then = Phrase("prove.model.own_value") if recorded is None else recorded
        raise BadValue("SP-PRM-010", where=where, then=then, now=given)
    return recorded


def _unnumbered(name: str) -> str:
    """A fingerprint's name without which of the layer's ops of that name it is."""
    return name.rpartition("#")[0] or name


_COMPARED = ("program", "dtype", "seed", "steps", "params", "shapes", "inputs")
"""Facts that must agree; of what differs the first is named."""


def _facts(opened: Opened, *, steps: int, runs: int, roundoff: float) -> dict[str, Any]:
    module = opened.program.module
    inputs = tensors_in(opened.program.inputs)
    return {
        "format": FORMAT, "version": VERSION, "program": opened.digest, "dtype": opened.dtype, "seed": opened.seed, "steps": steps,
        "seq": opened.asked_seq, "batch": opened.asked_batch, "params": sum(one.numel() for one in module.parameters()),
        "shapes": {name: list(one.shape) for name, one in module.named_parameters()},
        "inputs": [f"{str(one.dtype)[6:]}{list(one.shape)}" for one in inputs], "weights": weights_digest(opened.program),
        "target": opened.target, "runs": runs, "roundoff": roundoff, "torch": str(torch.__version__), "sapper": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip


def of_this_cpu(step: TrainingStep) -> dict[str, list[float]]:
    """Fingerprints of the step on the CPU of this machine, in the dtype under test."""
    return _prints(step, wide=False)


def _prints(
    step: TrainingStep, *, wide: bool, noise: Perturbed | None = None, gradients: dict[str, torch.Tensor] | None = None
) -> dict[str, list[float]]:
    """Fingerprints of a run on the CPU: in fp64, perturbed, or in the dtype under test; ``gradients`` takes those by weight."""
    taken = Fingerprints(device="cpu", on_host=False)
    computation = step.computation(taken)
    tensors = [widen(one).clone() if wide else one for one in computation.tensors]
    if noise is not None:
        noise.all(tensors)
    if not wide:
        outputs = computation(tensors)
    elif noise is None:
        with Widened():
            outputs = computation(tensors)
    else:
        with Widened(), noise:
            outputs = computation(tensors)
    taken.values(computation.labels, outputs)
    if gradients is not None:
        named = dict(zip(computation.labels, outputs, strict=True))
        gradients.update({name: named[f"grad of {name}"] for name in step.trained})
    return taken.prints.on_host()


def _deviations(row: list[float], truth: list[float]) -> list[float]:
    """Of sum, length, and the projection that is furthest off; infinite where one is no number and the other is."""
    apart = [abs(one - true) if math.isfinite(one) or math.isfinite(true) else 0.0 for one, true in zip(row, truth, strict=True)]
    apart = [one if math.isfinite(one) else math.inf for one in apart]
    return [apart[0], apart[1], max(apart[2:])]


def _error(name: str, row: list[float], truth: list[float], allowed: list[float]) -> Error:
    """Sum and length may move as a projection does, since independent errors add up alike in each."""
    if not truth[1] <= BEYOND_FP32:  # no number either
        return Error(label=name, outcome="skipped")
    scale = max(abs(truth[1]), 1e-300)
    floor = scale * 2.0**-50
    deviations = _deviations(row, truth)
    limits = [max(allowed[0], allowed[2], floor), max(allowed[1], allowed[2], floor), max(allowed[2], floor)]
    ratios = [one / limit for one, limit in zip(deviations, limits, strict=True)]
    worst = max(range(3), key=lambda at: ratios[at])
    if not math.isfinite(ratios[worst]):
        return Error(label=name, outcome="nan")
    return Error(
        label=name, outcome="ok" if ratios[worst] <= RED else "wrong", ratio=ratios[worst], error_l2=deviations[worst] / scale,
        allowed_l2=limits[worst] / scale,
    )


def _some(tensor: torch.Tensor) -> str:
    return ", ".join(f"{float(one):.4g}" for one in tensor.flatten()[:4])
