from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import msgspec  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from sapper.backends import Backend, find  # noqa: E402
from sapper.cli import main  # noqa: E402
from sapper.errors import BadFile, BadValue  # noqa: E402
from sapper.programs import opened  # noqa: E402
from sapper.prove.isolate import Answer  # noqa: E402
from sapper.prove.model import capsule as capsules  # noqa: E402
from sapper.prove.model import summary  # noqa: E402
from sapper.prove.model.activations import Activations, Watches  # noqa: E402
from sapper.prove.model.bisect import smallest  # noqa: E402
from sapper.prove.model.envelope import envelope_of, error_of, roundoff_of, truth_of  # noqa: E402
from sapper.prove.model.fingerprint import Fingerprints, Projector  # noqa: E402
from sapper.prove.model.graph import StepGraph  # noqa: E402
from sapper.prove.model.proof import checked, raised  # noqa: E402
from sapper.prove.model.run import Plan, Setting, prove_model  # noqa: E402
from sapper.prove.model.shadow import Shadow, Tally  # noqa: E402
from sapper.prove.model.step import TrainingStep  # noqa: E402
from sapper.prove.model.tracker import Tracker  # noqa: E402
from sapper.prove.ready import ready  # noqa: E402
from sapper.prove.suspect import suspect_of  # noqa: E402

NET = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(30, 16), nn.LayerNorm(16)
        self.up, self.act, self.down = nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 30)

    def forward(self, ids):
        return self.down(self.act(self.up(self.norm(self.table(ids)))))

def build(batch=2, seq=6):
    return Net(), torch.randint(0, 30, (batch, seq)), lambda out, ids: F.cross_entropy(out.flatten(0, 1), ids.flatten())
"""


def program(folder: Path, text: str = NET) -> str:
    path = folder / "net.py"
    path.write_text(textwrap.dedent(text), "utf-8")
    return str(path)


def personality(folder: Path, *faults: str) -> str:
    path = folder / "chip.toml"
    parts = "".join(f"\n[[fault]]\n{fault}\n" for fault in faults)
    path.write_text(f'device = "papertiger"\n[summary]\nen = "a chip of a test"\nzh = "测试芯片"\n{parts}', "utf-8")
    return f"papertiger:{path}"


def shadowed(target: str, stack: Backend, *, draw: int = 0) -> Tally:
    """One step on a backend of this process, each op judged."""
    shadow = Shadow(Tracker(), device=stack.device().type, launched=stack.launched)
    computation = TrainingStep(opened=opened.open_program(target, draw=draw)).computation(shadow)
    stack.prepare(computation)(computation.tensors)
    return shadow.tally


def test_an_honest_chip_is_green_and_every_op_is_judged(tmp_path: Path):
    found = shadowed(program(tmp_path), find(personality(tmp_path)))

    assert summary.findings_of(found.records) == ()
    assert found.judged == found.ops > 30 and found.skipped == {}
    places = {(one.phase, one.path) for one in found.records}
    assert {("forward", "up"), ("forward", "act"), ("backward", "act"), ("backward", "norm")} <= places
    assert {phase for phase, _ in places} == {"forward", "backward", "optimizer"}


SPEECH = """
import torch
from torch import nn

class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first, self.then = nn.BatchNorm1d(4), nn.LSTM(4, 5, batch_first=True), nn.GRU(5, 3, bias=False)
        self.last = nn.LSTMCell(3, 2, bias=False)

    def forward(self, frames):
        heard, _ = self.first(self.norm(frames.transpose(1, 2)).transpose(1, 2))
        heard, _ = self.then(heard)
        return self.last(heard[-1])[0].square().mean()

def build():
    return Speech(), torch.randn(3, 4, 4)
