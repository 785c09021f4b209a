"""The software stacks that are installed here compute what PyTorch computes, and prove that it was they who did."""

from __future__ import annotations

import dataclasses
from importlib import metadata

import pytest
import torch.nn.functional as F

import torch
from sapper.backends import Executed, Unsupported, find
from sapper.backends.compiler import program_of
from sapper.backends.computation import Computation, with_gradients
from sapper.backends.packages import missing_packages
from sapper.backends.stacks import inductor
from sapper.errors import BadValue, UnknownName
from sapper.prove.judge import judge
from sapper.prove.reference import refer
from sapper.prove.suspect import Suspect, suspect_of
from torch import fft

COMPILERS = ("inductor", "onnxruntime", "openvino", "jax", "iree", "tvm", "tinygrad")
"""Those that are not installed are skipped; CI has the first two."""


def layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    hidden = (x @ weight) * bias
    return hidden.tanh(), (hidden > 0).sum()


def computation() -> Computation:
    torch.manual_seed(0)
    tensors = (torch.randn(4, 8), torch.randn(8, 16), torch.randn(16))
    return Computation(name="layer", fn=layer, tensors=tensors, labels=("value", "count"))


def installed(name: str) -> str:
    lacks = find(name).missing()
    if lacks is not None:
        pytest.skip(lacks.problem)
    return name


def ran(name: str, asked: Computation) -> Executed:
    """Runs it on a stack, sees that each output is right, and gives the stack's evidence."""
    executable = find(installed(name)).prepare(asked)
    assert executable.executed() is None, "evidence before it ran"
    scores = judge(executable(asked.tensors), refer(asked), asked.labels)
    assert {score.label: score.outcome for score in scores} == dict.fromkeys(asked.labels, "ok")
    evidence = executable.executed()
    assert evidence is not None
    return evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILERS)
def test_a_training_step_runs_on_the_stack_itself_in_one_graph(name: str) -> None:
    asked = with_gradients(computation(), wrt=[0, 1, 2], cotangents=[torch.randn(4, 16), None])
    evidence = ran(name, asked)
    assert (evidence.ops or 0) > 5
    assert evidence.fallbacks == ()


@pytest.mark.slow
@pytest.mark.parametrize("of_training", [False, True])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "jax", "iree", "tvm", "tinygrad"])
def test_inputs_that_nothing_reads_and_outputs_that_are_inputs_keep_their_places(name: str, of_training: bool) -> None:
    def places(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return y, x + 1, y, z, torch.zeros_like(w)

    tensors = (torch.randn(4), torch.randn(3), torch.randn(2), torch.randn(2, 0))
    labels = ("y", "sum", "y again", "z", "zeros")
    ran(name, Computation(name="places", fn=places, tensors=tensors, labels=labels, of_training=of_training))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "jax", "tinygrad"])
def test_a_program_that_reads_none_of_its_inputs_runs(name: str) -> None:
    asked = Computation(name="zeros", fn=lambda x: (torch.zeros(3) + 1,), tensors=(torch.randn(2),), labels=("value",))
    ran(name, asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino:f32", "jax", "iree", "tvm", "tinygrad"])
def test_a_convolution_takes_its_weight_as_an_input(name: str) -> None:
    tensors = (torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3))
    asked = Computation(name="convolution", fn=lambda x, weight: (F.conv2d(x, weight),), tensors=tensors, labels=("value",))
    ran(name, asked)


@pytest.mark.slow
def test_part_of_a_training_step_takes_the_way_of_the_whole() -> None:
    """OpenVINO's own frontend makes one output of the three of ``native_layer_norm``; whole steps reach it through ONNX."""

    def norm(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.native_layer_norm(x, [8], None, None, 1e-5))

    labels = ("value", "mean", "inverse deviation")
    part = Computation(name="norm", fn=norm, tensors=(torch.randn(4, 8),), labels=labels, of_training=True)
    assert ran("openvino:f32", part).facts["frontend"] == "onnx"
    with pytest.raises(Exception, match="list_elems"):
        find("openvino:f32").prepare(dataclasses.replace(part, of_training=False))


