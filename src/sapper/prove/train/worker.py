"""One run of an experiment, in a process of its own: step after step into a journal that survives its death."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

import torch
from sapper import memory
from sapper.backends import Backend, find
from sapper.programs.program import Program
from sapper.prove.journal import Journal
from sapper.prove.noise import Noise
from sapper.prove.reference import UNIT_ROUNDOFF
from sapper.prove.train.graph import Graphs
from sapper.prove.train.perturb import Perturbed
from sapper.prove.train.plan import DTYPES, Experiment, Settings, save
from sapper.prove.train.sketch import WIDTH, Sketcher, wide
from sapper.prove.train.trainers import Eager, Step, Trainer, tree_cast
from sapper.prove.whole import whole

Role = Literal["truth", "peer", "member", "device"]
SAVED_EVERY_S = 20.0
"""Wall time between states that a run can go on from."""


def on_cpu(payload: dict[str, Any]) -> dict[str, Any]:
    """Setup of workers for the reference's runs."""
    memory.keep_freed()
    torch.set_num_threads(int(payload["threads"]))
    return {"torch": str(torch.__version__)}


def on_backend(payload: dict[str, Any]) -> dict[str, Any]:
    """Setup of the device's worker: import the stack, open the device."""
    memory.keep_freed()
    backend = find(payload["on"])
    if backend.kind == "device":
        backend.device()
    return {"versions": {"torch": str(torch.__version__), **backend.versions()}}


