"""What is trained by a check: a toy of the plan's model with drawn sequences, or a module of the user's with samples of its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sapper import files
from sapper.errors import BadValue
from sapper.mix.check.fold import Folded, fold
from sapper.mix.check.toy import VOCAB, toy
from sapper.mix.plan import MixPlan
from sapper.mix.run import tree
from sapper.mix.run.data import Data, Tokens, label_count
from sapper.mix.run.models import BuiltModel, ConfigModel, Model
from sapper.mix.run.targets import check_config
from sapper.programs import library, program
from sapper.programs.opened import open_program, redrawn
from sapper.programs.program import Program
from sapper.workloads.config import bundled, normal

SEQ = 16
"""Tokens of a toy's sequence."""
MASKED = 0.3
"""Share of labels that are hidden."""


def subject(plan: MixPlan, *, seats: int, model: str | None, builder: str | None, where: str) -> tuple[Folded, Model, Data]:
    """The folded plan, and the model and the samples that it is proved with.

    Args:
        plan: As it was read; names its model.
        seats: Processes to fold it to.
        model: A config or bundled name in the place of the plan's.
        builder: ``file.py:build``, which is run as it is, with all its blocks.
        where: The plan's file, for errors.

    Raises:
        BadValue: The plan's model is none that ships, or both were given.
        BadPlan: The config is not that of the plan's model.
        SapperError: The config cannot be read or made small, or what the builder does wrong.
    """
    if model is not None and builder is not None:
        raise BadValue("SP-MIX-284", where="--model, --builder")
    if builder is not None:
        return fold(plan, seats_at_most=seats, blocks_at_most=plan.layers), *_built(builder)
    path = _config(model or plan.model, where)
    check_config(plan, str(path), where=where)
    folded = fold(plan, seats_at_most=seats)
    tp = math.lcm(*(stage.tp for one in folded.plan.pipelines for stage in one.stages))
    small = toy(files.read_json(path), blocks=folded.plan.layers, seq=SEQ, tp=tp, name=plan.model)
    return folded, ConfigModel(config=small, name=plan.model), Tokens(vocab=VOCAB, seq=SEQ, masked=MASKED, ragged=True)


def _config(name: str, where: str) -> Path:
    if normal(name) in bundled() and not Path(name).exists():
        return bundled()[normal(name)]
    if not Path(name).exists():
        raise BadValue("SP-MIX-283", where=where, model=name)
    return library.config_path(name)


def _built(target: str) -> tuple[Model, Data]:
    opened = open_program(target)
    builder, path = program.load_builder(target)
    batch, seq = opened.asked_batch, opened.asked_seq
    return BuiltModel(lambda: program.build(builder, path, batch=batch, seq=seq), name=target), Redrawn(opened.program, opened.batch or 1)


@dataclass(frozen=True)
class Redrawn:
    """Samples of a builder's inputs: each round of its batch has the same values in another order."""

    program: Program
    size: int
    """Samples of its batch."""

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`~sapper.mix.run.data.Data`."""
        rows = [self._sample(number) for number in numbers]
        return _stacked(rows)

    def weight(self, inputs: Any) -> float:
        """See :class:`~sapper.mix.run.data.Data`."""
        return label_count(inputs)

    def _sample(self, number: int) -> Any:
        drawn = redrawn(self.program, seed=0, draw=number // self.size + 1).inputs
        return tree.mapped(drawn, lambda one: one[number % self.size : number % self.size + 1] if one.dim() else one)


def _stacked(rows: Sequence[Any]) -> Any:
    first = rows[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(rows)) if first.dim() else first
    if isinstance(first, dict):
        return {key: _stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(_stacked([row[at] for row in rows]) for at in range(len(first)))
    return first
