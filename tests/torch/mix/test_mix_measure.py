"""Profiles of real layers, and a split that follows what ranks tell of their times."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from worlds import Place, plan, stage, world

from sapper.mix.measure import Question, measure
from sapper.mix.measure import profile as measuring
from sapper.mix.plan import Pipeline
from sapper.mix.profiles.problem import Fleet, problem_of
from sapper.mix.profiles.profile import check
from sapper.mix.run.data import Tokens
from sapper.mix.run.job import Job
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.runner import Runner, reference
from sapper.mix.run.targets import model_of, own_inputs
from sapper.mix.search import search
from support import Run

pytestmark = pytest.mark.torch
CONFIG = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
PLAIN = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        wide = [torch.nn.Linear(8, 24), torch.nn.GELU(), torch.nn.Linear(24, 8)]
        narrow = lambda: [torch.nn.Linear(8, 8), torch.nn.GELU()]
        self.enter = torch.nn.Linear(4, 8)
        self.layers = torch.nn.ModuleList([torch.nn.Sequential(*wide), *(torch.nn.Sequential(*narrow()) for _ in range(2))])
        self.leave = torch.nn.Linear(8, 1)
    def forward(self, x):
        x = self.enter(x)
        for one in self.layers:
            x = one(x)
        return self.leave(x)
def build():
    return Net(), torch.randn(6, 4), lambda out: out.square().mean()
"""


class Free:
    """A network without cost."""

    def send_s(self, size_bytes: float, **_: str) -> float:
        return 0.0

    def all_reduce_s(self, size_bytes: float, members: Any) -> float:
        return 0.0


@pytest.mark.slow
def test_a_profile_holds_what_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(
        model=ConfigModel(config=CONFIG), data=Tokens(vocab=96, seq=16), seq_len=16, micro_batches=(1, 2), seconds=0.02, name="here"
    )
    whole = measure(question)
    monkeypatch.setattr(measuring, "WHOLE_PARAMS", 0)
    apart = measure(question)

    for profile in (whole, apart):
        check(profile, where="-")
        assert profile.layers == ("embedding", "block", "block", "head")
        held, boundary = profile.held[0], profile.boundary_bytes
        # 96 x 32 words, seen by the head too; four times 32 x 32, three times 32 x 64 and two norms in a block; a norm at the end
        assert held.params == {"embedding": 3072, "block": 4 * 1024 + 3 * 2048 + 64, "head": 32} and held.tied_params == 3072
        assert boundary["embedding"] == boundary["block"] == 16 * 32 * 4
        for one in profile.timed:
            assert all(cost.forward_s > 0 and cost.backward_s > 0 for cost in one.layers.values())
        one, two = profile.timed
        assert two.layers["block"].saved_bytes == pytest.approx(2 * one.layers["block"].saved_bytes, rel=0.1)
    assert apart.timed[0].layers["block"].saved_bytes == pytest.approx(whole.timed[0].layers["block"].saved_bytes, rel=0.1)
    assert apart.model_digest == whole.model_digest


def test_a_plain_module_has_a_kind_for_each_sort_of_block(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN, "utf-8")
    model = model_of(str(tmp_path / "net.py"), seq_len=1)
    profile = measure(Question(model=model, data=own_inputs(model), seq_len=1, seconds=0.01, name="here"))

    assert profile.layers == ("embedding", "block", "block-2", "block-2", "head")
    assert profile.held[0].params == {"embedding": 40, "block": 8 * 24 + 24 + 24 * 8 + 8, "block-2": 72, "head": 9}

    fleet = Fleet(name="here", profile=profile, chips=2, chips_per_node=1, capacity_bytes=2**30)
    planned = search(problem_of([fleet], Free(), global_batch=8))
    assert planned.best is not None and planned.best.precision == "fp32" and planned.best.model_digest == profile.model_digest


@pytest.mark.slow
def test_the_command_writes_what_the_planner_reads(run_sapper: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(CONFIG))
    out = tmp_path / "profile.json"
    done = run_sapper(
        "mix", "profile", str(tmp_path / "config.json"), "--seq", "16", "--micro-batch", "2", "--seconds", "0.01", "--name", "chip",
        "--out", str(out), "--format", "csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("kind,count,micro_batch,forward_s") and "\nblock,2,2," in done.stdout

    from sapper.mix.profiles.profile import read_own

    assert read_own(out).device == "chip"
    assert run_sapper("mix", "profile", str(tmp_path / "config.json"), "--micro-batch", "0").returncode == 2


TRUE_S = (1.0, 3.0)
"""What a pass is said to take on each rank: of the clock of a busy machine nothing could be asserted."""
STEPS = 4


def job_of() -> Job:
    sides = [Pipeline(stages=(stage(0, 4, group=name),), micro_batch=1, micro_batches=6) for name in ("a", "b")]
    return Job(plan=plan(*sides, layers=2, seq=16), model=ConfigModel(config=CONFIG), data=Tokens(vocab=96, seq=16), steps=STEPS)


def follow(place: Place) -> Any:
    comm = place.join(2)
    assert comm is not None
    runner = Runner(dataclasses.replace(job_of(), replan=0.02), comm)
    assert runner._follower is not None
    tells = runner._follower.tells
    runner._follower.tells = lambda passes_s, layers_s=None: tells([TRUE_S[place.rank]] * len(passes_s), layers_s)  # type: ignore[method-assign]
    counts, losses = [], []
    for _ in range(STEPS):
        counts.append([one.micro_batches for one in runner.job.plan.pipelines])
        losses.append(runner.step().loss)
    return counts, losses, {name: one.tolist() for name, one in runner.stage.masters.items()}


@pytest.mark.slow
def test_the_split_follows_and_the_training_stays_the_same(tmp_path: Path) -> None:
    (counts, losses, weights), (other_counts, _, other_weights) = world(2, follow, folder=tmp_path)

    assert counts == other_counts == [[6, 6], [9, 3], [9, 3], [9, 3]]
    assert losses == pytest.approx(reference(job_of()).losses, abs=1e-12)
    assert weights == other_weights