def run(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A whole run, from where it was; yields after each step.

    Args:
        payload: ``folder``, ``settings``, ``role``, and for members their ``number``.
    """
    settings = msgspec.convert(payload["settings"], Settings)
    role: Role = payload["role"]
    folder = Path(payload["folder"])
    name = f"{role}-{payload['number']}" if role == "member" else role
    experiment = Experiment(folder, settings)
    noise = Noise(settings.seed, dtype=DTYPES[settings.dtype], off=find(settings.on).kind == "compiler")
    trainer = trainer_of(experiment, role, noise, int(payload["number"]))
    watch = Watch(folder, truth=role == "truth")
    kept = folder / f"{name}.pt"
    batches = experiment.batches()
    with Journal(folder / f"{name}.jsonl", {"role": name}) as journal:
        first = _resumed(trainer, kept, experiment)
        saved_s = time.monotonic()
        for at in range(first, settings.steps):
            noise.begin(at)
            began_s = time.perf_counter()
            step = trainer.step(batches[at % len(batches)])
            line = {**watch.line(at, step), "wall_s": time.perf_counter() - began_s}
            if not at:
                line |= watch.first(step) | {"fed": noise.fed, "silenced": noise.silenced, "where": trainer.where()}
            if str(at) not in journal.done:
                journal.add(str(at), line)
            if time.monotonic() - saved_s > SAVED_EVERY_S and at + 1 < settings.steps:
                save({"step": at + 1, "state": trainer.state()}, kept)
                saved_s = time.monotonic()
            yield {"step": at}
    kept.unlink(missing_ok=True)


def trainer_of(experiment: Experiment, role: Role, noise: Noise, number: int) -> Trainer:
    """Who trains in a role."""
    settings = experiment.settings
    common: dict[str, Any] = {"noise": noise, "optimizer": settings.optimizer, "lr": settings.step_size}
    program, dtype, cpu = experiment.opened.program, DTYPES[settings.dtype], torch.device("cpu")
    if role == "truth":
        return Eager(program, cpu, dtype, truth=True, **common)
    if role == "peer":
        return Eager(program, cpu, dtype, **common)
    if role == "member":
        perturbed = Perturbed(seed=settings.seed * 1000 + number)
        return Eager(program, cpu, dtype, modes=[lambda: perturbed], **common)
    backend = find(settings.on)
    if backend.kind == "compiler":
        return Graphs(program, backend, dtype, **common)
    return OnDevice(program, backend, dtype, **common)


class OnDevice(Eager):
    """Trains on a device as its users do; its counters are asked about one more pass, before the first step."""

    def __init__(self, program: Program, backend: Backend, dtype: torch.dtype, **common: Any) -> None:
        cpu = torch.device("cpu")
        copied = dataclasses.replace(
            program, module=copy.deepcopy(program.module).train().to(dtype), inputs=tree_cast(program.inputs, cpu, dtype)
        )  # fmt: skip
        computation = whole(copied, name="training step").computation
        executable = backend.prepare(computation)
        executable(computation.tensors)
        self._evidence = executable.executed()
        super().__init__(program, backend.device(), dtype, **common)

    def where(self) -> dict[str, Any]:
        """Evidence of where the last step ran."""
        found = super().where()
        if self._evidence is not None:
            known = self._evidence
            found |= {"device": known.where, "executed": True, "ops": known.ops, "fallbacks": list(known.fallbacks)}
        return found


def _resumed(trainer: Trainer, kept: Path, experiment: Experiment) -> int:
    """Put the trainer at its last kept state, or at the start; the step to go on with."""
    if kept.exists():
        found = torch.load(kept, weights_only=True)
        trainer.load(found["state"])
        return int(found["step"])
    trainer.load(experiment.start())
    return 0


class Watch:
    """What is written down of a step: for each thing its norm, and how far it lies from what it should be.

    Args:
        folder: Where the truth's sketches are, or go.
        truth: Whether this is the truth's own run.
    """

    def __init__(self, folder: Path, *, truth: bool) -> None:
        self._path = folder / "truth.sketches"
        self._truth = truth
        self._sketch = Sketcher()

    def first(self, step: Step) -> dict[str, Any]:
        """What the first line says of all: names, elements and roundoffs of the things, and the order of the backward pass."""
        things = watched(step)
        taught = list(step.updates.values())
        return {
            "names": [*(name for name, _ in things), "direction", *(f"update {name}" for name in step.updates)],
            "sizes": [*(one.numel() for _, one in things), sum(one.numel() for one in taught), *(one.numel() for one in taught)],
            "roundoffs": [*(UNIT_ROUNDOFF.get(one.dtype, 0.0) for _, one in things), *[UNIT_ROUNDOFF[torch.float32]] * (1 + len(taught))],
            "order": step.order,
        }  # fmt: skip

    def line(self, at: int, step: Step) -> dict[str, Any]:
        """The step as numbers; None where one is not finite.

        ``norm`` is the thing's own, ``held`` that of the parameter which an update is added to; ``distance`` that from the truth (of an
        update: from what its gradient calls for); ``scale`` its length along the truth over the truth's; ``across`` its length across;
        ``angle`` the angle between, in radians.
        """
        things = watched(step)
        sketches = np.stack([*(self._sketch(name, one) for name, one in things), self._direction(step)])
        norms = [_norm(one) for _, one in things]
        norms += [math.sqrt(sum(_norm(one) ** 2 for one in step.updates.values())), *(_norm(one) for one in step.updates.values())]
        line: dict[str, Any] = {"loss": _finite(float(step.loss.double())), "norm": [_finite(one) for one in norms]}
        missing = [name for name, grad in step.gradients.items() if grad is None]
        if missing:
            line["missing"] = missing
        if self._truth:
            self._keep(at, sketches)
            return line | {"held": [0.0] * (len(norms) - len(step.updates)) + [_finite(step.lengths[name]) for name in step.updates]}
        pairs = list(zip(sketches, self._kept(at, len(sketches)), strict=True))
        pairs += [(wide(one).numpy(), wide(step.expected[name]).numpy()) for name, one in step.updates.items()]
        parts = [_apart(got, true) for got, true in pairs]
        return {**line, **{key: [_finite(one[key]) for one in parts] for key in ("distance", "scale", "across", "angle")}}

    def _direction(self, step: Step) -> Any:
        """The sketch of all updates in a row: sketches of parts add up."""
        return sum(self._sketch(f"update {name}", one) for name, one in step.updates.items())

    def _keep(self, at: int, sketches: Any) -> None:
        with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
            file.seek(at * sketches.nbytes)
            file.write(sketches.tobytes())

    def _kept(self, at: int, count: int) -> Any:
        size = count * WIDTH * 8
        with open(self._path, "rb") as file:
            file.seek(at * size)
            return np.frombuffer(file.read(size), dtype=np.float64).reshape(-1, WIDTH)


def watched(step: Step) -> list[tuple[str, torch.Tensor]]:
    """What of a step is held against the truth, by name: ``output 0``, ``loss``, ``buffer b``, ``grad p``.

    A gradient that autograd did not give counts as zero, which is what the optimizer makes of it.
    """
    found = [(f"output {at}", one) for at, one in enumerate(step.outputs)]
    found.append(("loss", step.loss))
    found += [(f"buffer {name}", one) for name, one in step.buffers.items()]
    return found + [(f"grad {n}", torch.zeros(step.updates[n].shape) if one is None else one) for n, one in step.gradients.items()]


def _apart(got: Any, true: Any) -> dict[str, float]:
    with np.errstate(all="ignore"):
        square = float(true @ true)
        scale = float(got @ true) / square if square else float(not got.any())
        across = float(np.linalg.norm(got - scale * true))
        angle = math.atan2(across, scale * math.sqrt(square))
        return {"distance": float(np.linalg.norm(got - true)), "scale": scale, "across": across, "angle": angle}


def _norm(tensor: torch.Tensor) -> float:
    return float(wide(tensor).square().sum().sqrt())


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