"""


def test_fused_cells_that_the_cpu_does_not_have_are_judged(tmp_path: Path):
    target = program(tmp_path, SPEECH)

    honest = shadowed(target, find(personality(tmp_path)))
    lying = shadowed(target, find(personality(tmp_path, 'kind = "bias"\nop = "aten::_thnn_fused_gru_cell_backward"\noutput = 0')))

    assert summary.findings_of(honest.records) == () and honest.skipped == {}
    cells = {one.op for one in honest.records if "_thnn_" in one.op}
    assert {one.removeprefix("aten::_thnn_fused_") for one in cells} == {
        "lstm_cell", "lstm_cell_backward_impl", "gru_cell", "gru_cell_backward",
    }  # fmt: skip
    assert [(one.op, one.path) for one in summary.findings_of(lying.records)] == [("aten::_thnn_fused_gru_cell_backward", "then")]
    guilty = next(iter(lying.calls.values())).computation()  # the court asks the device for the op itself, and for its parts
    assert suspect_of(guilty).ops() == ["aten::_thnn_fused_gru_cell_backward"]
    assert len(suspect_of(guilty, decompose="elementary").ops()) > 5


NOISY = """
import torch
from torch import nn
from torch.nn import functional as F

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(24, 40), nn.Linear(20, 24)

    def forward(self, x):
        mean, spread = F.dropout(self.encode(x), 0.2, self.training).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (spread / 2).exp() + torch.empty_like(mean).exponential_()
        return F.mse_loss(self.decode(code), x)

def build():
    return Noisy(), torch.randn(6, 24)
"""


def test_what_a_program_draws_is_the_same_on_the_device_and_in_fp64(tmp_path: Path):
    step = TrainingStep(opened=opened.open_program(program(tmp_path, NOISY)))
    truth = truth_of(step)
    torch.manual_seed(99)
    narrow = step.computation()
    got = narrow(narrow.tensors)

    assert step.noise.fed == 6
    for label, one in zip(step.labels, got, strict=True):
        if not label.startswith("updated"):
            torch.testing.assert_close(one.double(), truth.values[label], rtol=1e-4, atol=1e-6)


WAVES = """
import torch
from torch import nn

class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))

    def forward(self, x):
        spectrum = torch.fft.rfft(x) * self.mix
        return torch.fft.irfft(spectrum * spectrum.conj() * self.mix.conj(), n=x.shape[-1])

def build():
    return Waves(), torch.randn(3, 6)
"""
PHYSICS = """
import torch
from torch import nn
from torch.func import jacrev, vmap

class Physics(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x):
        return vmap(jacrev(lambda at: self.last(torch.tanh(self.first(at)))))(x)

def build():
    return Physics(), torch.rand(5, 2)
"""
QUANTISED = """
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

class Learned(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.channels = nn.Parameter(torch.randn(4, 8)), channels
        self.scale, self.zero = nn.Parameter(torch.full((channels or 1,), 0.05)), nn.Parameter(torch.zeros(channels or 1))

    def forward(self, x):
        if self.channels:
            weight = torch._fake_quantize_learnable_per_channel_affine(self.weight, self.scale, self.zero, 0, -128, 127, 0.1)
        else:
            weight = torch._fake_quantize_learnable_per_tensor_affine(self.weight, self.scale, self.zero, -128, 127, 0.1)
        return x @ weight.t()

class Fixed(nn.Module):
    def forward(self, x):
        scale = x.detach().abs().amax(0) / 127
        x = torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(x.shape[1], dtype=torch.int32, device=x.device), 1, -128, 127)
        return torch.fake_quantize_per_tensor_affine(x, scale.amax()[None], torch.zeros(1, dtype=torch.int32, device=x.device), -128, 127)

def build():
    observed = nn.Linear(8, 8)
    observed.qconfig = get_default_qat_qconfig("x86")
    observed = prepare_qat(nn.Sequential(observed))
    return nn.Sequential(observed, Learned(4), nn.Linear(4, 8), Learned(None), Fixed()), torch.randn(6, 8)
