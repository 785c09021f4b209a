"""Repro scripts: each runs alone, shows the defect, and is short; what is asked of them is what a vendor would ask."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional  # noqa: E402

from sapper.backends import find  # noqa: E402
from sapper.backends.computation import Computation, with_gradients  # noqa: E402
from sapper.prove.isolate import Answer  # noqa: E402
from sapper.prove.repro import edits, spell, write_repro  # noqa: E402
from sapper.prove.repro.cuts import cut  # noqa: E402
from sapper.prove.repro.oracle import Oracle, read  # noqa: E402
from sapper.prove.repro.recipes import recipe_of  # noqa: E402
from sapper.prove.repro.script import Plan, script_of  # noqa: E402
from sapper.prove.suspect import refs_of, suspect_of  # noqa: E402

FAULTY = Path(__file__).parent / "faulty"


@pytest.fixture(autouse=True)
def _faulty_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPPER_BACKENDS", str(FAULTY))


def block() -> Computation:
    torch.manual_seed(5)

    def fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = functional.layer_norm(functional.linear(x, weight, bias), (40,))
        hidden = functional.gelu(hidden) @ weight
        return functional.softmax(hidden, -1).sum(0), hidden

    tensors = (torch.randn(30, 40) * 20, torch.randn(40, 40), torch.randn(40))
    return Computation(name="block", fn=fn, tensors=tensors, labels=("value", "value 1"))


def large_values() -> Computation:
    return Computation(name="large", fn=lambda x: (functional.gelu(x),), tensors=(torch.randn(9, 50) * 300,), labels=("value",))


def alone(path: str) -> subprocess.CompletedProcess[str]:
    """The script in a fresh interpreter that sees installed packages only."""
    return subprocess.run([sys.executable, "-I", path], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "outcome", "op"),
    [("gelu.default=scaled", "wrong", "aten::gelu"), ("_softmax.default=dies", "crash", "aten::softmax.int")],
)
def test_a_finding_shrinks_to_one_op_on_one_number_and_shows_alone(fault: str, outcome: str, op: str, tmp_path: Path) -> None:
    repro = write_repro(block(), f"sloppy:{fault}", outcome=outcome, folder=tmp_path)
    assert repro.reproduced
    assert repro.ops == (op,)
    assert repro.path is not None
    source = Path(repro.path).read_text("utf-8")
    assert "torch.ones((1,))" in source
    assert "nudged" not in source  # so wrong that the bound is a number
    assert repro.lines == len(source.splitlines()) <= 26  # the emulated stack itself takes nine lines
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) and node.names[0].name == "sapper"]
    ended = alone(repro.path)
    assert ended.returncode == {"wrong": 1, "crash": -11}[outcome], ended.stderr
    assert "expected" in ended.stdout
    mended = tmp_path / "mended.py"  # where the stack is mended, the script ends with 0
    mended.write_text(re.sub(r"return .* if func is .* else out", "return out", source), "utf-8")
    ended = alone(str(mended))
    assert (ended.returncode, "no defect" in ended.stdout) == (0, True), ended.stderr


@pytest.mark.slow
def test_what_decides_survives_shrinking(tmp_path: Path) -> None:
    """Values above 100 are what this fault needs."""
    repro = write_repro(large_values(), "sloppy:gelu.default=large", outcome="wrong", folder=tmp_path, name="large")
    assert repro.reproduced
    assert (repro.lines <= 32, "manual_seed(0)).to" in Path(str(repro.path)).read_text("utf-8")) == (True, False)


@pytest.mark.slow
def test_infinity_is_told_from_no_number(tmp_path: Path) -> None:
    given = Computation(name="exp", fn=lambda x: (x.exp(),), tensors=(torch.linspace(0, 200, 9),), labels=("value",))
    repro = write_repro(given, "sloppy:exp.default=no-infinity", outcome="nan", folder=tmp_path, budget_s=20)
    assert (repro.reproduced, repro.ops) == (True, ("aten::exp",))


@pytest.mark.slow
def test_a_script_is_tried_as_python_would_run_it() -> None:
    """IREE's exporter looks for `torch` in the module `__main__`; others ask for the source of a function."""
    source = """
        import inspect, sys
        def f(x):
            return x
        assert sys.modules["__main__"].f is f and "return x" in inspect.getsource(f)
        print("actual", "Wrong", "some kind", "DEFECT", sep="\\n")
        sys.exit(1)
        """
    with Oracle(limit_s=60, fresh=False) as oracle:
        assert oracle.shows(textwrap.dedent(source), "fails", suspect_of(block())).kind == "Wrong some kind"


