"""prove train: correct runs stay inside the envelope, faults leave it where they are, and nothing that a device does loses a run."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from torch.nn import functional
from train_programs import LIMPING, MODEL

import torch
from sapper.errors import BadValue, SapperError
from sapper.prove.noise import Noise
from sapper.prove.train import data, verdict, worker
from sapper.prove.train.envelope import envelope, student
from sapper.prove.train.perturb import Perturbed
from sapper.prove.train.plan import Experiment, Settings
from sapper.prove.train.sketch import Sketcher
from sapper.prove.train.verdict import Judged, judged, read
from support import Run

STEPS, MEMBERS = 4, 5


def test_a_sketch_of_a_difference_is_the_difference_of_the_sketches() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(40, 30, generator=generator) for _ in range(2))
    apart = Sketcher()("w", first) - Sketcher()("w", second)
    assert np.allclose(apart, Sketcher()("w", first.double() - second.double()))
    lengths = [float(np.linalg.norm(Sketcher()(f"w{at}", first))) / float(first.norm()) for at in range(50)]
    assert abs(np.mean(lengths) - 1) < 0.03 and max(abs(one - 1) for one in lengths) < 0.3


def test_one_changed_element_is_seen_in_full() -> None:
    tensor = torch.randn(5000)
    other = tensor.clone()
    other[1234] += 0.5
    apart = np.linalg.norm(Sketcher()("w", other) - Sketcher()("w", tensor))
    assert math.isclose(float(apart), 0.5, rel_tol=1e-6)


@pytest.mark.parametrize(("level", "freedom", "expected"), [(0.001, 7, 4.785), (0.025, 10, 2.228), (0.0005, 30, 3.646)])
def test_quantiles_are_those_of_the_tables(level: float, freedom: int, expected: float) -> None:
    assert abs(student(level, freedom) - expected) < 5e-4


def test_correct_runs_leave_the_envelope_as_seldom_as_it_says() -> None:
    """Without the allowance for other stacks: 400 experiments of 5 members and one more run like them, at the level of 0.001."""
    random = np.random.default_rng(0)
    left = 0
    for _ in range(400):
        runs = np.abs(random.normal(size=(6, 20, 8)))
        found = envelope(runs[:5], np.zeros((20, 8)), floor=np.full((20, 8), 1e-12), groups=["grad"] * 8, dtype="fp32")
        left += bool((runs[5] > found.allowed).any())
    assert left <= 4


def test_scalars_scatter_more_than_what_they_are_pooled_with_and_are_not_accused_for_it() -> None:
    """A bias of one number and a loss among large tensors, 600 experiments of 8 members at the level of 0.001."""
    random = np.random.default_rng(0)
    sizes = {"grad": 500, "grad (small)": 1, "loss (small)": 1, "output": 500, "update": 500, "update (small)": 1}
    left = 0
    for _ in range(600):
        each = [np.sqrt(random.chisquare(size, (9, 50)) / size) for size in sizes.values()]
        runs = np.stack(each, 2)
        found = envelope(runs[:8], np.zeros(runs.shape[1:]), floor=np.full(runs.shape[1:], 1e-12), groups=list(sizes), dtype="fp32")
        left += bool((runs[8] > found.allowed).any())
    assert left <= 2


@pytest.mark.parametrize(("off", "left"), [(3e-8, False), (1e-5, True)])
def test_an_update_is_measured_no_finer_than_the_parameter_is_written(off: float, left: bool) -> None:
    """Parameters of length 1 in fp32 lie 6e-8 apart; that all members round to the same side says nothing of who rounds to the other."""
    names = ["loss", "grad w", "direction", "update w"]
    ones, is_update = np.ones((10, 4)), np.array([0.0, 0.0, 0.0, 1.0])
    first = {"names": names, "sizes": [1, 4, 4, 4], "roundoffs": [2.0**-53] * 2 + [2.0**-24] * 2, "order": ["w"]}

    def run(distance: float) -> verdict.Run:
        apart = ones * np.where(is_update, distance, 1e-10)
        return verdict.Run(
            loss=ones[:, 0], norm=1e-4 * ones, held=ones * is_update, distance=apart, scale=ones, across=apart, angle=apart,
            first=first, wall_s=0.0,
        )  # fmt: skip

    members = [run(1e-10 * (1 + at / 10)) for at in range(7)]
    found = verdict.judged(run(off), truth=run(0.0), peer=run(1e-10), members=members, dtype="fp32")
    assert bool(found.departures) is left


def test_drawn_batches_can_be_learned_and_are_the_same_each_time() -> None:
    ids, labels = torch.randint(0, 200, (16, 40)), torch.randint(0, 10, (16,))
    pixels, mask = torch.randn(16, 3, 4, 4), torch.ones(16, 40, dtype=torch.long)
    given = {"ids": ids, "labels": labels, "same": ids.clone(), "pixels": pixels, "mask": mask, "cache": False}
    first, second = data.drawn(given, seed=3), data.drawn(given, seed=3)
    assert len(first) == data.DISTINCT
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in ("ids", "pixels"))
    batch = first[0]
    assert torch.equal(batch["mask"], mask) and torch.equal(batch["ids"], batch["same"]) and batch["cache"] is False
    assert int(batch["ids"].min()) >= 0 and int(batch["ids"].max()) < 200
    follows: dict[int, list[int]] = {}
    for row in batch["ids"].tolist():
        for one, after in itertools.pairwise(row):
            follows.setdefault(one, []).append(after)
    likeliest = sum(max(map(after.count, after)) for after in follows.values()) / sum(map(len, follows.values()))
    assert likeliest > 0.85
    kinds = {int(label): pixels for label, pixels in zip(batch["labels"], batch["pixels"], strict=True)}
    again = [(int(a), b) for a, b in zip(first[1]["labels"], first[1]["pixels"], strict=True) if int(a) in kinds]
    assert np.mean([float(functional.cosine_similarity(kinds[a].flatten(), b.flatten(), dim=0)) for a, b in again]) > 0.4


def test_noise_is_the_same_wherever_it_is_asked_for() -> None:
    x = torch.ones(1000)

    def drawn(step: int) -> tuple[Any, Any]:
        noise = Noise(1)
        noise.begin(step)
        with noise:
            return functional.dropout(x, 0.25, True), torch.rand_like(x)

    (a, b), (c, d), (e, _) = drawn(3), drawn(3), drawn(4)
    assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, e)
    assert 0.2 < float((a == 0).float().mean()) < 0.3 and float(a.max()) == pytest.approx(4 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_draws_stay_inside_their_distribution(dtype: torch.dtype) -> None:
    like = torch.zeros(200_000, dtype=dtype)
    with Noise(1):
        drawn = [torch.rand(200_000, dtype=dtype), torch.rand_like(like), torch.rand_like(input=like), like.clone().uniform_()]
        spans = [(low, high, like.clone().uniform_(low, to=high)) for low, high in ((-3, 5), (-1, 0), (0.3, 0.7), (-4, -2), (2, 2))]
        integers = torch.empty(1000, dtype=dtype).random_()

    for one in drawn:
        assert one.dtype == dtype and float(one.max()) == 1 - torch.finfo(dtype).eps / 2 and float(one.min()) >= 0
        assert bool(torch.isfinite(-torch.log(-torch.log(one.clamp(min=1e-4)))).all()) and int((one * 7).long().max()) == 6
    for low, high, one in spans:
        rounded = [float(torch.tensor(end, dtype=dtype)) for end in (low, high)]
        top = torch.nextafter(*torch.tensor([high, low], dtype=dtype)) if rounded[1] >= high else torch.tensor(rounded[1])
        assert rounded[0] <= float(one.min()) and float(top) - 1e-4 <= float(one.max()) <= float(top)
    assert float(integers.min()) >= 0 and float(integers.max()) <= 2 / torch.finfo(dtype).eps


def test_a_run_in_fp64_is_fed_what_a_narrow_one_is() -> None:
    def fed(dtype: torch.dtype) -> list[Any]:
        x = torch.zeros(5000, dtype=dtype)
        with Noise(1, dtype=torch.bfloat16):
            return [torch.rand_like(x), torch.randn_like(x), *(getattr(x.clone(), name)() for name in ("uniform_", "random_"))]

    assert all(torch.equal(one.double(), two) for one, two in zip(fed(torch.bfloat16), fed(torch.float64), strict=True))


def test_samplers_by_keyword_and_leaves() -> None:
    x = torch.full((50,), 0.5, dtype=torch.float64)
    with Noise(1):
        tensors = [
            torch.rand_like(input=x), torch.randn_like(input=x), torch.randint_like(input=x, low=1, high=3), torch.bernoulli(input=x),
            torch.normal(mean=x, std=x),
        ]  # fmt: skip
        leaf = torch.randn(3, dtype=torch.float64, requires_grad=True)
        written = torch.empty(0, dtype=torch.float64)
        assert torch.rand(4, out=written) is written

    assert all(one.dtype == torch.float64 and one.shape == x.shape for one in tensors)
    assert {1.0, 2.0} == set(tensors[2].tolist()) and {0.0, 1.0} == set(tensors[3].tolist())
    leaf.sum().backward()
    assert leaf.is_leaf and leaf.grad is not None
    assert written.shape == (4,) and bool((written > 0).any())


def settings_of(folder: Path, **more: Any) -> Settings:
    (folder / "model.py").write_text(MODEL)
    return Settings(target=str(folder / "model.py"), on="papertiger", steps=STEPS, members=MEMBERS, **more)


def run(folder: Path, settings: Settings, role: str, number: int = 0) -> None:
    payload = {"folder": str(folder), "settings": msgspec.to_builtins(settings), "role": role, "number": number}
    for _ in worker.run(payload):
        pass


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """The reference's runs, made once."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = settings_of(folder, dtype=request.param)
    Experiment(folder, settings).write()
    run(folder, settings, "truth")
    run(folder, settings, "peer")
    for number in range(MEMBERS):
        run(folder, settings, "member", number)
    return folder, settings