"""


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*reduce_range:UserWarning")
@pytest.mark.parametrize("text", [WAVES, PHYSICS, QUANTISED], ids=["lazy-conjugates", "torch.func", "quantisation-aware"])
def test_an_honest_chip_is_green_on_programs_of_other_kinds(tmp_path: Path, text: str):
    setting = Setting(target=program(tmp_path, text), backend="papertiger", folder=str(tmp_path / "proof"))

    found = prove_model(Plan(setting=setting, states=False, most_tried=0), lambda *_, **__: None)

    assert (found.outcome, found.blame, found.findings) == ("ok", None, ())
    assert any(one.label.startswith("grad of") for one in found.errors)


def test_a_sparse_gradient_is_refused_and_what_to_change_is_said(tmp_path: Path) -> None:
    text = """
        import torch
        def build():
            return torch.nn.Embedding(9, 4, sparse=True), torch.randint(0, 9, (5,))
        """

    with pytest.raises(BadValue) as caught:
        checked(TrainingStep(opened=opened.open_program(program(tmp_path, text))), lambda *_, **__: None)

    assert caught.value.code == "SP-PRM-013"
    assert "gradient of `weight` is sparse_coo" in str(caught.value) and "sparse=False" in str(caught.value)


def test_running_means_are_those_of_one_step(tmp_path: Path):
    """The look whether the program runs at all must not leave them changed."""
    setting = Setting(target=program(tmp_path, SPEECH), backend="papertiger", folder=str(tmp_path / "proof"))

    found = prove_model(Plan(setting=setting, states=False, most_tried=0), lambda *_, **__: None)

    assert (found.outcome, found.blame) == ("ok", None)
    assert {one.label for one in found.errors} >= {"buffer norm.running_mean", "buffer norm.running_var"}


@pytest.mark.parametrize(
    ("fault", "op", "phase", "path"),
    [
        ('kind = "wrong-constant"\nop = "aten::gelu"', "aten::gelu", "forward", "act"),
        ('kind = "scaled-gradient"\nop = "aten::gelu_backward"', "aten::gelu_backward", "backward", "act"),
        ('kind = "lost-gradient"\nop = "aten::embedding_dense_backward"', "aten::embedding_dense_backward", "backward", "table"),
        ('kind = "stale-output"\nop = "aten::native_layer_norm"', "aten::native_layer_norm", "forward", "norm"),
    ],
)  # fmt: skip
def test_the_guilty_op_is_named_with_layer_and_phase(tmp_path: Path, fault: str, op: str, phase: str, path: str):
    target, stack = program(tmp_path), find(personality(tmp_path, fault))

    tally = shadowed(target, stack)
    if "stale" in fault:  # right the first time, and the first answer again for other inputs of the same shapes
        assert summary.findings_of(tally.records) == ()
        tally = shadowed(target, stack, draw=1)
    first, *others = summary.findings_of(tally.records)

    assert (first.op, first.phase, first.path) == (op, phase, path)
    assert others == []
    assert tally.calls[first.index].op == op


STAIRS = """
import torch

class Stairs(torch.nn.Module):
    def forward(self, x):
        parts = [torch.nn.functional.gelu(x[:size]) for size in (4, 3, 5, 5, 6)]
        return torch.cat(parts).square().sum()

def build():
    return torch.nn.Sequential(torch.nn.Linear(6, 6), Stairs()), torch.randn(6)