@pytest.mark.slow
def test_a_stack_without_the_defect_gets_no_script(tmp_path: Path) -> None:
    repro = write_repro(large_values(), "sloppy:mm.default=large", outcome="nan", folder=tmp_path)
    assert (repro.path, repro.reproduced, repro.reason) == (None, False, "prove.repro.not_shown")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, 4), torch.full((5,), 0.1), torch.tensor([1.5, float("nan"), -0.0, float("inf")]), torch.zeros(0, 3),
        torch.arange(40.0).sin().to(torch.bfloat16), torch.tensor(7), torch.tensor([True, False]), torch.full((20,), -0.0),
        torch.randn(6, 7, generator=torch.Generator().manual_seed(1)), torch.arange(12.0).reshape(3, 4).T, torch.ones(1, 3).expand(5, 3),
        torch.arange(24.0)[::2], torch.tensor([1 + 2j, 3j]), torch.arange(50, dtype=torch.int32), torch.tensor(0.1, dtype=torch.float16),
    ],
    ids=lambda one: f"{str(one.dtype)[6:]}{list(one.shape)}",
)  # fmt: skip
def test_a_tensor_is_written_out_bit_by_bit(tensor: torch.Tensor) -> None:
    import base64
    import zlib

    made = eval(spell.tensor_source(tensor), {"torch": torch, "base64": base64, "zlib": zlib})
    assert (made.dtype, made.shape) == (tensor.dtype, tensor.shape)
    assert spell._same(made, tensor)
    assert made.is_contiguous() == tensor.is_contiguous()


