"""What a run is, as one file that its launcher writes and its workers read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sapper.errors import BadValue
from sapper.files import decode, read_json
from sapper.mix.plan import read_plan
from sapper.mix.run.job import Job
from sapper.mix.run.targets import check_config, model_of, samples_of

NAME = "run.json"


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of a plan."""

    plan: str
    """File of the plan."""
    model: str
    """A config, the name of a bundled model, or ``FILE.py:BUILDER``."""
    data: str | None = None
    """``FILE.py:LOADER``, which returns what :class:`sapper.mix.run.data.Data` says; None: drawn sequences."""
    steps: int
    seed: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    clip: float | None = None
    replan_share: float | None = None
    """Change the split when another saves more than this share of a step by the measured times; None: keep the plan's."""
    device: str = "cpu"
    checkpoints: str | None = None
    """Folder that all hosts see; None: no checkpoints."""
    every: int = 100
    """Steps from one checkpoint to the next."""
    keep: int = 3
    silent_s: float = 10.0
    """Without a sign of life a member counts as lost."""

    def job(self) -> Job:
        """The job.

        Raises:
            SapperError: The plan, the model or the data cannot be used.
        """
        plan = read_plan(self.plan)
        check_config(plan, self.model, where=self.plan)
        model = model_of(self.model, seq_len=plan.seq_len)
        data = samples_of(self.data, model, seq_len=plan.seq_len)
        if data is None:
            raise BadValue("SP-MIX-201", where="--data")
        return Job(
            plan=plan, model=model, data=data, steps=self.steps, seed=self.seed, optimizer=self.optimizer,
            lr=self.lr, clip=self.clip, replan=self.replan_share, device=self.device,
        )  # fmt: skip


def read_spec(path: Path) -> Spec:
    """The run of a file.

    Raises:
        BadFile: Unreadable or malformed.
    """
    return decode(Spec, read_json(path), path)
