"""The court: cases whose blame is known by construction, the truth table, and rulings in both languages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional  # noqa: E402

from sapper.backends import find  # noqa: E402
from sapper.backends.computation import Computation, with_gradients  # noqa: E402
from sapper.prove.blame import coarse, evaluators, rule_on  # noqa: E402
from sapper.prove.blame.table import FACTS, TABLE, decide  # noqa: E402
from sapper.prove.judge import judge  # noqa: E402
from sapper.prove.reference import refer  # noqa: E402
from support import ROOT  # noqa: E402

BENCHMARK = ROOT / "benchmarks" / "prove"


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAPPER_BACKENDS", str(BENCHMARK / "stacks"))
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import blame_cases

    yield blame_cases
    sys.modules.pop("blame_cases", None)


ONE_OF_EACH = [
    "chip: wrong constant", "cache by shapes: leaky relu", "sum of deviations", "gelu at -3 on papertiger", "Bessel function on papertiger",
    "ties of argmax", "exporter: gelu-tanh", "pass: relu-dropped",
]  # fmt: skip


LATER = [
    "products read as TF32", "conversion of what does not fit", "weights laid out before their update",
    "memory that the program never wrote",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LATER)
def test_cases_that_the_table_was_once_wrong_about(name: str, cases, tmp_path: Path) -> None:
    case = next(cases.Case(*one) for one in cases.unseen() if one.name == name)
    ruling = rule_on(case.computation(), cases.prepared(case, tmp_path), outcome=case.seen)
    assert ruling.blame == case.blame, ruling.sentences("en")


@pytest.mark.slow
def test_what_inductor_with_a_bug_exports_is_evaluated_without_the_bug(cases) -> None:
    case = next(one for one in cases.compilers(inductor=True) if one.name == "Inductor's relu: accuracy")
    evaluator = evaluators.of(find(case.backend), case.computation())

    assert evaluator is not None
    (found,) = evaluator.run(evaluator.export(case.computation()), case.computation())
    torch.testing.assert_close(found, case.fn(*case.tensors)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_one_case_of_each_kind(name: str, cases, tmp_path: Path) -> None:
    case = next(one for one in cases.cases() if one.name == name)
    ruling = rule_on(case.computation(), cases.prepared(case, tmp_path), outcome=case.seen)
    assert ruling.blame == case.blame, ruling.sentences("en")
    english, chinese = ruling.sentences("en"), ruling.sentences("zh")
    assert len(english) == len(chinese) == len(ruling.evidence) + 1 >= 4
    assert not [one for one in english if "{" in one or not one.isascii()]


TF32 = """
device = "papertiger"
[summary]
en = "products in TF32"
zh = "以 TF32 计算乘积"
[precision]
matmul_input = "tf32"
"""
TILE_EDGE = '[[fault]]\nkind = "tile-edge"\nop = ["aten::mm", "aten::addmm"]\n'


def layer(op: str, *, gradients: bool) -> Computation:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "linear": ((33, 65), (33, 65), (33,)), "conv2d": ((2, 8, 12, 12), (6, 8, 3, 3), (6,)),
        "scaled_dot_product_attention": ((1, 2, 8, 16),) * 3,
    }  # fmt: skip
    tensors = tuple(torch.randn(shape, generator=generator) for shape in shapes[op])
    one = Computation(name=op, fn=lambda *given: (getattr(functional, op)(*given),), tensors=tensors, labels=("value",))
    return with_gradients(one, wrt=[0, 1, 2], cotangents=[torch.ones_like(one()[0])]) if gradients else one


@pytest.mark.slow
@pytest.mark.parametrize("op", ["linear", "conv2d", "scaled_dot_product_attention"])
def test_products_read_in_tf32_are_a_finding_and_no_wrong_kernel(op: str, tmp_path: Path) -> None:
    (tmp_path / "tf32.toml").write_text(TF32, "utf-8")
    for gradients in (False, op != "scaled_dot_product_attention"):
        ruling = rule_on(layer(op, gradients=gradients), f"papertiger:{tmp_path / 'tf32.toml'}", outcome="imprecise")
        assert ruling.blame == "compiler" and ruling.outcome in ("imprecise", "wrong"), ruling.sentences("en")
        assert 'set_float32_matmul_precision("highest")' in ruling.sentences("en")[0]
        assert 'set_float32_matmul_precision("highest")' in ruling.sentences("zh")[0]


@pytest.mark.parametrize("rounding", ["even", "away", "cut"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_format_is_known_by_however_what_does_not_fit_is_rounded(rounding: str, dtype: torch.dtype) -> None:
    """Of some thousand operands one lies half between two numbers of TF32."""
    left, right = (torch.randn(24, 24, dtype=dtype, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    left[0, 0] = 1 + 2.0**-11
    form = coarse.Form("TF32", 11, rounding)
    got = torch.mm(coarse.as_read(left, form), coarse.as_read(right, form))
    call = Computation(name="mm", fn=lambda *given: (torch.mm(*given),), tensors=(left, right), labels=("value",))
    known = [read for read, one in coarse.readings(call) if judge([got], refer(one, spreads=0), one.labels)[0].outcome == "ok"]

    assert judge([got], refer(call), call.labels)[0].outcome in ("imprecise", "wrong")
    assert known == [form]


def test_no_reading_explains_a_product_in_fp64_or_what_multiplies_nothing() -> None:
    double = Computation(name="mm", fn=lambda *given: (torch.mm(*given),), tensors=(torch.ones(2, 2).double(),) * 2, labels=("value",))
    plain = Computation(name="exp", fn=lambda x: (x.exp(),), tensors=(torch.ones(2),), labels=("value",))

    assert list(coarse.readings(double)) == []
    assert len([one() for _, one in coarse.readings(plain)]) == 1


@pytest.mark.slow
def test_a_wrong_kernel_is_not_excused_by_the_precision_that_it_reads_in(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(TF32 + TILE_EDGE, "utf-8")
    ruling = rule_on(layer("linear", gradients=False), f"papertiger:{tmp_path / 'wrong.toml'}", outcome="wrong")
    assert ruling.blame == "kernel", ruling.sentences("en")


def test_the_benchmark_has_cases_of_every_blame_and_each_blame_a_row(cases) -> None:
    blames = {"model", "kernel", "compiler", "exporter", "state", "reference", "legal"}
    assert {case.blame for case in cases.cases()} == {row.blame for row in TABLE} - {"unknown"} == blames


def test_a_healthy_stack_is_not_accused_of_what_does_not_show(cases) -> None:
    right = {"red_alone": False, "red_after": False, "unlike_peer": False, "unsupported": False}
    assert decide(right).blame == "unknown"
    assert decide({}).blame == "unknown"


@pytest.mark.parametrize(
    ("facts", "blame"),
    [
        ({"red_alone": True, "is_compiler": False}, "kernel"),
        ({"red_alone": True, "is_compiler": True}, "unknown"),
        ({"red_alone": True, "is_compiler": True, "exported_right": False, "plain_right": False}, "exporter"),
        ({"red_alone": True, "is_compiler": True, "exported_right": True, "plain_right": True}, "compiler"),
        ({"red_alone": True, "is_compiler": True, "exported_right": True, "writes_code": True, "plain_right": False}, "compiler"),
        ({"red_alone": True, "is_compiler": True, "exported_right": True, "writes_code": False, "plain_right": False}, "kernel"),
        ({"red_alone": True, "is_compiler": False, "coarse_read": True}, "compiler"),
        ({"red_alone": True, "is_compiler": False, "coarse_read": False}, "kernel"),
        ({"red_alone": False, "red_after": True, "spread_explains": True}, "state"),
        ({"red_alone": False, "red_after": False, "near_truth": True, "peer_wrong": True, "spread_explains": True}, "reference"),
        ({"red_alone": False, "red_after": False, "unlike_peer": True, "spread_explains": True}, "model"),
        ({"red_alone": True, "other_truth_right": True, "is_compiler": False}, "reference"),
        ({"reference_fails": True, "red_alone": True}, "model"),
        ({"reads_unwritten": True, "red_alone": True, "is_compiler": False, "varies": True}, "model"),
        ({"draws": True, "red_alone": False, "red_after": False, "spread_explains": True}, "legal"),
        ({"draws": True, "red_alone": True, "is_compiler": False}, "kernel"),
        ({"draws": True, "red_alone": False, "red_after": True}, "state"),
        ({"red_alone": True, "is_compiler": True, "exported_right": True, "writes_code": False, "right_apart": True}, "state"),
        ({"red_alone": False, "red_after": False, "order_explains": True, "spread_explains": True}, "legal"),
    ],
)
def test_the_truth_table(facts: dict[str, bool], blame: str) -> None:
    assert decide(facts).blame == blame
    assert set(facts) <= set(FACTS)


def test_the_table_names_only_known_facts_and_the_page_has_its_rows() -> None:
    assert {name for row in TABLE for name in row.needs} <= set(FACTS)
    for page in ("prove-blame.md", "prove-blame.zh.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert [row.name for row in TABLE if f"`{row.name}`" not in text] == []
