"""What one experiment is: its start, its batches and its settings, as files that every run of it reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper.errors import BadValue
from sapper.programs import faults
from sapper.programs.opened import Opened, open_program, parameters
from sapper.programs.program import buffers_kept
from sapper.prove.train import data
from sapper.prove.train.trainers import Optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATES: dict[Optimizer, float] = {"adamw": 1e-3, "sgd": 1e-2}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    target: str
    on: str
    steps: int = 50
    dtype: str = "fp32"
    optimizer: Optimizer = "adamw"
    lr: float | None = None
    """Step size; None: :data:`LEARNING_RATES`."""
    data: str | None = None
    """The user's loader."""
    batch: int | None = None
    seq: int | None = None
    seed: int = 0
    members: int = 7
    """Perturbed runs."""

    @property
    def step_size(self) -> float:
        """The step size in force."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr


class Experiment:
    """The start of training and its batches, in a folder; the same for each run.

    Args:
        folder: Of this experiment.
        settings: What is asked.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.opened: Opened = open_program(settings.target, seq=settings.seq, batch=settings.batch, seed=settings.seed)

    def write(self) -> None:
        """Write start and batches where they are missing; a run that goes on takes those of the first time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "batches.pt").exists():
            given = self.settings.data
            found = loaded_or_drawn(given, self.opened.program.inputs, steps=self.settings.steps, seed=self.settings.seed)
            save({"batches": found}, self.folder / "batches.pt")
        if not (self.folder / "start.pt").exists():
            module = self.opened.program.module
            weights = {name: one.detach() for name, one in module.named_parameters()}
            save({"weights": weights, "buffers": dict(module.named_buffers()), "optimizer": None}, self.folder / "start.pt")

    def batches(self) -> list[Any]:
        """The batches, in order; training goes round them."""
        return list(torch.load(self.folder / "batches.pt", weights_only=True)["batches"])

    def start(self) -> dict[str, Any]:
        """Weights and buffers to start from."""
        return dict(torch.load(self.folder / "start.pt", weights_only=True))

    def check(self) -> None:
        """One forward pass on the CPU, so that a program that does not run is no device's fault.

        Raises:
            SapperError: It raises, has nothing to train, or gradients that its optimizer does not take.
        """
        if not any(one.requires_grad for one in self.opened.program.module.parameters()):
            raise BadValue("SP-TRAIN-004", where=self.opened.path)
        with buffers_kept(self.opened.program.module):  # the backward pass may run parts of the forward pass again
            loss = self.opened.run()
            if not loss.requires_grad:
                raise BadValue("SP-TRAIN-005", where=self.opened.path)
            if self.settings.optimizer == "adamw":
                with faults.of_the_user(self.opened.path, "SP-PROG-018"):
                    loss.backward()
        self._refuse_sparse_gradients()

    def _refuse_sparse_gradients(self) -> None:
        """AdamW takes none; SGD does. Gradients are cleared, so that no run begins with them."""
        layouts = {name: one.grad.layout for name, one in parameters(self.opened.program).items() if one.grad is not None}
        self.opened.program.module.zero_grad(set_to_none=True)
        for name, layout in layouts.items():
            if layout is not torch.strided:
                raise BadValue("SP-TRAIN-007", where=self.opened.path, name=name, layout=str(layout).removeprefix("torch."))


def loaded_or_drawn(loader: str | None, inputs: Any, *, steps: int, seed: int) -> list[Any]:
    """The user's batches, or ours."""
    return data.drawn(inputs, seed=seed) if loader is None else data.loaded(loader, steps)


def save(value: Any, path: Path) -> None:
    """As one whole file or not at all."""
    part = path.with_name(f"{path.name}.part")
    torch.save(value, part)
    os.replace(part, path)


def digest_of(path: str) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
