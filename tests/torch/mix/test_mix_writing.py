"""Modules that write in place, or whose Python looks at values, are cut right or refused; and what else such modules meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import odd
import pytest
import writing
from test_mix_odd import BOTH, CHAIN, computes_as_whole, job
from worlds import cut

import torch
from sapper.errors import BadFile
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.write import Place, Writer
from sapper.mix.plan import Pipeline
from sapper.mix.run.anatomy import Uncuttable
from sapper.mix.run.local import run_locally
from sapper.mix.run.models import BuiltModel
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.run.stage import dissect
from sapper.mix.run.targets import check_loss
from sapper.mix.survive.saved import about_of, load_checkpoint, own_share
from sapper.programs.program import Program

pytestmark = pytest.mark.torch

CUT = (
    writing.Between, writing.Ignoring, writing.Remembering, writing.Adding, writing.Counting, writing.Masking, writing.Halving,
    writing.Encoder, writing.Ending,
)  # fmt: skip
REFUSED = (
    writing.Filling, writing.Valued, writing.Listed, writing.Branching, writing.Viewing, writing.Keeping, writing.Buffered,
    writing.Scaling,
)  # fmt: skip
EACH = (cut(1, 2, 3, 4, 5, 6, micro_batch=2, micro_batches=3),)


@pytest.mark.parametrize("pipelines", [CHAIN, EACH], ids=["chain", "each"])
@pytest.mark.parametrize("kind", CUT, ids=lambda one: one.__name__)
def test_a_cut_module_that_writes_computes_what_it_computes_whole(kind: Any, pipelines: tuple[Pipeline, ...]) -> None:
    computes_as_whole(job(kind, *pipelines))


@pytest.mark.parametrize("kind", REFUSED, ids=lambda one: one.__name__)
def test_what_not_every_stage_would_have_is_refused_and_trains_whole(kind: Any) -> None:
    with pytest.raises(Uncuttable, match="SP-MIX-102"):
        dissect(job(kind, *CHAIN), whole=False)
    assert Reference(job(kind, *CHAIN)).step().loss > 0


def test_a_forward_that_raises_is_the_users(tmp_path: Path) -> None:
    class Picky(odd.Frozen):
        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            raise ValueError("needs two rows")

    class Looking(odd.Frozen):
        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return super().forward(ids, labels) * ids.max().item()

    def build(kind: Any) -> BuiltModel:
        inputs = {"ids": torch.zeros(2, 7, dtype=torch.long), "labels": torch.zeros(2, 7, dtype=torch.long)}
        return BuiltModel(lambda: Program(module=kind(), inputs=inputs), name="own.py:build")

    with pytest.raises(BadFile, match="the forward pass raised ValueError: needs two rows"):
        check_loss(build(Picky))
    check_loss(build(Looking))


def test_frozen_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Another seed draws others, with which the ones that learnt are nothing worth."""
    one = job(odd.Frozen, *BOTH)

    def save(runner: Runner) -> None:
        writer = Writer(tmp_path)
        place = Place(runner.comm.rank, runner.comm.size)
        writer.save(own_share(runner, one.plan), about_of(one, runner, Ledger(), one.plan), place=place)
        writer.wait()

    run_locally(one, each=save, steps=1)
    due, other = Reference(one), Reference(job(odd.Frozen, *BOTH, seed=7))
    name = "blocks.0.up.weight"
    assert not torch.equal(other.stage.frozen[name], due.stage.frozen[name])
    load_checkpoint(other, tmp_path)

    assert set(other.stage.frozen) == set(due.stage.frozen)
    assert all(torch.equal(weight, due.stage.frozen[name]) for name, weight in other.stage.frozen.items())
