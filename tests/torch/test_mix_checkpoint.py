"""Checkpoints of a mixed run: any mix to any mix bit for bit, readable by others, and never loaded when torn."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch
from sapper.errors import BadFile
from sapper.mix.checkpoint import manifest, rng
from sapper.mix.checkpoint.export import export
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.manifest import About
from sapper.mix.checkpoint.read import open_checkpoint
from sapper.mix.checkpoint.shard import Shard, part, whole
from sapper.mix.checkpoint.write import Place, Writer
from support import ROOT

LAYERS, WIDTH = 6, 8
NAMES = ["embed.weight", *(f"blocks.{at}.{what}" for at in range(LAYERS) for what in ("weight", "bias", "scale")), "head.weight"]


def values(*, seed: int) -> dict[str, torch.Tensor]:
    """A model and what AdamW keeps of it; dtypes mixed, ``scale`` without dims."""
    source = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for name in NAMES:
        shape = {"weight": (3 * WIDTH, WIDTH), "bias": (WIDTH,), "scale": ()}[name.rpartition(".")[2]]
        dtype = torch.bfloat16 if name.endswith("bias") else torch.float64 if name.endswith("scale") else torch.float32
        found[name] = torch.randn(shape, generator=source).to(dtype)
        for key in ("exp_avg", "exp_avg_sq"):
            found[f"optimizer:{name}:{key}"] = torch.randn(shape, generator=source)
        found[f"optimizer:{name}:step"] = torch.tensor(float(seed))
    return found


def layer(name: str) -> int:
    """Of a tensor: 0 the embedding, then the blocks, then the head."""
    name = name.removeprefix("optimizer:")
    return 0 if name.startswith("embed") else LAYERS + 1 if name.startswith("head") else int(name.split(".")[1]) + 1


def ends(total: int, weights: list[int]) -> list[int]:
    """``total`` cut in the ratio of ``weights``: the ends of the parts."""
    return [total * sum(weights[: at + 1]) // sum(weights) for at in range(len(weights))]


def held(mix: dict[str, Any], whole_of: dict[str, torch.Tensor]) -> list[dict[str, tuple[Shard]]]:
    """What each rank of a mix holds: layers by stage, dim 0 of matrices by ``tp``, states of the optimizer by ``zero`` ranges."""
    ranks: list[dict[str, tuple[Shard]]] = []
    for first, last in itertools.pairwise([0, *mix["cuts"], LAYERS + 2]):
        for shard in range(len(mix.get("tp", [1]))):
            for zero in range(len(mix.get("zero", [1]))):
                ranks.append(
                    {
                        name: (share(name, tensor, mix=mix, shard=shard, zero=zero),)
                        for name, tensor in whole_of.items()
                        if first <= layer(name) < last
                    }
                )
    return ranks


def share(name: str, tensor: torch.Tensor, *, mix: dict[str, Any], shard: int, zero: int) -> Shard:
    tp, cut = mix.get("tp", [1]), mix.get("zero", [1])
    if tensor.dim() == 2 and len(tp) > 1:
        low, high = ([0, *ends(len(tensor), tp)][shard + at] for at in (0, 1))
        return part(tensor[low:high].clone(), tensor.shape, offset=(low, 0))
    if name.startswith("optimizer:") and tensor.dim() and len(cut) > 1:
        low, high = ([0, *ends(tensor.numel(), cut)][zero + at] for at in (0, 1))
        return part(tensor.reshape(-1)[low:high].clone(), tensor.shape, offset=(low,), flat=True)
    return whole(tensor.clone())


MIXES: list[dict[str, Any]] = [
    {"cuts": []}, {"cuts": [4]}, {"cuts": [1, 6]}, {"cuts": [2, 3, 7]}, {"cuts": [], "tp": [1, 1]}, {"cuts": [3], "tp": [3, 1]},
    {"cuts": [], "zero": [5, 2, 1]}, {"cuts": [5], "zero": [1, 3]}, {"cuts": [6], "tp": [1, 2, 1]}, {"cuts": [1, 2], "zero": [1, 1]},
]  # fmt: skip


def save(root: Path, mix: dict[str, Any], whole_of: dict[str, torch.Tensor], *, step: int, **about: Any) -> None:
    ledger = Ledger()
    for at in range(step):
        ledger.applied(at, batch=16, plan="p")
    ranks = held(mix, whole_of)
    writers = [Writer(root) for _ in ranks]
    for rank in reversed(range(len(ranks))):
        state = ranks[rank] | (rng.streams() if rank == 0 else {})
        writers[rank].save(state, About(step=step, ledger=ledger, **about), place=Place(rank, len(ranks)))
    for writer in writers:
        writer.wait()


@pytest.mark.slow
def test_twenty_pairs_of_mixes_are_exact(tmp_path: Path) -> None:
    truth = values(seed=3)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    draws: list[Any] = []
    for at, mix in enumerate(MIXES):
        save(tmp_path / str(at), mix, truth, step=7)
    draws = [random.random(), np.random.rand(), torch.rand(3)]
    for at, offset in itertools.product(range(len(MIXES)), (1, 4)):
        checkpoint = open_checkpoint(tmp_path / str(at))
        for rank in held(MIXES[(at + offset) % len(MIXES)], values(seed=4)):
            checkpoint.fill(rank)
            expected = {name: share_like(truth[name], shard) for name, (shard,) in rank.items()}
            assert all(torch.equal(shard.tensor, expected[name]) for name, (shard,) in rank.items())
        rng.restore(checkpoint.rng())
        assert [random.random(), np.random.rand()] == draws[:2]
        assert torch.equal(torch.rand(3), draws[2])
        assert (checkpoint.about.ledger.step, checkpoint.about.ledger.sample) == (7, 7 * 16)


def share_like(tensor: torch.Tensor, shard: Shard) -> torch.Tensor:
    base = tensor.reshape(-1) if shard.box.flat else tensor
    return base[tuple(slice(a, a + n) for a, n in zip(shard.box.offset, shard.box.size, strict=True))]


@pytest.mark.slow
def test_other_readers_read_the_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    model = LlamaForCausalLM(config)
    weights = {name: (whole(tensor),) for name, tensor in model.state_dict().items()}
    half = dict(list(weights.items())[:9])
    writers = [Writer(tmp_path / "run"), Writer(tmp_path / "run")]
    settings = json.loads(config.to_json_string(use_diff=False)) | {"architectures": ["LlamaForCausalLM"]}
    about = About(step=0, ledger=Ledger(), config=settings)
    for rank, state in enumerate((half, {name: one for name, one in weights.items() if name not in half})):
        writers[rank].save(state, about, place=Place(rank, 2))
    for writer in writers:
        writer.wait()
    checkpoint = open_checkpoint(tmp_path / "run")
    files = export(checkpoint, tmp_path / "out", max_file_bytes=4000)

    assert len(files) > 1
    for folder in (checkpoint.folder, tmp_path / "out"):
        found = {name: tensor for path in folder.glob("model-*.safetensors") for name, tensor in load_file(path).items()}
        assert all(torch.equal(found[name], shard.tensor) for name, (shard,) in weights.items())
        again = AutoModelForCausalLM.from_pretrained(folder)
        assert all(torch.equal(tensor, weights[name][0].tensor) for name, tensor in again.state_dict().items())


def torn(folder: Path, how: str) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    if how == "missing":
        file.unlink()
    elif how == "short":
        os.truncate(file, 100)
    elif how == "bit":
        raw = bytearray(file.read_bytes())
        raw[-3] ^= 1
        file.write_bytes(raw)
    elif how == "no manifest":
        (folder / manifest.NAME).unlink()
    elif how == "manifest short":
        os.truncate(folder / manifest.NAME, 200)
    else:
        text = (folder / manifest.NAME).read_text("utf-8")
        (folder / manifest.NAME).write_text(text.replace('"batch": 16', '"batch": 17'), "utf-8")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "lacks its file `model-00001-of-00002.safetensors`"), ("short", "has 100 bytes of"), ("bit", "SHA-256"),
        ("no manifest", "no finished checkpoint"), ("manifest short", "manifest.json"), ("altered", "altered or cut short"),
    ],
)  # fmt: skip
def test_a_torn_checkpoint_never_loads(tmp_path: Path, how: str, says: str) -> None:
    truth = values(seed=5)
    for step in (3, 6):
        save(tmp_path, MIXES[1], truth, step=step)
    newest = manifest.folder_of(tmp_path, 6)
    torn(newest, how)
    ranks = held(MIXES[0], values(seed=6))
    before = {name: shard.tensor.clone() for name, (shard,) in ranks[0].items()}
    with pytest.raises(BadFile, match=says) as caught:
        open_checkpoint(newest).fill(ranks[0])

    if how != "manifest short":  # the file's own error, which names line and column
        assert "step-00000003" in caught.value.render()
    assert how == "bit" or all(torch.equal(shard.tensor, before[name]) for name, (shard,) in ranks[0].items())
    assert open_checkpoint(tmp_path, step=3).about.step == 3


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    truth = values(seed=5)
    save(tmp_path, MIXES[2], {name: one for name, one in truth.items() if name != "head.weight"}, step=1)
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(BadFile, match=r"such as `head.weight`"):
        checkpoint.fill({"head.weight": (whole(truth["head.weight"]),)})
    with pytest.raises(BadFile, match=r"as F32 \[24, 8\], here it is F64 \[24, 8\]"):
        checkpoint.fill({"embed.weight": (whole(truth["embed.weight"].double()),)})


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    writer = Writer(tmp_path, keep=2)
    (tmp_path / ".step-00000001-old").mkdir()
    for step in range(4):
        writer.save({"w": (whole(torch.ones(3)),)}, About(step=step, ledger=Ledger()))
    writer.wait()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_writer_that_is_gone_leaves_no_checkpoint(tmp_path: Path) -> None:
    heard: list[BadFile] = []
    writer = Writer(tmp_path, limit_s=0.1, told=heard.append)
    writer.save({"w": (whole(torch.ones(3)),)}, About(step=0, ledger=Ledger()), place=Place(0, 2))
    writer.wait()

    assert [error.code for error in heard] == ["SP-MIX-189"]
    assert manifest.steps(tmp_path) == []


KILLED = """
import sys, torch
from pathlib import Path
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.manifest import About
from sapper.mix.checkpoint.shard import whole
from sapper.mix.checkpoint.write import Writer

writer = Writer(Path(sys.argv[1]), keep=2)
for step in range(10**6):
    state = {f"w{at}": (whole(torch.full((20_000,), float(step))),) for at in range(4)}
    writer.save(state, About(step=step, ledger=Ledger()))
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_a_whole_one(tmp_path: Path) -> None:
    """SIGKILL at seven moments of one running writer after another; what is found is whole and of one step."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    with process:
        for _ in range(5):
            process.stdout.readline()
        for moment in range(7):  # stopped at a random point of the writing, what is on the disk is all that a kill would leave
            time.sleep(0.01 + 0.003 * moment)
            process.send_signal(signal.SIGSTOP)
            checkpoint = open_checkpoint(tmp_path)
            checkpoint.verify()
            assert {float(checkpoint.tensor(name)[0]) for name in checkpoint.weights} == {float(checkpoint.about.step)}
            process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGKILL)
    open_checkpoint(tmp_path).verify()
    assert json.loads((open_checkpoint(tmp_path).folder / manifest.NAME).read_text("utf-8"))["format"] == manifest.FORMAT
