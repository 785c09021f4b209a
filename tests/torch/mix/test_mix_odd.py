"""Modules that nobody wrote to be cut are cut right, or refused; never cut wrong."""

from __future__ import annotations

import functools
import threading
from typing import Any

import odd
import plain
import pytest
from worlds import cut, plan

import torch
from sapper.errors import BadFile, BadValue
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.run.anatomy import Uncuttable
from sapper.mix.run.job import Job
from sapper.mix.run.local import LocalComm, World, run_locally
from sapper.mix.run.models import BuiltModel
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.run.stage import dissect
from sapper.mix.run.targets import check_loss
from sapper.mix.survive.saved import own_share
from sapper.programs.program import Program
from torch import nn

pytestmark = pytest.mark.torch

KINDS = (
    odd.Experts, odd.Listening, odd.Attending, odd.AttendingAcross, odd.Frozen, odd.Passing, odd.Seeing, odd.Writing, odd.Weightless,
    odd.Placed, odd.Telling,
)  # fmt: skip
CHAIN = (cut(2, 4, 6, micro_batch=2, micro_batches=3),)
BOTH = (cut(1, 5, 6, micro_batch=2, micro_batches=2), cut(3, 6, micro_batches=3, group="b"))


def job(kind: Any, *pipelines: Pipeline, seed: int = 0) -> Job:
    return Job(plan=plan(*pipelines), model=BuiltModel(odd.build_of(kind)), data=plain.Words(), steps=3, optimizer="sgd", lr=0.1, seed=seed)


def computes_as_whole(one: Job) -> None:
    """The losses of a cut module are those of the module on one device, in fp64, and move."""
    alone = Reference(one)
    truth = [alone.step().loss for _ in range(one.steps)]
    logs = run_locally(one)

    assert max(abs(loss - due) for log in logs for loss, due in zip(log.losses, truth, strict=True)) <= 1e-12
    assert len(set(truth)) == len(truth), "it learns"


@pytest.mark.parametrize("pipelines", [CHAIN, BOTH], ids=["chain", "both"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_a_cut_module_computes_what_it_computes_whole(kind: Any, pipelines: tuple[Pipeline, ...]) -> None:
    computes_as_whole(job(kind, *pipelines))


def test_noise_that_a_recomputed_block_draws_itself_is_the_same_once_more() -> None:
    """Its gradient would be that of another pass; the process's own generator gives the noise, so one process is compared with itself."""

    class Noisy(odd.Frozen):
        class Block(odd.Layer):
            def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return super().forward(x * torch.rand_like(x), mask)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(self.Block() for _ in range(odd.BLOCKS))

    found = []
    for recompute in ("none", "full"):
        torch.manual_seed(0)
        alone = Pipeline(stages=(Stage(group="a", first=0, last=6, recompute=recompute),), micro_batch=2, micro_batches=3)
        found.append(run_locally(job(Noisy, alone))[0].losses)
    assert found[0] == pytest.approx(found[1], rel=0, abs=1e-12)


def test_a_module_whose_end_uses_what_no_block_hands_on_is_refused_also_without_gradients() -> None:
    with pytest.raises(Uncuttable, match="layer 5 uses something"):
        dissect(job(odd.Watching, *CHAIN), whole=False)


def test_masks_that_a_block_makes_travel_and_those_of_the_batch_do_not() -> None:
    seeing, frozen = (dissect(job(kind, *CHAIN), whole=False) for kind in (odd.Seeing, odd.Frozen))
    assert seeing is not None and frozen is not None

    assert [len(seeing.carried[layer]) for layer in (2, 3)] == [2, 2]
    assert [len(frozen.carried[layer]) for layer in (1, 2, 3, 4, 5)] == [1] * 5


def test_a_checkpoint_holds_the_weights_that_do_not_learn_once() -> None:
    one = job(odd.Frozen, *BOTH)
    shares: list[Any] = [None] * 5
    anatomy = dissect(one, whole=False)
    world = World(5)

    def share(rank: int) -> None:
        shares[rank] = own_share(Runner(one, LocalComm(world, rank), anatomy=anatomy), one.plan)

    threads = [threading.Thread(target=share, args=(rank,)) for rank in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = odd.Frozen()
    written = [name for share in shares for name in share if name in dict(whole.named_parameters())]

    assert sorted(written) == sorted(dict(whole.named_parameters()))


def told_of(told: Any, output: Any) -> Any:
    return told


def test_a_loss_among_other_things_that_a_builder_tells() -> None:
    value = torch.ones((), requires_grad=True) * 2
    module, both = torch.nn.Linear(2, 2), (value, torch.zeros(3))

    for told in (value, both, [value], {"loss": value, "accuracy": 0.5}):
        assert Program(module=module, inputs={}, loss=functools.partial(told_of, told)).loss_of(both) is value
    assert Program(module=module, inputs={}).loss_of(both) is value
    with pytest.raises(BadFile, match="SP-PROG-020"):
        Program(module=module, inputs={}, loss=lambda _: (torch.zeros(3), value), name="own.py").loss_of(both)


def test_a_module_without_a_loss_is_not_trained() -> None:
    def build(loss: Any = None, module: torch.nn.Module | None = None) -> BuiltModel:
        inputs = {"ids": torch.zeros(2, 7, dtype=torch.long), "labels": torch.zeros(2, 7, dtype=torch.long)}
        return BuiltModel(lambda: Program(module=module or odd.Frozen(), inputs=inputs, loss=loss), name="own.py:build")

    class Own(torch.nn.Linear):
        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return (super().forward(ids.float()) - labels).square().mean()

    check_loss(build(odd.loss))
    check_loss(build(module=Own(7, 7)))
    with pytest.raises(BadValue, match=r"own\.py:build: returns no loss"):
        check_loss(build())
