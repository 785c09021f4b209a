"""A job over several processes gives the numbers of one device, whatever the plan and the model."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
import plain
import pytest
from torch.utils.data import DataLoader
from worlds import Place, cut, differences, plan, world

import torch
from sapper.errors import BadValue
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.anatomy import Uncuttable
from sapper.mix.run.data import Rows, Tokens, data_of
from sapper.mix.run.job import Job
from sapper.mix.run.local import run_locally
from sapper.mix.run.models import BuiltModel, ConfigModel
from sapper.mix.run.rates import Rates
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.run.stage import dissect
from sapper.mix.wire.faults import WireError

WIDE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **WIDE},
    "qwen3": {"model_type": "qwen3", **WIDE, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", **WIDE, "sliding_window": 8},
    "opt": {
        "model_type": "opt", "vocab_size": 96, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16,
    },
    "gpt2": {"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 32},
    "mixtral": {
        "model_type": "mixtral", **WIDE, "intermediate_size": 16, "num_local_experts": 4, "output_router_logits": True,
        "router_aux_loss_coef": 0.1,
    },
}  # fmt: skip
COPIES = plan(cut(6, micro_batch=3, micro_batches=1, copies=2), cut(6, micro_batch=1, micro_batches=3))
CHAIN = plan(cut(1, 3, 5, 6, micro_batch=2, micro_batches=4))
BOTH = plan(cut(5, 6, micro_batch=2, micro_batches=2), cut(2, 6, replicas=(2, 1), micro_batches=3, group="b"))
FLUSHED = plan(cut(2, 4, 6, replicas=(1, 2, 1), micro_batch=1, micro_batches=5, group="b"), schedule="gpipe")
LEAN = plan(
    Pipeline(
        stages=(Stage(group="a", first=0, last=3, recompute="full"), Stage(group="b", first=3, last=6, recompute="selective")),
        micro_batch=1, micro_batches=3, copies=2,
    )
)  # fmt: skip


def job(shape: MixPlan, model: str, **more: Any) -> Job:
    if model in CONFIGS:
        data, source = Tokens(vocab=96, seq=16, masked=0.2, ragged=model != "opt"), ConfigModel(config=CONFIGS[model])
        return Job(plan=shape, model=source, data=data, steps=2, clip=0.5, rates=Rates(kind="cosine", warmup=2, total=9), **more)
    build = {"plain": plain.build, "sequential": plain.build_sequential}[model]
    return Job(plan=shape, model=BuiltModel(build), data=plain.Words(), steps=2, optimizer="sgd", lr=0.1, **more)


JOBS = {
    "unequal copies, llama": job(COPIES, "llama"),
    "unequal copies, gpt2": job(COPIES, "gpt2"),
    "chain, mixtral": job(CHAIN, "mixtral"),
    "chain, qwen3": job(CHAIN, "qwen3"),
    "chain, plain": job(CHAIN, "plain"),
    "both, gpt2": job(BOTH, "gpt2"),
    "both, gemma2": job(BOTH, "gemma2"),
    "both, mixtral": job(BOTH, "mixtral"),
    "gpipe, opt": job(FLUSHED, "opt"),
    "gpipe, sequential": job(FLUSHED, "sequential"),
    "recomputed, gpt2": job(LEAN, "gpt2"),
    "recomputed, plain": job(LEAN, "plain"),
}
Truth = tuple[list[float], dict[str, torch.Tensor]]


def truth(job: Job) -> Truth:
    """Losses and last weights of one device."""
    runner = Reference(job)
    return [runner.step().loss for _ in range(job.steps)], {name: one.detach() for name, one in runner.stage.masters.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_every_plan_gives_the_numbers_of_one_device(name: str) -> None:
    losses, weights = truth(JOBS[name])
    off: list[float] = []

    logs = run_locally(JOBS[name], each=lambda runner: off.append(differences(runner.stage.masters, weights)))

    for log in logs:
        assert log.losses == pytest.approx(losses, rel=0, abs=1e-12)
    assert len(off) == sum(JOBS[name].plan.chips.values())
    assert max(off) <= 1e-12


@pytest.mark.slow
def test_the_cut_of_a_batch_does_not_show_in_its_loss() -> None:
    """Unequal micro-batches with hidden tokens and dropout: the same as all samples at once."""
    losses, weights = truth(JOBS["both, gpt2"])
    whole = Reference(JOBS["both, gpt2"], whole=True)

    assert [whole.step().loss for _ in losses] == pytest.approx(losses, rel=0, abs=1e-12)
    assert differences(whole.stage.masters, weights) <= 1e-12


@pytest.mark.slow
def test_twenty_steps_in_fp32_stay_within_two_millionths() -> None:
    shape = msgspec.structs.replace(BOTH, precision="fp32", wire="fp32")
    one = dataclasses.replace(job(shape, "plain"), steps=20, optimizer="adamw", lr=0.01, clip=0.5)

    losses, _ = truth(one)

    assert run_locally(one)[0].losses == pytest.approx(losses, rel=0, abs=2e-6)
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_groups_of_unlike_precision_agree_on_the_wire(precision: str) -> None:
    shape = msgspec.structs.replace(BOTH, precision="fp32", wire="bf16")
    one = job(shape, "llama")
    losses, _ = truth(one)

    mixed = run_locally(dataclasses.replace(one, dtypes={"b": precision}))

    assert mixed[0].losses == pytest.approx(losses, rel=0, abs=0.02)
    assert len({log.losses for log in mixed}) == 1


def once(place: Place) -> tuple[list[float], str]:
    """A job among processes, of which the last one ends in its second step; then what the others saw."""
    one = JOBS["both, gpt2"]
    comm = place.join(5)
    assert comm is not None
    runner = Runner(dataclasses.replace(one, data=Ending(one.data, place.rank == 4)), comm)
    losses, before = [], {}
    try:
        for _ in range(one.steps):
            before = {name: weight.detach().clone() for name, weight in runner.stage.masters.items()}
            losses.append(runner.step().loss)
    except WireError as error:
        assert differences(runner.stage.masters, before) == 0.0
        return losses, type(error).__name__
    return losses, ""


@dataclasses.dataclass
class Ending:
    """Data that ends the process when it is asked for the second step."""

    inner: Any
    ends: bool

    def batch(self, numbers: Any) -> Any:
        if self.ends and min(numbers) >= 7:
            os._exit(0)
        return self.inner.batch(numbers)

    def weight(self, inputs: Any) -> float:
        return float(self.inner.weight(inputs))


@pytest.mark.slow
def test_processes_give_the_same_and_a_lost_one_changes_no_weight(tmp_path: Path) -> None:
    losses, _ = truth(JOBS["both, gpt2"])

    found = world(5, once, folder=tmp_path, lost={4})

    assert [seen for _, seen in found] == ["PeerLost"] * 4
    for one, _ in found:
        assert one == pytest.approx(losses[:1], rel=0, abs=1e-12)


def test_a_configuration_that_leaves_out_layers_at_random_is_refused() -> None:
    with pytest.raises(BadValue, match=r"`layerdrop` = 0\.1"):
        ConfigModel(config={**CONFIGS["opt"], "layerdrop": 0.1}).shapes()


@pytest.mark.slow
def test_models_that_are_no_chain_are_refused_and_train_whole() -> None:
    leaky = Job(plan=CHAIN, model=BuiltModel(plain.build_leaky, name="leaky.py"), data=plain.Words(), steps=1)
    with pytest.raises(Uncuttable, match=r"leaky\.py: layer 5 uses something.*SP-MIX-102"):
        run_locally(leaky)
    for build, layers in ((plain.build_leaky, 4), (plain.build_single, 0)):
        copies = plan(cut(layers + 2, micro_batch=2, micro_batches=1, copies=2), layers=layers)
        one = Job(plan=copies, model=BuiltModel(build), data=plain.Words(), steps=2)
        assert run_locally(one)[0].losses == pytest.approx(truth(one)[0], rel=0, abs=1e-12)
    with pytest.raises(Uncuttable, match="SP-MIX-100"):
        run_locally(dataclasses.replace(leaky, model=BuiltModel(plain.build_single)))


def test_what_a_model_is_made_of() -> None:
    found = dissect(JOBS["chain, mixtral"], whole=False)
    tied = dissect(JOBS["chain, plain"], whole=False)

    assert found is not None and tied is not None
    assert found.used["model.embed_tokens.weight"] == {0}
    assert found.used["lm_head.weight"] == {5}
    assert [side.module for side in found.sides_before(3)] == ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
    assert tied.used["words.weight"] == {0, 5}
    assert [(side.module, side.attribute) for side in tied.sides_before(2)] == [("blocks.0", "penalty")]
    assert len(tied.carried[3]) == 2  # the stream and the embeddings


def test_data_of_a_user_is_dealt_out_by_number() -> None:
    rows = [{"labels": torch.tensor([number, -100, 5])} for number in range(10)]
    data = data_of(DataLoader(rows, batch_size=3, shuffle=True), shifted=True, where="own.py")

    first, second = ([int(one) for one in data.batch(numbers)["labels"][:, 0]] for numbers in (range(10), range(10, 20)))

    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [int(one) for one in data.batch([8, 13])["labels"][:, 0]] == [first[8], second[3]]
    assert data.weight(data.batch([0, 1])) == 2
    assert Rows({"x": torch.arange(3)}).batch([2, 3])["x"].tolist() == [2, 0]
    with pytest.raises(BadValue, match=r"own.py: gave a list_iterator.*SP-MIX-106"):
        data_of(iter(rows), shifted=False, where="own.py")
