"""The software stacks that are installed here compute what PyTorch computes, and prove that it was they who did."""

from __future__ import annotations

from importlib import metadata

import pytest

import torch
from sapper.backends import Executed, find
from sapper.backends.computation import Computation, with_gradients
from sapper.backends.packages import missing_packages
from sapper.errors import BadValue, UnknownName
from sapper.prove.judge import judge
from sapper.prove.reference import refer

COMPILERS = ("inductor", "onnxruntime", "openvino")


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
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_inputs_that_nothing_reads_and_outputs_that_are_inputs_keep_their_places(name: str) -> None:
    tensors = (torch.randn(3), torch.randn(2), torch.randn(2, 0))
    ran(name, Computation(name="places", fn=lambda x, y, z: (y, x + 1, y, z), tensors=tensors, labels=("y", "sum", "y again", "z")))


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
    from sapper.backends import Unsupported

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