"""


def test_of_more_wrong_calls_than_are_kept_it_is_the_first_and_the_worst(tmp_path: Path):
    amounts = {4: 0.01, 3: 0.02, 5: 4.0, 6: 0.5}
    faults = [f'kind = "bias"\nop = "aten::gelu"\nshape = [{size}]\namount = {amount}' for size, amount in amounts.items()]
    stack = find(personality(tmp_path, *faults))
    shadow = Shadow(Tracker(), device=stack.device().type, most_calls=3)
    computation = TrainingStep(opened=opened.open_program(program(tmp_path, STAIRS))).computation(shadow)
    stack.prepare(computation)(computation.tensors)
    found = summary.findings_of(shadow.tally.records)

    assert [(one.shapes, one.count) for one in found] == [("float32[5]", 2), ("float32[6]", 1), ("float32[3]", 1), ("float32[4]", 1)]
    kept = {index: f"float32[{len(call.tensors[0])}]" for index, call in shadow.tally.calls.items()}
    assert sorted(kept.values()) == ["float32[4]", "float32[5]", "float32[6]"]  # the first and the worst
    assert all(kept[one.index or 0] == one.shapes for one in found if one.shapes != "float32[3]")


def test_an_op_that_gives_the_cpus_own_bits_did_not_run_on_the_device(tmp_path: Path):
    target = program(tmp_path, NET.replace("(16, 32)", "(16, 64)").replace("(32, 30)", "(64, 30)"))

    found = summary.findings_of(shadowed(target, find(personality(tmp_path, 'kind = "silent-fallback"\nop = "aten::gelu"'))).records)

    assert [(one.op, one.outcome, one.path) for one in found] == [("aten::gelu", "fallback", "act")]


def test_an_exact_op_that_the_device_did_not_count_did_not_run_there(tmp_path: Path):
    stack = find(personality(tmp_path, 'kind = "silent-fallback"\nop = ["aten::add", "aten::embedding"]'))

    found = summary.findings_of(shadowed(program(tmp_path, NET.replace("self.table(ids)", "self.table(ids) + 1.0")), stack).records)

    assert {(one.op.partition(".")[0], one.outcome) for one in found} == {("aten::add", "fallback"), ("aten::embedding", "fallback")}
    assert {one.reason for one in found} == {"prove.model.reason.uncounted"}


def test_errors_of_a_guilty_op_are_not_laid_on_those_that_follow(tmp_path: Path):
    tally = shadowed(program(tmp_path), find(personality(tmp_path, 'kind = "wrong-constant"\nop = "aten::gelu"')))

    assert {one.op for one in tally.records if one.outcome != "ok"} == {"aten::gelu"}


def test_the_envelope_holds_correct_runs_and_no_wrong_one(tmp_path: Path):
    step = TrainingStep(opened=opened.open_program(program(tmp_path)))
    truth = truth_of(step)
    envelope = envelope_of(step, truth, roundoff=roundoff_of(step))

    def errors(backend: str) -> dict[str, str]:
        stack, layers = find(backend), Activations()
        computation = step.computation(Watches(layers))
        outputs = stack.prepare(computation)(computation.tensors)
        named = dict(zip(step.labels, outputs, strict=True))
        return {
            label: error_of(label, got=one, true=truth.values[label], allowed=envelope.values[label], roundoff=envelope.roundoff).outcome
            for label, one in named.items()
        }

    assert set(errors(personality(tmp_path)).values()) == {"ok"}
    sick = errors(personality(tmp_path, 'kind = "wrong-constant"\nop = "aten::gelu"'))
    assert sick["grad of down.weight"] == "wrong" and sick["grad of table.weight"] == "wrong"


def test_the_update_as_a_formula_is_that_of_the_optimizer(tmp_path: Path):
    found = opened.open_program(program(tmp_path), dtype="fp64")
    plain, formula = (TrainingStep(opened=found, functional=functional).computation()() for functional in (False, True))

    for one, two in zip(plain, formula, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_capsule_is_small_and_finds_the_op_on_another_machine(tmp_path: Path):
    target = program(tmp_path)
    found = opened.open_program(target)
    path = str(tmp_path / "net.capsule")
    size_bytes = capsules.save(capsules.record(found), path)
    capsule = capsules.load(path)
    capsules.matched(capsule, opened.open_program(target), path=path, steps=1)

    def first_out(backend: str) -> str | None:
        stack = find(backend)
        taken = Fingerprints(device=stack.device().type, on_host=True)
        computation = TrainingStep(opened=found).computation(taken)
        taken.values(computation.labels, stack.prepare(computation)(computation.tensors))
        red = [one for one in capsule.errors(taken.prints.on_host()) if one.outcome != "ok"]
        return red[0].label if red else None

    assert size_bytes < 1e6 * len(capsule.truth) / 1000
    assert first_out(personality(tmp_path)) is None
    assert first_out(personality(tmp_path, 'kind = "wrong-constant"\nop = "aten::gelu"')) == "forward:act:aten::gelu:0#0"


def test_what_a_module_computes_in_inference_mode_has_fingerprints_too() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return x.cos()

    taken, module = Fingerprints(device="cpu", on_host=False), Fixed()
    with taken.watching(module):
        taken.begin("forward", {})
        module(torch.ones(4))
        taken.begin("after", {})
    assert len({tuple(row) for row in taken.prints.on_host().values()}) == 1 and len(taken.prints.rows) == 2


@pytest.mark.parametrize("size", [100, 9_000, 140_000, 400_003])
def test_a_fingerprint_sees_every_element(size: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, square, projections = Projector().of(values)
    assert float(total) == pytest.approx(float(values.sum()))
    assert float(square) == pytest.approx(float(values.square().sum()), rel=0.35)

    for at in (0, size // 3, size - 1):
        changed = values.clone()
        changed[at] += 2.0
        assert (Projector().of(changed)[2] - projections).abs().tolist() == pytest.approx([2.0] * len(projections))


def test_what_a_module_hands_on_in_another_form_has_the_fingerprint_of_its_op() -> None:
    taken, module = Fingerprints(device="cpu", on_host=False), torch.nn.Linear(64, 64)
    with taken.watching(module):
        taken.begin("forward", {})
        module(torch.ones(8, 64, 64))
        taken.begin("after", {})
    assert taken.prints.rows["layer forward:"] is taken.prints.rows["forward::aten::addmm:0#0"]


@pytest.mark.parametrize(
    ("change", "name"),
    [({"text": NET + "\n# another version\n"}, "program"), ({"seed": 1}, "seed"), ({"batch": 3}, "inputs"), ({"dtype": "bf16"}, "dtype")],
)
def test_a_capsule_of_something_else_is_refused_with_what_differs_first(tmp_path: Path, change: dict[str, object], name: str):
    capsule = capsules.record(opened.open_program(program(tmp_path)), runs=1)
    options = {key: value for key, value in change.items() if key != "text"}
    other = opened.open_program(program(tmp_path, str(change.get("text", NET))), **options)  # type: ignore[arg-type]

    with pytest.raises(BadFile) as raised:
        capsules.matched(capsule, other, path="net.capsule", steps=1)

    assert (raised.value.code, raised.value.values["name"]) == ("SP-PRM-008", name)


def test_a_capsule_holds_what_is_no_finite_number(tmp_path: Path):
    """A mask of minus infinity has no length; what comes from the worker is JSON, which has no such numbers."""
    text = """
        import torch
        class Masked(torch.nn.Linear):
            def forward(self, x):
                mask = torch.full((3, 3), float("-inf")).triu(1)
                return (super().forward(x) @ x.T + mask).softmax(-1)
        def build():
            return Masked(4, 4), torch.randn(3, 4)
        """
    found = opened.open_program(f"{program(tmp_path, text)}:build")
    capsule = capsules.record(found, runs=1)
    prints = msgspec.json.decode(msgspec.json.encode(capsules.of_this_cpu(TrainingStep(opened=found))))

    assert any(None in row for row in prints.values())
    assert {one.outcome for one in capsule.errors(prints)} == {"ok", "skipped"}
    more = {"forward::aten::add.Tensor:0#9": prints["forward::aten::add.Tensor:0#0"]}
    assert not [one for one in capsule.errors(prints | more) if "aten::add.Tensor" in one.label], "which of two is which?"
    with pytest.raises(BadValue, match="recorded with the builder's own value, not 9"):
        capsules.needed(capsule, "seq", 9, where="--seq")


def test_what_is_no_capsule_is_said(tmp_path: Path):
    path = tmp_path / "x.capsule"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(BadFile) as raised:
        capsules.load(str(path))

    assert raised.value.code == "SP-PRM-007"


def test_nodes_alone_and_windows_give_what_the_graph_gives(tmp_path: Path):
    graph = StepGraph(TrainingStep(opened=opened.open_program(program(tmp_path)), functional=True), decompose=True)
    positions = [at for at in range(len(graph.nodes)) if graph.kind(at) is not None]
    alone, window = graph.company(positions[:40]), graph.window(20, 60)

    names = {node.name: graph.values[node] for node in graph.nodes}
    assert all(torch.equal(one, names[label]) for label, one in zip(window.labels, window(), strict=True))
    outputs = dict(zip(alone.labels, alone(), strict=True))
    single = {label: one for label, one in outputs.items() if isinstance(names[label.split()[0]], torch.Tensor)}
    assert len(single) > 30 and all(torch.equal(one, names[label.split()[0]]) for label, one in single.items())
    assert {(place.phase, place.path) for place in graph.places} >= {("forward", "act"), ("backward", "up"), ("optimizer", "norm.weight")}


@pytest.mark.parametrize("guilty", [(3, 9), (0, 1), (7, 8), (14, 16), (0, 16)])
def test_the_smallest_window_that_fails_is_found(guilty: tuple[int, int]):
    asked: list[tuple[int, int]] = []

    def fails(low: int, high: int) -> bool:
        asked.append((low, high))
        return low <= guilty[0] and high >= guilty[1]

    assert smallest(16, fails) == guilty
    assert len(asked) < 20
    assert smallest(16, lambda low, high: False) is None


COMPILER = """
from sapper.backends.base import Backend, Executed
from sapper.backends.computation import graph_of
import torch

