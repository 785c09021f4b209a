from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from sapper.errors import SapperError  # noqa: E402
from sapper.programs import opened  # noqa: E402
from sapper.programs.program import tensors_in  # noqa: E402
from support import Run, environment  # noqa: E402

NET = """
import torch
from torch import nn

def build(batch=3, seq=5):
    net = nn.Sequential(nn.Embedding(11, 8), nn.Dropout(0.5), nn.Linear(8, 11))
    ids = torch.randint(0, 11, (batch, seq))
    return net, ids, lambda out, x: nn.functional.cross_entropy(out.flatten(0, 1), x.flatten())
"""
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 50, "attention_dropout": 0.1,
}  # fmt: skip


def written(folder: Path, text: str) -> str:
    path = folder / "net.py"
    path.write_text(text, "utf-8")
    return str(path)


def test_the_same_seed_gives_the_same_program(tmp_path: Path):
    target = written(tmp_path, NET)

    first, second, other = (opened.open_program(target, seed=seed) for seed in (3, 3, 4))

    assert opened.weights_digest(first.program) == opened.weights_digest(second.program) != opened.weights_digest(other.program)
    assert torch.equal(first.run(), second.run())
    assert first.dropout_off == 1 and first.batch == 3


def test_opening_leaves_the_generator_alone(tmp_path: Path):
    torch.manual_seed(5)
    before = torch.get_rng_state()

    opened.open_program(written(tmp_path, NET), seed=1)

    assert torch.equal(torch.get_rng_state(), before)


def test_batch_seq_and_dtype_are_the_users(tmp_path: Path):
    found = opened.open_program(written(tmp_path, NET), batch=2, seq=7, dtype="bf16")

    assert tensors_in(found.program.inputs)[0].shape == (2, 7)
    assert {one.dtype for one in opened.parameters(found.program).values()} == {torch.bfloat16}


def test_another_draw_has_the_same_shapes_and_other_values(tmp_path: Path):
    target = written(tmp_path, NET)

    one, two = (opened.open_program(target, draw=draw).program.inputs for draw in (0, 1))

    assert one.shape == two.shape and not torch.equal(one, two)
    assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)


@pytest.mark.slow
def test_a_config_gets_seeded_weights_or_those_beside_it(tmp_path: Path):
    pytest.importorskip("transformers", reason="Transformers is not installed")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), "utf-8")
    seeded = opened.open_program(str(tmp_path), seq=6, batch=2, seed=7)
    weight = seeded.program.module.model.layers[0].mlp.up_proj.weight

    assert float(weight.detach().std()) > 0.01 and float(seeded.run().detach()) > 1

    with torch.no_grad():
        weight.fill_(0.25)
    seeded.program.module.save_pretrained(tmp_path)
    local = opened.open_program(str(tmp_path), seq=6, batch=2, seed=7)
    assert float(local.program.module.model.layers[0].mlp.up_proj.weight.detach().min()) == 0.25


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import not_there", "SP-PROG-021"),
        ("import torch.not_there", "SP-PROG-003"),
        ("def build():\n    import not_there.either", "SP-PROG-021"),
        ("def build():\n    return 'model'", "SP-PROG-009"),
        ("from torch import nn, zeros\ndef build():\n    return nn.Linear(2, 2), zeros(1, 3)", "SP-PROG-017"),
        ("from torch import nn, zeros\ndef build():\n    return nn.Linear(2, 2), zeros(1, 2), lambda y: y", "SP-PROG-020"),
    ],
)
def test_a_program_that_cannot_run_is_said_with_its_place(tmp_path: Path, text: str, code: str):
    target = written(tmp_path, text)

    with pytest.raises(SapperError) as raised:
        opened.open_program(target).run()

    assert raised.value.code == code
    assert str(raised.value.where).startswith(target)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("torch.cholesky_inverse(y.T @ y)", "SP-PROG-022"),
        ("torch.fft.rfft(y).abs()", "SP-PROG-022"),
        ("torch.complex(y, y).abs()", "SP-PROG-022"),
        ("torch.nn.functional.nll_loss(y, y[:, 0])", "SP-PROG-017"),  # a mistake in fp32 too
        ("y @ torch.ones(2, 2)", "SP-PROG-017"),
    ],
)  # fmt: skip
def test_a_dtype_that_the_cpu_lacks_is_told_from_one_that_does_not_fit(tmp_path: Path, what: str, code: str):
    text = f"import torch\ndef build():\n    return torch.nn.Linear(2, 2), torch.zeros(2, 2), lambda y: {what}.sum()"
    with pytest.raises(SapperError) as raised:
        opened.open_program(written(tmp_path, text), dtype="bf16").run()

    assert raised.value.code == code