def against(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """The CPU, as it has been made by then, judged as the device."""
    (folder / "device.jsonl").unlink(missing_ok=True)
    of = worker.trainer_of
    monkeypatch.setattr(worker, "trainer_of", lambda experiment, role, noise, number: of(experiment, "peer", noise, number))
    run(folder, settings, "device")
    truth, peer, device = (read(folder / f"{name}.jsonl") for name in ("truth", "peer", "device"))
    members = [read(folder / f"member-{at}.jsonl") for at in range(MEMBERS)]
    assert truth and peer and device and all(members)
    return judged(device, truth=truth, peer=peer, members=[one for one in members if one], dtype=settings.dtype)


@pytest.mark.slow
def test_a_perturbed_run_hands_on_what_it_chooses_as_it_is() -> None:
    x, index = torch.randn(6, 4, dtype=torch.float32, requires_grad=True), torch.tensor([0, 1, 0, 1, 2, 2])

    with Perturbed(0):
        largest = x.amax(1) + x.new_zeros(6).scatter_reduce(0, index, x[:, 0], "amax", include_self=False)
        (grad,) = torch.autograd.grad(largest.sum(), x)

    assert grad.isfinite().all()  # the gradient goes where an input equals the largest: nowhere, had that been moved


def test_a_correct_stack_stays_inside(reference: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sums in another order: each linear layer in two halves."""
    linear = functional.linear

    def halves(x: Any, weight: Any, bias: Any = None) -> Any:
        at = x.shape[-1] // 2
        out = linear(x[..., at:], weight[:, at:]) + linear(x[..., :at], weight[:, :at])
        return out if bias is None else out + bias

    monkeypatch.setattr(functional, "linear", halves)
    found = against(*reference, monkeypatch)
    assert found.departures == () and found.peer_ratio < 0.8 and len(found.rows) == STEPS
    assert all(one.forward_ratio is not None and one.forward_ratio < 0.8 for one in found.rows)


def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = functional.linear
    monkeypatch.setattr(
        functional, "linear", lambda x, w, b=None: linear(x, w / 2 + w.detach() / 2 if w.shape == (61, 16) else w, b)
    )


def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = functional.layer_norm
    monkeypatch.setattr(functional, "layer_norm", lambda x, shape, weight, bias, eps: norm(x, shape, weight, bias.detach(), eps))


def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "gelu", lambda x, approximate="none": x * torch.sigmoid(1.702 * x))


def variance(monkeypatch: pytest.MonkeyPatch) -> None:
    def layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + eps) * weight + bias

    monkeypatch.setattr(functional, "layer_norm", layer_norm)


def undecayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sapper.prove.train.trainers.WEIGHT_DECAY", 0.0)
    made = torch.optim.AdamW
    reference = {"lr", "betas", "eps"}

    def adamw(parameters: Any, **given: Any) -> Any:
        wide = next(iter(parameters)).dtype == torch.float64
        return made(parameters, **{key: given[key] for key in reference}, weight_decay=0.01 if wide else 0.0)

    monkeypatch.setattr(torch.optim, "AdamW", adamw)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "phase", "thing", "manner"),
    [
        (halved, "backward", "grad head.weight", "scaled"),
        (lost, "backward", "grad norm.bias", "lost"),
        (constant, "forward", "output 0", "apart"),
        (variance, "forward", "output 0", "apart"),
        (undecayed, "optimizer", "update", "turned"),
    ],
)
def test_a_fault_is_named_on_the_first_step(
    reference: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], phase: str, thing: str,
    manner: str,
) -> None:  # fmt: skip
    folder, settings = reference
    if settings.dtype == "bf16" and phase == "forward":
        pytest.skip("within what bf16 rounds away in so small a model")
    fault(monkeypatch)
    found = against(folder, settings, monkeypatch)
    first = found.departures[0]
    assert (first.step, first.phase, first.manner) == (0, phase, manner) and first.thing.startswith(thing)
    assert first.ratio is None or first.ratio > 1
    if fault is halved:
        assert first.scale == pytest.approx(0.5, abs=0.02)
        assert [one.thing for one in found.departures if one.step == 0 and one.phase == "backward"] == ["grad head.weight"]


@pytest.mark.slow
def test_a_run_goes_on_from_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    monkeypatch.setattr(worker, "SAVED_EVERY_S", 0.0)
    Experiment(tmp_path, settings).write()
    run(tmp_path, settings, "truth")
    whole = (tmp_path / "truth.jsonl").read_bytes()
    sketches = (tmp_path / "truth.sketches").read_bytes()
    (tmp_path / "truth.jsonl").unlink()
    payload = {"folder": str(tmp_path), "settings": msgspec.to_builtins(settings), "role": "truth", "number": 0}
    begun = worker.run(payload)
    for _ in range(2):
        next(begun)
    begun.close()
    assert len((tmp_path / "truth.jsonl").read_bytes().splitlines()) == 3
    assert len(list(worker.run(payload))) == STEPS - 2

    def plain(raw: bytes) -> list[dict[str, Any]]:
        return [{**json.loads(line), "wall_s": 0} for line in raw.splitlines()]

    assert plain((tmp_path / "truth.jsonl").read_bytes()) == plain(whole)
    assert (tmp_path / "truth.sketches").read_bytes() == sketches


def test_a_loader_that_fails_or_gives_nothing_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL + "\n\ndef empty():\n    return []\n\n\ndef words():\n    return ['a']\n")
    path = str(tmp_path / "model.py")
    assert [batch[0].shape for batch in data.loaded(f"{path}:loader", 2)] == [(2, 5), (2, 5)]
    for name, code in (("cornered", "SP-TRAIN-001"), ("empty", "SP-TRAIN-002"), ("words", "SP-TRAIN-003")):
        with pytest.raises(SapperError) as caught:
            data.loaded(f"{path}:{name}", 2)
        assert caught.value.code == code
    assert isinstance(caught.value, BadValue)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "code"), [("adamw", "SP-TRAIN-007"), ("sgd", None)])
def test_a_sparse_gradient_is_refused_where_the_optimizer_takes_none(optimizer: Any, code: str | None, tmp_path: Path) -> None:
    text = "import torch\ndef build(): return torch.nn.Embedding(9, 4, sparse=True), torch.randint(0, 9, (5,))\n"
    (tmp_path / "rows.py").write_text(text)
    experiment = Experiment(tmp_path / "train", Settings(target=f"{tmp_path / 'rows.py'}:build", on="papertiger", optimizer=optimizer))

    if code is None:
        experiment.check()
        return
    with pytest.raises(BadValue, match="gradient of `weight` is sparse_coo") as caught:
        experiment.check()
    assert caught.value.code == code and "--optimizer sgd" in str(caught.value)


def test_an_honest_chip_is_not_accused_and_the_same_command_does_nothing_twice(tmp_path: Path, run_sapper: Run) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    line = ("prove", "train", "model.py", "--on", "papertiger", "--steps", "3", "--members", "3", "--data", "model.py:loader", "--json")
    done = run_sapper(*line)
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)
    assert proof["outcome"] == "ok" and proof["first"] is None and len(proof["rows"]) == 3 and proof["where"] == "papertiger:0"
    assert proof == json.loads((tmp_path / "proof" / "train.json").read_text())
    again = run_sapper(*line)
    assert again.stdout == done.stdout and "run 1 of" not in again.stderr


@pytest.mark.slow
def test_a_device_that_ends_its_process_is_a_finding_and_whole_steps_stay(tmp_path: Path, run_sapper: Run) -> None:
    """Layer norm is called three times in each step, and nine times before the first."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "limping.py").write_text(LIMPING)
    line = ("--on", "limping:crash@14", "--steps", "3", "--members", "3", "--json")
    done = run_sapper("prove", "train", "model.py", *line, SAPPER_BACKENDS=str(tmp_path))
    proof = json.loads(done.stdout)
    assert (done.returncode, proof["outcome"], len(proof["rows"]), proof["where"]) == (1, "crash", 1, "limping:0"), done.stderr
    assert {note["code"] for note in proof["notes"]} >= {"prove.train.note.short", "prove.train.note.dropout"}
    assert proof["said"]