def test_what_values_decide_is_no_graph_and_so_no_fault_of_a_stack() -> None:
    """The loss looks whether a variance is negative before it computes."""
    tensors = (torch.zeros(3), torch.ones(3), torch.ones(3))
    asked = Computation(name="loss", fn=lambda *given: (F.gaussian_nll_loss(*given),), tensors=tensors, labels=("value",))
    with pytest.raises(Unsupported, match="GuardOnDataDependent"):
        program_of(asked)


@pytest.mark.slow
def test_what_dynamo_leaves_to_eager_is_a_fallback_with_its_reason() -> None:
    def breaks(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch._dynamo.graph_break(msg="on purpose")
        return (x + 1,)

    asked = Computation(name="breaks", fn=breaks, tensors=(torch.ones(3),), labels=("value",))
    evidence = ran("inductor:eager", asked)
    assert evidence.fallbacks and "graph_break" in evidence.fallbacks[0]


def test_where_nothing_was_compiled_there_is_no_evidence() -> None:
    executable = find("inductor:eager").prepare(Computation(name="same", fn=lambda x: (x,), tensors=(torch.ones(3),), labels=("value",)))
    executable([torch.ones(3)])
    assert executable.executed() is None


def test_dynamo_compiles_each_of_many_computations() -> None:
    """It keeps eight versions of a piece of code and runs the next in eager, unasked."""
    for at in range(12):
        asked = Computation(name="many", fn=lambda x, at=at: (x + at,), tensors=(torch.ones(at + 1),), labels=("value",))
        assert ran("inductor:eager", asked).facts["graphs"] == "1"


@pytest.mark.slow
def test_sizes_of_one_computation_make_no_other_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo knows programs by file, line and name, and compiles for any size what it has seen at two."""
    seen: list[list[type]] = []
    compiled = inductor._Counted.__call__

    def noted(self: object, graph: object, inputs: list[object]) -> object:
        seen.append([type(one) for one in inputs])
        return compiled(self, graph, inputs)

    monkeypatch.setattr(inductor._Counted, "__call__", noted)
    for size in (4, 5, 6):
        ran("inductor:eager", Computation(name="one", fn=lambda x: (x + 1,), tensors=(torch.randn(size),), labels=("value",)))

    assert seen == [[torch.Tensor]] * 3


JAX_CASES = {
    "norms": lambda x: (F.group_norm(x, 2), F.batch_norm(x, None, None, training=True), x.var(1)),
    "pools": lambda x: (F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "convolutions": lambda x: (
        F.conv2d(x, x[:2, :2, :3, :3], stride=2, padding=1, groups=2),
        F.conv_transpose2d(x, x[:, :3, :3, :3], stride=2, padding=1, output_padding=1, groups=2),
    ),
    "indices": lambda x: (x[torch.tensor([0, -1, 0])], x[:, 1:-1:2], x.flip(1), x.gather(1, torch.tensor([[[[1, 0, 3, 2]]]]))),
    "orders": lambda x: (x.sort(-1)[0], x.topk(2)[0], x.topk(2, largest=False)[0], x.max(1)[0], x.cumsum(1)),
    "numbers": lambda x: (x % 0.7, torch.fmod(x, 0.7), 2**x, torch.atan2(x, x + 1), F.gelu(x), F.elu(x), x.clamp(-1, 1), x > 0),
    "dtypes": lambda x: (x.bfloat16() * x.half(), (x > 0) + x, x.to(torch.int8), (x > 0).sum(), x.int() / 2),
    "angles": lambda x: (torch.angle(x), torch.angle(x.clamp(min=0) * -1.0)),
    "shapes": lambda x: (F.pad(x, (1, 2, 0, 1), value=3.0), x.unfold(1, 2, 1), torch.stack([x, x], 1), x.roll(1, 2), x.tril()),
}
"""Lowerings that a transformer does not need, each told by its values."""
FOURIER_CASES = {
    "of real numbers": lambda x: (fft.rfft2(x), fft.rfftn(x, norm="ortho"), fft.fft(x, norm="forward"), fft.ihfft(x)),
    "back to real numbers": lambda z: (fft.irfft2(z), fft.irfft2(z, s=(5, 7), norm="ortho"), fft.hfft(z, norm="forward")),
    "of complex numbers": lambda z: (fft.fftn(z), fft.ifftn(z), fft.ifft2(z, norm="forward"), fft.fft(z, norm="ortho")),
    "complex numbers": lambda z: (z.conj() * 2, z.real + z.imag, z.angle(), torch.view_as_complex(torch.view_as_real(z) * 2), z @ z.mH),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", JAX_CASES)
def test_ops_lowered_to_jax_mean_what_they_mean_in_pytorch(case: str) -> None:
    image = torch.randn(4, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    labels = tuple(f"value {at}" for at, _ in enumerate(JAX_CASES[case](image)))
    ran("jax", Computation(name=case, fn=JAX_CASES[case], tensors=(image,), labels=labels))


@pytest.mark.slow
@pytest.mark.parametrize("case", FOURIER_CASES)
def test_fourier_transforms_and_complex_numbers_are_lowered_to_jax_forward_and_backward(case: str) -> None:
    kind = torch.float32 if case == "of real numbers" else torch.complex64
    given = torch.randn(2, 3, 4, 6, dtype=kind, generator=torch.Generator().manual_seed(0))
    found = FOURIER_CASES[case](given)
    labels = tuple(f"value {at}" for at, _ in enumerate(found))
    plain = Computation(name=case, fn=FOURIER_CASES[case], tensors=(given,), labels=labels)
    ran("jax", with_gradients(plain, wrt=[0], cotangents=[torch.randn_like(one) for one in found]))


def test_a_kept_module_with_complex_weights_can_be_exported_again() -> None:
    """The court loads what it accuses from a file; weights that came back as views of real numbers ended every export."""
    z = torch.randn(3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    asked = Computation(name="filter", fn=lambda x: (fft.irfft(fft.rfft(x) * z),), tensors=(torch.ones(3, 6),), labels=("value",))
    again = Suspect.from_bytes(suspect_of(asked).to_bytes()).computation()

    assert torch.equal(program_of(again).module()(*again.tensors)[0], asked()[0])


def test_an_op_without_a_lowering_to_jax_is_named() -> None:
    asked = Computation(name="svd", fn=lambda x: (torch.linalg.svdvals(x),), tensors=(torch.ones(3, 3),), labels=("value",))
    with pytest.raises(Unsupported, match="_linalg_svd"):
        find(installed("jax")).prepare(asked)


@pytest.mark.slow
def test_what_torch_xla_leaves_to_the_cpu_is_a_fallback() -> None:
    tensors = (torch.eye(3),)
    assert ran("torch-xla", Computation(name="add", fn=lambda x: (x + 1,), tensors=tensors, labels=("value",))).fallbacks == ()
    evidence = ran("torch-xla", Computation(name="nonzero", fn=lambda x: (x.nonzero(),), tensors=tensors, labels=("value",)))
    assert evidence.fallbacks == ("aten::nonzero",)


@pytest.mark.slow
def test_the_exported_model_can_be_evaluated_without_the_runtime() -> None:
    installed("onnxruntime")
    from onnx.reference import ReferenceEvaluator

    from sapper.backends.stacks.onnxruntime import OnnxRuntime

    asked = Computation(name="sum", fn=lambda x: (x.sum(0),), tensors=(torch.ones(4, 3),), labels=("value",))
    model = OnnxRuntime().exported(asked)
    feeds = {one.name: value.numpy() for one, value in zip(model.graph.input, asked.tensors, strict=True)}
    assert ReferenceEvaluator(model).run(None, feeds)[0].tolist() == [4, 4, 4]


@pytest.mark.slow
def test_an_op_that_the_exporter_lacks_is_named() -> None:
    installed("onnxruntime")
    asked = Computation(name="svd", fn=lambda x: (torch.linalg.svdvals(x),), tensors=(torch.ones(3, 3),), labels=("value",))
    with pytest.raises(Unsupported, match="svd"):
        find("onnxruntime").prepare(asked)


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadValue, match="noopt"):
        find("onnxruntime:fast")


def test_an_unknown_stack_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownName, match="near: onnxruntime"):
        find("onnxruntimes")


def test_what_is_missing_is_said_with_one_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            return "2.13.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    lacks = missing_packages(("torch==2.13.0", "onnxruntime==1.32.0", "onnx"))
    assert lacks is not None
    assert "onnxruntime" in lacks.problem
    assert lacks.remedy == "pip install torch==2.13.0 onnxruntime==1.32.0 onnx"