@pytest.mark.slow
def test_a_config_that_says_minus_one_for_no_limit_has_samples_as_asked_for(tmp_path: Path):
    pytest.importorskip("transformers", reason="Transformers is not installed")
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "max_position_embeddings": -1}), "utf-8")

    assert opened.open_program(str(tmp_path), seq=6, batch=2).program.seq == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "how", "line"),
    [
        ("ctypes.string_at(0)", "Segmentation fault", ":4 in dies"), ("os.abort()", "Aborted", ":4 in dies"),
        ("os._exit(3)", "os._exit", ""), ("os._exit(0)", "os._exit", ""),
    ],
)
def test_a_program_that_ends_the_process_is_said_with_its_place(tmp_path: Path, run_sapper: Run, ends: str, how: str, line: str):
    text = f"""\
        import ctypes, os, torch

        def dies():
            {ends}

        def build():
            dies()
        """
    target = written(tmp_path, textwrap.dedent(text))

    done = run_sapper("prove", "model", target, "--on", "papertiger")

    assert done.returncode not in (0, 1, 2)
    assert f"error: {target}{line}: the program ended the whole process" in done.stderr and how in done.stderr
    assert "[SP-PROG-024]" in done.stderr and "Run that line by itself" in done.stderr


@pytest.mark.slow
def test_an_end_from_outside_is_not_laid_at_the_programs_door(tmp_path: Path) -> None:
    target = written(tmp_path, "import sys, time\n\ndef build():\n    print('here', file=sys.stderr, flush=True)\n    time.sleep(60)\n")
    command = [sys.executable, "-m", "sapper", "capture", target]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()) as running:
        assert running.stderr is not None and "here" in running.stderr.readline()
        running.terminate()
        said = running.communicate(timeout=60)[1]

    assert running.returncode == -signal.SIGTERM
    assert "ended from outside" in said and "SP-PROG-024" not in said


@pytest.mark.slow
def test_what_a_program_forks_may_end_as_it_likes(tmp_path: Path, run_sapper: Run) -> None:
    text = """\
        import os
        from torch import nn, zeros

        def build():
            child = os.fork()
            if not child:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            return nn.Linear(2, 2), zeros(1, 2)
        """

    assert run_sapper("capture", written(tmp_path, textwrap.dedent(text))).returncode == 0


ASKING = """
import torch
from torch import nn
from typing import NamedTuple

class Pair(NamedTuple):
    ids: torch.Tensor
    offsets: torch.Tensor

class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.norm = nn.EmbeddingBag(20, 4), nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, dense, pair, order):
        self.seen = self.seen + 1
        if sorted(order.tolist()) != [0, 1, 2, 3] or order[0] != 1:
            raise ValueError("order")
        return self.norm(self.bag(pair.ids, pair.offsets) + dense).square().mean()

def build():
    return Bag(), (torch.randn(4, 4), Pair(torch.randint(0, 20, (12,)), torch.arange(0, 12, 3)), torch.tensor([1, 0, 3, 2]))
"""


def test_other_inputs_are_ones_that_the_program_takes(tmp_path: Path):
    target = written(tmp_path, ASKING)

    first, other = opened.open_program(target), opened.open_program(target, draw=1)

    other.run()
    dense, pair, order = other.program.inputs
    assert torch.equal(pair.offsets, torch.arange(0, 12, 3)) and torch.equal(order, torch.tensor([1, 0, 3, 2]))
    assert not torch.equal(dense, first.program.inputs[0])


@pytest.mark.parametrize(("dtype", "kept"), [("fp32", torch.complex64), ("fp64", torch.complex128), ("bf16", torch.complex64)])
def test_complex_weights_stay_complex(tmp_path: Path, dtype: str, kept: torch.dtype):
    text = """
        import torch
        class Spectrum(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.filter = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
            def forward(self, x):
                return torch.fft.irfft(torch.fft.rfft(x.float()) * self.filter).square().mean()
        def build():
            return Spectrum(), torch.randn(2, 4)
        """
    found = opened.open_program(written(tmp_path, textwrap.dedent(text)), dtype=dtype)

    assert [one.dtype for one in found.program.module.parameters()] == [kept]
    assert found.run().requires_grad


def test_a_run_leaves_running_means_and_counters_as_they_were(tmp_path: Path):
    found = opened.open_program(written(tmp_path, ASKING))
    before = {name: one.clone() for name, one in found.program.module.named_buffers()}

    found.run()

    assert all(torch.equal(one, before[name]) for name, one in found.program.module.named_buffers())


SPARSE = """
import torch
from torch import nn

class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.register_buffer("adj", torch.eye(4).to_sparse())
        self.register_buffer("rows", torch.eye(4).to_sparse_csr())
        self.register_buffer("grid", torch.empty(3, device="meta"))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        self.adj.mul_(2)
        self.mean.data.add_(x.mean(0))
        return torch.sparse.mm(self.adj, self.mix(x)) + torch.sparse.mm(self.rows, x) - self.mean

def build():
    return Graph(), torch.randn(4, 8)
"""


def test_sparse_buffers_run_and_are_kept(tmp_path: Path):
    found = opened.open_program(written(tmp_path, SPARSE))

    first = found.run()
    first.backward()
    second = found.run()

    module = found.program.module
    assert first.requires_grad and torch.equal(first, second)
    assert torch.equal(module.adj.to_dense(), torch.eye(4)) and not module.mean.any()
