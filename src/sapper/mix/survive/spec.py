"""What a run is, as one file that its launcher writes and its workers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from sapper.errors import BadValue
from sapper.files import decode, read_json
from sapper.mix.plan import MixPlan, read_plan
from sapper.mix.run.data import Data, Tokens, label_count
from sapper.mix.run.job import Job
from sapper.mix.run.models import BuiltModel, ConfigModel, Model
from sapper.programs import library
from sapper.programs.program import build, load_builder

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
        model = _model(self.model, plan)
        return Job(
            plan=plan, model=model, data=_data(self.data, model, plan), steps=self.steps, seed=self.seed, optimizer=self.optimizer,
            lr=self.lr, clip=self.clip, device=self.device,
        )  # fmt: skip


def read_spec(path: Path) -> Spec:
    """The run of a file.

    Raises:
        BadFile: Unreadable or malformed.
    """
    return decode(Spec, read_json(path), path)


def _model(target: str, plan: MixPlan) -> Model:
    if library.is_config(target):
        path = library.config_path(target)
        return ConfigModel(config=read_json(path), name=library.config_name(path))
    builder, path_ = load_builder(target)
    return BuiltModel(lambda: build(builder, path_, batch=None, seq=plan.seq_len), name=target)


def _data(target: str | None, model: Model, plan: MixPlan) -> Data:
    if target is None:
        if not isinstance(model, ConfigModel):
            raise BadValue("SP-MIX-201", where="--data")
        text = model.config.get("text_config", model.config)
        return Tokens(vocab=int(text["vocab_size"]), seq=plan.seq_len)
    loader, path = load_builder(target)
    found = loader()
    if not hasattr(found, "batch"):
        raise BadValue("SP-MIX-202", where=path)
    return found if hasattr(found, "weight") else _Counted(found)


class _Counted:
    """Data of a user's that says nothing of weights: labels count."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def batch(self, numbers: Any) -> Any:
        """See :class:`sapper.mix.run.data.Data`."""
        return self._found.batch(numbers)

    def weight(self, inputs: Any) -> float:
        """See :class:`sapper.mix.run.data.Data`."""
        return label_count(inputs)