def test_a_graph_computes_what_it_was_read_from() -> None:
    plain = block()
    differentiated = with_gradients(plain, wrt=[0, 2], cotangents=[torch.ones(40), None])
    for computation in (plain, differentiated):
        for options in ({}, {"composite": False}, {"decompose": "core"}, {"decompose": "elementary"}):
            got = suspect_of(computation, **options).computation()()
            for one, other in zip(got, computation(), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_cut_ends_at_the_guilty_step() -> None:
    suspect = suspect_of(block())
    found = cut(suspect, lambda candidate: "aten::layer_norm" in candidate.ops())
    assert found.ops() == ["aten::layer_norm"]
    assert [tuple(one.shape) for one in found.inputs.values()] == [(30, 40)]


@pytest.mark.parametrize(
    "stack", ["onnxruntime", "openvino", "openvino:onnx", "tvm", "tvm:zero", "iree", "tinygrad", "jax", "torch-xla", "cuda:1", "inductor"]
)
def test_every_stack_has_a_script_of_thirty_lines(stack: str) -> None:
    """Of a sum in bf16 that names a dtype, whose truth has to be computed in another."""
    fn = lambda x: (torch.sum(x, 0, dtype=torch.float32),)  # noqa: E731
    given = Computation(name="sum", fn=fn, tensors=(torch.ones(3, 4).bfloat16(),), labels=("value",))
    recipe = recipe_of(find(stack))
    assert recipe is not None
    source = script_of(Plan(suspect=suspect_of(given), check="largest", recipe=recipe, head=lambda _: ["title", "pins", "made"]))
    ast.parse(source)
    assert len(source.splitlines()) <= 30
    assert "true = lambda *tensors: f(*tensors, dtype=torch.float64)" in source


def test_simpler_values_and_shapes_keep_the_order_in_memory() -> None:
    """A stack that raises on transposed tensors alone must still do so on the shrunk one."""
    suspect = suspect_of(Computation(name="exp", fn=lambda x: (x.exp(),), tensors=(torch.randn(6, 8).T,), labels=("value",)))
    for edit in (edits.values, edits.shapes):
        tensors = [one for candidate in edit(suspect) for one in candidate.inputs.values() if min(one.shape, default=0) > 1]
        assert tensors
        assert not any(one.is_contiguous() for one in tensors)


@pytest.mark.slow
def test_a_program_without_outputs_has_a_script_where_it_ends_the_process(tmp_path: Path) -> None:
    def of_nothing(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.ops.aten.unbind_copy.int(x))

    given = Computation(name="unbind", fn=of_nothing, tensors=(torch.ones(0, 3),), labels=())
    repro = write_repro(given, "sloppy:unbind_copy.int=dies", outcome="crash", folder=tmp_path, budget_s=20)
    assert (repro.reproduced, repro.ops) == (True, ("aten::unbind_copy.int",))


def test_what_the_rule_allows_is_no_defect_whatever_a_script_says() -> None:
    """A script compares positions one by one; that equal values may stand in any order only the rule knows."""
    source = """
        import sys, torch
        actual = torch.tensor({actual})
        print("error", 2, "differ", "DEFECT")
        sys.exit(1)
        """
    values = torch.tensor([1.0, 1.0, 0.0])
    suspect = suspect_of(Computation(name="argsort", fn=lambda x: (x.argsort(),), tensors=(values,), labels=("value",)))
    with Oracle(limit_s=60, fresh=False) as oracle:
        found = [oracle.shows(textwrap.dedent(source.format(actual=actual)), "exact", suspect) for actual in ([2, 1, 0], [1, 2, 0])]
    assert [one.defect for one in found] == [False, True]


def test_another_error_of_the_same_class_is_another_defect() -> None:
    def kind(said: str) -> str:
        value = {"code": 1, "words": f"expected\nactual\nRuntimeError\n{said}\nDEFECT\n"}
        return read(Answer(id="1", status="done", value=value), "fails").kind

    assert kind("view size (3, 4) is not compatible with 12") == kind("view size (1, 2) is not compatible with 2")
    assert kind("view size (3, 4) is not compatible") != kind("running_var should have 3 elements")


def test_lists_and_steps_that_only_hand_on_are_cut_where_gradients_are_taken() -> None:
    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch._foreach_tan([one.clone().to(torch.float64) for one in tensors]))

    labels = tuple(f"value {at}" for at in range(3))
    plain = Computation(name="tan", fn=fn, tensors=tuple(torch.ones(at) for at in (1, 2, 3)), labels=labels)
    suspect = suspect_of(with_gradients(plain, wrt=[1], cotangents=[torch.ones(at).double() for at in (1, 2, 3)]))
    ops = len(suspect.steps)
    shorter = [one for one in edits.lists(suspect) if suspect.wrt[0] in {ref.name for step in one.steps for ref in refs_of(step.args)}]
    assert [tuple(one.shape) for one in shorter[0].inputs.values()] == [(2,), (2,)]
    (gradient,) = shorter[0].computation()()[-1:]
    torch.testing.assert_close(gradient, suspect.computation()()[-1])
    assert min(len(one.steps) for one in edits.bypasses(suspect)) < ops


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["stateful", "nondeterministic"])
def test_a_stale_cache_shows_after_the_same_op(outcome: str, tmp_path: Path) -> None:
    """What ran before is not known: other values and other attributes are tried, and shrink with the suspect."""
    given = Computation(name="leaky", fn=lambda x: (functional.leaky_relu(x, 0.2),), tensors=(torch.randn(8, 32),), labels=("value",))
    repro = write_repro(given, "sloppy:leaky_relu.default=cached", outcome=outcome, folder=tmp_path, budget_s=20)
    assert (repro.reproduced, repro.ops) == (True, ("aten::leaky_relu", "aten::leaky_relu"))


def test_an_output_whose_step_was_cut_off_is_no_shorter_script() -> None:
    def loss(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.native_layer_norm(x, [4], None, None, 1e-5))

    whole = suspect_of(Computation(name="norm", fn=loss, tensors=(torch.ones(2, 4),), labels=("value", "mean", "rstd")))
    assert whole.is_whole() and not dataclasses.replace(whole, steps=()).is_whole()