class Fuser(Backend):
    '''Scales what gelu hands on, where somebody in the same graph takes it.'''
    name, kind, autograd = "fuser", "compiler", False

    def missing(self):
        return None

    def versions(self):
        return {"fuser": "1"}

    def prepare(self, computation):
        graph = graph_of(computation)
        for node in list(graph.graph.nodes):
            if node.target is torch.ops.aten.gelu.default and any(user.op != "output" for user in node.users):
                with graph.graph.inserting_after(node):
                    scaled = graph.graph.call_function(torch.ops.aten.mul.Tensor, (node, 1.001))
                node.replace_all_uses_with(scaled, lambda user: user is not scaled)
        graph.recompile()
        return Run(graph)

class Run:
    def __init__(self, graph):
        self.graph = graph

    def __call__(self, tensors):
        return list(self.graph(*tensors))

    def executed(self):
        return Executed(where="fuser", ops=len(self.graph.graph.nodes))

def open(detail=None):
    return Fuser()
"""


@pytest.mark.slow
def test_a_fusion_that_is_wrong_where_its_ops_are_right_is_cut_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "fuser.py").write_text(COMPILER, "utf-8")
    monkeypatch.setenv("SAPPER_BACKENDS", str(tmp_path / "stacks"))
    setting = Setting(target=program(tmp_path), backend="fuser", folder=str(tmp_path / "proof"))

    result = prove_model(Plan(setting=setting, most_tried=0), lambda *_, **__: None)

    assert result.outcome == "wrong"
    assert result.findings[0].region[0] == "aten::gelu" and len(result.findings[0].region) <= 3
    assert result.findings[0].reason == "prove.model.reason.together"
    assert {one.outcome for one in result.ops} <= {"ok", "legal"}


@pytest.mark.slow
def test_an_op_that_ends_the_process_is_the_finding_and_hides_no_other(tmp_path: Path):
    faults = ('kind = "crash"\nop = "aten::gelu"', 'kind = "scaled-gradient"\nop = "aten::embedding_dense_backward"')
    setting = Setting(target=program(tmp_path), backend=personality(tmp_path, *faults), folder=str(tmp_path / "proof"))

    result = prove_model(Plan(setting=setting, states=False, most_tried=0), lambda *_, **__: None)

    assert [(one.outcome, one.op, one.path) for one in result.findings] == [
        ("crash", "aten::gelu", "act"), ("wrong", "aten::embedding_dense_backward", "table"),
    ]  # fmt: skip
    written = msgspec.json.decode((tmp_path / "proof" / "model.json").read_bytes(), type=type(result))
    assert written == result
    assert written.where == "papertiger:0" and written.errors


@pytest.mark.parametrize(("value", "notes"), [("float('nan')", ["prove.model.progress.not_finite"]), ("0.5", [])])
def test_a_loss_that_is_no_number_is_said(tmp_path: Path, value: str, notes: list[str]) -> None:
    text = f"import torch\ndef build():\n    return torch.nn.Linear(2, 2), torch.full((2, 2), {value})\n"
    said: list[str] = []

    checked(TrainingStep(opened=opened.open_program(program(tmp_path, text))), lambda code, **_: said.append(code))

    assert said == notes


@pytest.mark.slow
def test_a_loss_that_is_no_number_proves_nothing(tmp_path: Path) -> None:
    text = "import torch\ndef build():\n    return torch.nn.Linear(2, 2), torch.full((2, 2), float('nan'))\n"
    arguments = ["prove", "model", program(tmp_path, text), "--on", "cpu", "--once", "--out", str(tmp_path / "proof")]

    ran = CliRunner(env={"SAPPER_LANG": "en"}).invoke(main.cli, arguments)

    assert ran.exit_code == 2, ran.output
    assert "the step as a whole, since the program's loss is nan on the CPU too" in ran.output


@pytest.mark.slow
def test_a_program_that_its_values_steer_is_no_graph(tmp_path: Path) -> None:
    text = """
        import torch
        class Steered(torch.nn.Linear):
            def forward(self, x):
                out = super().forward(x)
                return -out if out.sum().item() > 0 else out
        def build():
            return Steered(3, 2), torch.ones(4, 3)
        """
    setting = Setting(target=f"{program(tmp_path, text)}:build", backend="inductor", folder=str(tmp_path / "proof"))

    with pytest.raises(BadValue) as caught:
        prove_model(Plan(setting=setting), lambda *_, **__: None)

    assert caught.value.code == "SP-PRM-012" and "net.py:6" in str(caught.value)


def test_a_full_disk_is_not_laid_at_the_devices_door() -> None:
    full = Answer(id="first", status="raised", said="OSError: [Errno 28] No space left on device\n")
    other = Answer(id="first", status="raised", said="OSError: [Errno 5] the device is gone")

    assert (raised(full, "proof").code, raised(other, "proof").code) == ("SP-PRM-002", "SP-PRM-004")


def test_a_device_that_is_not_there_is_said(tmp_path: Path):
    setting = Setting(target=program(tmp_path), backend="torch:npu", folder=str(tmp_path / "proof"))

    with pytest.raises(BadValue) as raised:
        prove_model(Plan(setting=setting), lambda *_, **__: None)

    assert raised.value.code == "SP-PRM-001" and "`pip install torch-npu` mends it" in str(raised.value)


def test_where_no_command_brings_a_plug_in_none_is_made_up() -> None:
    with pytest.raises(BadValue) as raised:
        ready("torch:musa")

    assert "`torch_musa`" in str(raised.value) and "install it as its vendor says" in str(raised.value)
