"""Checkpoints of running plans, cut by tensor parallelism and shared by ZeRO, load onto any other plan bit for bit."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from test_mix_inside import CONFIGS, job
from worlds import cut, plan, stage

import torch
from sapper.mix.checkpoint.export import export
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.read import Checkpoint, open_checkpoint
from sapper.mix.checkpoint.shard import OPTIMIZER, Box
from sapper.mix.checkpoint.tensors import TensorFile
from sapper.mix.checkpoint.write import Place, Writer
from sapper.mix.plan import MixPlan, Pipeline
from sapper.mix.run.local import run_locally
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.survive.saved import about_of, load_checkpoint, own_share
from sapper.mix.survive.state import live

SHAPES: dict[str, MixPlan] = {
    "chain": plan(cut(2, 4, 6, micro_batches=4)),
    "tensor degrees 2 and 1": plan(
        Pipeline(stages=(stage(0, 3, tp=2), stage(3, 6, group="b")), micro_batch=2, micro_batches=1),
        Pipeline(stages=(stage(0, 6),), micro_batch=2, micro_batches=1),
    ),
    "tensor degree 3, states shared": plan(Pipeline(stages=(stage(0, 6, tp=3, zero=1),), micro_batch=1, micro_batches=2, copies=2)),
    "weights shared by two, cut": plan(
        Pipeline(stages=(stage(0, 4, tp=2, zero=3, replicas=2), stage(4, 6)), micro_batch=1, micro_batches=4)
    ),
    "states shared by three": plan(Pipeline(stages=(stage(0, 2, zero=1, replicas=3), stage(2, 6)), micro_batch=1, micro_batches=4)),
}
STEPS = 2


def within(box: Box, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[tuple(slice(start, start + size) for start, size in zip(box.offset, box.size, strict=True))]


def saved(name: str, folder: Path) -> Checkpoint:
    """A checkpoint of a run of two steps, each thread writing its own share."""
    one = job(SHAPES[name], "llama")
    ledger = Ledger()
    for step in range(STEPS):
        ledger.applied(step, batch=one.plan.global_batch, plan="p")

    def save(runner: Runner) -> None:
        writer = Writer(folder)
        place = Place(runner.comm.rank, runner.comm.size)
        writer.save(own_share(runner, one.plan), about_of(one, runner, ledger, one.plan), place=place)
        writer.wait()

    run_locally(one, each=save, steps=STEPS)
    return open_checkpoint(folder)


@pytest.mark.slow
def test_every_cut_loads_onto_others_and_goes_on_as_one_device_does(tmp_path: Path) -> None:
    checkpoints = {name: saved(name, tmp_path / name) for name in SHAPES}
    truths: dict[str, float] = {}
    for name in SHAPES:
        whole = Reference(job(SHAPES[name], "llama"))
        load_checkpoint(whole, tmp_path / name)
        truths[name] = whole.step().loss
        assert set(checkpoints[name].names) >= {f"{OPTIMIZER}{one}:exp_avg" for one in whole.stage.masters} | set(whole.stage.masters)
    for source, target in ((a, b) for at, a in enumerate(SHAPES) for b in islice(cycle(SHAPES), at + 1, at + 3)):
        expected = {one: checkpoints[source].tensor(one) for one in checkpoints[source].names}
        seen: dict[str, set[Box]] = {}

        def compare(runner: Runner, source: str = source, expected: Any = expected, seen: Any = seen) -> None:
            assert load_checkpoint(runner, tmp_path / source).sample == STEPS * runner.job.plan.global_batch
            for name, shards in live(runner).items():
                for one in shards:
                    assert torch.equal(one.tensor, within(one.box, expected[name])), (source, name)
                    seen.setdefault(name, set()).add(one.box)
            assert abs(runner.step().loss - truths[source]) <= 1e-12

        run_locally(job(SHAPES[target], "llama"), each=compare, steps=0)

        assert {name for name in expected if not name.startswith("rng:")} == set(seen)


@pytest.mark.slow
def test_a_cut_checkpoint_becomes_plain_safetensors(tmp_path: Path) -> None:
    found = saved("tensor degree 3, states shared", tmp_path / "run")

    (file,) = export(found, tmp_path / "plain")

    plain = TensorFile(file)
    assert list(plain.tensor("model.layers.0.mlp.up_proj.weight").shape) == [40, CONFIGS["llama"]["hidden_size"]]
    cut_in = {len(entry.pieces) for name, entry in found._manifest.tensors.items() if name.endswith("up_proj.weight")}
    assert cut_in == {3}
