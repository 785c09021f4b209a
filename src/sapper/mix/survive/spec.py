"""What a run is, as one file that its launcher writes and its workers read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

from sapper.errors import BadFile, BadValue
from sapper.files import decode, read_json
from sapper.mix.plan import MixPlan, Seat, WireDtype, read_plan, seats
from sapper.mix.run.job import Job
from sapper.mix.run.targets import check_config, model_of, samples_of
from sapper.mix.survive.planner import Planner, planner_of

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
    dtypes: dict[str, str] = msgspec.field(default_factory=dict)
    """Group -> working dtype, where it is not the plan's precision."""
    cluster: str | None = None
    """File of the cluster, by which plans for what is left are searched; None: by the rule alone."""
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
        for group, dtype in self.dtypes.items():
            if group not in plan.chips or dtype not in get_args(WireDtype):
                known = ", ".join(get_args(WireDtype))
                raise BadValue("SP-MIX-207", where="--dtype", value=f"{group}={dtype}", groups=", ".join(plan.chips), known=known)
        return Job(
            plan=plan, model=model, data=data, steps=self.steps, seed=self.seed, optimizer=self.optimizer,
            lr=self.lr, clip=self.clip, replan=self.replan_share, device=self.device, dtypes=self.dtypes,
        )  # fmt: skip


    def planner(self) -> Planner:
        """Makes plans for the chips that are left.

        Raises:
            SapperError: The cluster is another than the plan's, or the model cannot be priced on it.
        """
        return planner_of(read_plan(self.plan), model=self.model, cluster=self.cluster, where=self.plan)


def read_spec(path: Path) -> Spec:
    """The run of a file.

    Raises:
        BadFile: Unreadable or malformed.
    """
    return decode(Spec, read_json(path), path)


def seat_of(plan: MixPlan, rank: int, *, where: str) -> Seat:
    """The seat of a process by its number.

    Raises:
        BadFile: There are fewer seats in the plan, whose file is ``where``.
    """
    taken = seats(plan)
    if rank >= len(taken):
        raise BadFile("SP-MIX-203", where=where, seats=len(taken), rank=rank)
    return taken[rank]
