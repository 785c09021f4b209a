"""The rule: known faults are found and known legal differences are not accused, each by the reason that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.nn import functional

import torch
from sapper.backends.computation import Computation, with_gradients
from sapper.prove.call import Call
from sapper.prove.judge import RED, judge
from sapper.prove.reference import NoReference, refer
from sapper.prove.traits import kind_of
from sapper.prove.verdict import Score

ATEN = torch.ops.aten
Alter = Callable[[list[torch.Tensor]], list[torch.Tensor]]
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def score(call: Call | Computation, alter: Alter) -> list[Score]:
    computation = call.computation() if isinstance(call, Call) else call
    return judge(alter([one.clone() for one in computation()]), refer(computation), computation.labels)


def outcomes(call: Call | Computation, alter: Alter) -> list[str]:
    return [one.outcome for one in score(call, alter)]


def normal(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def product(dtype: torch.dtype, *, terms: int = 256) -> Call:
    return Call.of(ATEN.mm.default, (normal(32, terms, dtype=dtype), normal(terms, 48, dtype=dtype, seed=1)))


def one_element(times: float) -> Alter:
    def alter(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs[0][3, 4] *= times
        return outputs

    return alter


def added_one_by_one(call: Call, dtype: torch.dtype) -> torch.Tensor:
    left, right = (one.to(dtype) for one in call.tensors)
    total = torch.zeros(left.shape[0], right.shape[1], dtype=dtype)
    for k in range(left.shape[1]):
        total += left[:, k : k + 1] * right[k : k + 1]
    return total.to(call.tensors[0].dtype)


@pytest.mark.parametrize("dtype", [F32, BF16, F16])
@pytest.mark.parametrize(
    ("kind", "alter"),
    [
        ("one part in a hundred too large", lambda out: [out[0] * 1.01]),
        ("one element", one_element(1.1)),
        ("shifted", lambda out: [out[0] + 0.1 * out[0].std()]),
        ("rows exchanged", lambda out: [out[0].roll(1, 0)]),
        ("one column lost", lambda out: [out[0] * (torch.arange(48) != 5).to(out[0].dtype)]),
        ("zero", lambda out: [torch.zeros_like(out[0])]),
    ],
)  # fmt: skip
def test_a_wrong_product_is_wrong_in_every_precision(dtype: torch.dtype, kind: str, alter: Alter) -> None:
    call = product(dtype)
    assert outcomes(call, lambda out: out) == ["ok"]
    assert outcomes(call, alter) == ["wrong"], kind


def test_an_error_in_a_small_row_is_seen_beside_a_large_one() -> None:
    left = normal(8, 64) * torch.tensor([1e6] + [1.0] * 7)[:, None]
    call = Call.of(ATEN.mm.default, (left, normal(64, 32, seed=1)))

    def alter(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs[0][5] *= 1.0001
        return outputs

    (found,) = score(call, alter)
    assert found.outcome == "wrong" and found.error_l2 is not None and found.error_l2 < 1e-6


@pytest.mark.parametrize("terms", [64, 4096])
def test_any_order_of_adding_in_fp32_is_legal(terms: int) -> None:
    left, right = torch.rand(2, terms), torch.rand(terms, 3)
    call = Call.of(ATEN.mm.default, (left, right))
    for other in (call, Call.of(ATEN.mm.default, (left - 0.5, right - 0.5))):
        assert outcomes(other, lambda _, other=other: [added_one_by_one(other, F32)])[0] in ("ok", "legal")


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_adding_in_the_dtype_of_the_operands_is_imprecise(dtype: torch.dtype) -> None:
    call = product(dtype)
    (found,) = score(call, lambda _: [added_one_by_one(call, dtype)])
    assert found.outcome == "imprecise"


@pytest.mark.parametrize(("dtype", "bits"), [(BF16, 8), (F16, 11)])
def test_fp32_computed_in_a_coarser_format_is_imprecise_and_the_format_is_told(dtype: torch.dtype, bits: int) -> None:
    call = product(F32)
    (found,) = score(call, lambda _: [call.tensors[0].to(dtype).mm(call.tensors[1].to(dtype)).to(F32)])
    assert (found.outcome, found.reason) == ("imprecise", "prove.reason.coarse")
    assert abs(found.values["bits"] - bits) < 1.2


def test_truncating_to_tf32_is_imprecise_not_wrong() -> None:
    call = product(F32)
    left, right = ((one.view(torch.int32) & ~0x1FFF).view(F32) for one in call.tensors)
    assert outcomes(call, lambda _: [left @ right]) == ["imprecise"]


def test_a_wrong_constant_is_wrong_not_imprecise() -> None:
    x = normal(64, 128) * 2
    call = Call.of(ATEN.gelu.default, (x,))
    for other in (0.5 * x * (1 + torch.erf(x * 0.7072)), torch.nn.functional.gelu(x, approximate="tanh")):
        assert outcomes(call, lambda _, other=other: [other]) == ["wrong"]


def test_a_variance_over_one_less_is_wrong_not_imprecise() -> None:
    x, ones = normal(64, 128) * 3, torch.ones(128)
    call = Call.of(ATEN.native_layer_norm.default, (x, [128], ones, ones, 1e-5))
    assert outcomes(call, lambda out: [(x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) + 1, *out[1:]])[0] == "wrong"


def test_a_layer_norm_that_cancels_is_found_where_the_mean_is_large() -> None:
    x, ones = normal(64, 128) * 0.1 + 30, torch.ones(128)
    call = Call.of(ATEN.native_layer_norm.default, (x, [128], ones, ones, 1e-5))

    def cancelling(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        mean = x.mean(-1, keepdim=True)
        return [(x - mean) * torch.rsqrt((x * x).mean(-1, keepdim=True) - mean**2 + 1e-5) + 1, *outputs[1:]]

    assert outcomes(call, lambda out: out) == ["ok", "ok", "ok"]
    assert outcomes(call, cancelling)[0] == "wrong"


def test_equal_values_may_be_chosen_at_will_and_others_may_not() -> None:
    values = torch.tensor([1.0, 3, 3, 2])
    call = Call.of(ATEN.argmax.default, (values,))
    assert [outcomes(call, lambda _, at=at: [torch.tensor(at)]) for at in range(4)] == [["wrong"], ["ok"], ["legal"], ["wrong"]]
    top = Call.of(ATEN.topk.default, (values, 2))
    assert outcomes(top, lambda out: [out[0], torch.tensor([2, 1])]) == ["ok", "legal"]
    assert outcomes(top, lambda out: [out[0], torch.tensor([2, 2])]) == ["ok", "wrong"]
    assert outcomes(top, lambda out: [out[0], torch.tensor([2, 9])]) == ["ok", "wrong"]


def test_flushed_denormals_are_legal_and_flushed_small_numbers_are_not() -> None:
    tiny = torch.tensor([1e-40, 1.0])
    call = Call.of(ATEN.div.Tensor, (tiny, torch.tensor([2e-38, 1.0])))
    assert outcomes(call, lambda _: [torch.tensor([0.0, 1.0])]) == ["legal"]
    call = Call.of(ATEN.mul.Tensor, (torch.tensor([1e-36, 1e-37]), torch.tensor(1.0)))
    assert outcomes(call, lambda _: [torch.tensor([0.0, 1e-37])]) == ["wrong"]


def test_what_is_divided_by_a_flushed_denormal_is_infinite_or_none() -> None:
    call = Call.of(ATEN.div.Tensor, (torch.tensor([1e-3, 1e-40, 3.0]), torch.tensor([1e-39, 1e-39, 1.0])))
    infinite, none = float("inf"), float("nan")
    assert outcomes(call, lambda _: [torch.tensor([infinite, none, 3.0])]) == ["legal"]
    assert outcomes(call, lambda _: [torch.tensor([infinite, none, 3.1])]) == ["nan"]
    assert outcomes(call, lambda _: [torch.tensor([infinite, infinite, 3.0])]) == ["nan"]


def test_choices_and_comparisons_of_flushed_denormals_are_legal() -> None:
    """XLA's and IREE's processors compare denormal numbers as zeros."""
    values = torch.tensor([2.0, 3e-40, 1e-40, 0.0, -1.0])
    order = Call.of(ATEN.argsort.default, (values,))
    assert outcomes(order, lambda _: [torch.tensor([4, 1, 2, 3, 0])]) == ["legal"]
    assert outcomes(order, lambda _: [torch.tensor([1, 4, 2, 3, 0])]) == ["wrong"]
    assert outcomes(order, lambda _: [torch.tensor([4, 1, 1, 3, 0])]) == ["wrong"]
    unequal = Call.of(ATEN.ne.Scalar, (values, 0.0))
    assert outcomes(unequal, lambda _: [torch.tensor([True, False, False, False, True])]) == ["legal"]
    assert outcomes(unequal, lambda _: [torch.tensor([False, True, True, False, True])]) == ["wrong"]


def test_no_number_and_infinity_are_values() -> None:
    x = torch.tensor([float("nan"), -1.0, float("inf"), 2.0])
    call = Call.of(ATEN.relu.default, (x,))
    assert outcomes(call, lambda out: out) == ["ok"]
    assert outcomes(call, lambda _: [torch.tensor([0.0, 0.0, float("inf"), 2.0])]) == ["nan"]
    assert outcomes(call, lambda _: [torch.tensor([float("nan"), 0.0, 3.4e38, 2.0])]) == ["nan"]
    assert outcomes(call, lambda _: [torch.tensor([float("nan"), 0.0, float("inf"), 2.5])]) == ["wrong"]


def test_infinities_may_become_what_another_algorithm_of_pytorch_makes_of_them() -> None:
    """Between two infinities lies an infinity, or none: ``a + (b - a) w`` gives NaN, and Inductor, JAX and IREE compute it so."""
    image = torch.tensor([[[[float("inf"), float("inf")], [1.0, 2.0]]]])
    call = Call.of(ATEN.upsample_bilinear2d.vec, (image, [3, 3], True, None))

    def with_first_rows(value: float, last: float = 1.5) -> Callable[[Any], list[torch.Tensor]]:
        def made(out: list[torch.Tensor]) -> list[torch.Tensor]:
            changed = out[0].clone()
            changed[..., :2, :], changed[..., 2, 1] = value, last
            return [changed]

        return made

    assert outcomes(call, with_first_rows(float("nan"))) == ["legal"]
    assert outcomes(call, with_first_rows(float("nan"), last=1.6)) == ["nan"]
    assert outcomes(call, with_first_rows(7.0)) == ["nan"]


def test_an_overflow_on_the_way_is_not_excused_where_all_inputs_are_finite() -> None:
    """Algorithms differ in what they make of infinities; one that makes an infinity of finite numbers is at fault."""
    call = Call.of(ATEN.mse_loss.default, (torch.full((4,), 300.0, dtype=F16), torch.zeros(4, dtype=F16)))
    assert refer(call.computation()).decomposed is None
    apart = torch.tensor([[[3e38, -3e38, 1.0, 1.0], [1.0, 2.0, float("inf"), 4.0]]])
    split = Call.of(ATEN.upsample_linear1d.vec, (apart, [7], True, None))

    def overflowing(out: list[torch.Tensor]) -> list[torch.Tensor]:
        out[0][0, 0, 0] = float("nan")
        return out

    assert outcomes(split, lambda out: out) == ["ok"] and outcomes(split, overflowing) == ["nan"]
    infinite = Call.of(ATEN.mse_loss.default, (torch.tensor([1.0, float("inf")], dtype=F16), torch.zeros(2, dtype=F16)))
    assert refer(infinite.computation()).decomposed is not None


def test_whether_the_last_number_before_infinity_overflows_is_open() -> None:
    call = Call.of(ATEN.add.Tensor, (torch.tensor([65504.0], dtype=F16), torch.tensor([20.0], dtype=F16)))
    for legal in (65504.0, float("inf")):
        assert outcomes(call, lambda _, legal=legal: [torch.tensor([legal], dtype=F16)]) == ["ok"]
    assert outcomes(call, lambda _: [torch.tensor([-float("inf")], dtype=F16)]) == ["nan"]


def test_integers_and_forms_are_exact() -> None:
    call = Call.of(ATEN.add.Tensor, (torch.arange(4), torch.arange(4)))
    assert outcomes(call, lambda out: [out[0] + 1]) == ["wrong"]
    assert score(call, lambda out: [out[0].to(torch.int32)])[0].reason == "prove.reason.form"
    assert score(product(BF16), lambda out: [out[0].float()])[0].reason == "prove.reason.form"
    assert score(product(BF16), lambda out: [out[0][:1]])[0].reason == "prove.reason.form"
    assert score(product(BF16), lambda out: [])[0].reason == "prove.reason.outputs"


def test_where_a_rounding_turns_an_integer_over_both_are_legal_but_not_in_an_op_that_computes_nothing() -> None:
    near = Computation(
        name="steps", fn=lambda x, y: ((x / y).floor().to(torch.int64),), tensors=(torch.tensor([6.0, 1.0]), torch.tensor([0.1, 0.3])),
        labels=("value",),
    )  # fmt: skip
    assert outcomes(near, lambda _: [torch.tensor([59, 3])])[0] in ("ok", "legal")
    assert outcomes(near, lambda _: [torch.tensor([60, 2])]) == ["wrong"]
    assert outcomes(Call.of(ATEN.floor.default, (torch.tensor([6.0, 1.0]),)), lambda _: [torch.tensor([5.0, 1.0])]) == ["wrong"]


def test_gradients_are_judged_apart_from_values() -> None:
    plain = Computation(name="silu", fn=lambda x: (torch.nn.functional.silu(x),), tensors=(normal(8, 32),), labels=("value",))
    both = with_gradients(plain, wrt=[0], cotangents=[normal(8, 32, seed=2)])
    assert outcomes(both, lambda out: out) == ["ok", "ok"]
    assert outcomes(both, lambda out: [out[0], out[1] * 0.5]) == ["ok", "wrong"]
    assert outcomes(both, lambda out: [out[0], torch.zeros_like(out[1])]) == ["ok", "wrong"]


def test_an_ill_conditioned_result_is_not_accused() -> None:
    """The difference of two sums that almost cancel: any stack that rounds inside differs by much."""
    x = normal(400)
    computation = Computation(
        name="variance", fn=lambda x: ((x + 1000).square().mean() - (x + 1000).mean().square(),), tensors=(x,), labels=("value",)
    )
    assert outcomes(computation, lambda out: [out[0] * 1.01])[0] == "ok"
    assert outcomes(computation, lambda out: [out[0] * 10])[0] != "ok"


def test_what_an_op_that_also_writes_hands_on_may_be_off_by_a_rounding_too() -> None:
    """Of two rows the gradient of a batch norm cancels but for roundings; its forward pass writes running statistics beside."""
    x, weight = torch.tensor([[-7.585], [3.5752]]), torch.tensor([2.8736])
    mean, variance, cotangent = torch.tensor([2.5744]), torch.tensor([6.9572]), torch.tensor([[2.0], [1.0]])

    def normed(x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor]:
        return (ATEN._batch_norm_with_update(x, weight, None, mean.clone(), variance.clone(), 0.5, 0.0)[0],)

    forward = Computation(name="norm", fn=normed, tensors=(x, weight, mean, variance), labels=("value",))
    step = with_gradients(forward, wrt=[0], cotangents=[cotangent])
    _, *saved = torch.native_batch_norm(x, weight, None, None, None, True, 0.5, 0.0)
    above = torch.nextafter(saved[1], torch.tensor([1.0]))
    moved = ATEN.native_batch_norm_backward(cotangent, x, weight, None, None, saved[0], above, True, 0.0, [True, False, False])[0]

    assert outcomes(step, lambda out: [out[0], moved]) == ["ok", "ok"]
    assert outcomes(step, lambda out: [out[0], moved * 1e3]) == ["ok", "wrong"]


def test_complex_results_and_zeros_are_judged_too() -> None:
    call = Call.of(ATEN._fft_r2c.default, (normal(64), [0], 0, True))
    assert outcomes(call, lambda out: out) == ["ok"]
    assert outcomes(call, lambda out: [out[0].conj()]) == ["wrong"]
    zero = Call.of(ATEN.mul.Tensor, (normal(8), torch.zeros(8)))
    assert outcomes(zero, lambda out: out) == ["ok"]
    assert outcomes(zero, lambda out: [out[0] + 1e-6]) == ["wrong"]


def test_peer_and_spread_are_computed_only_where_rounding_does_not_explain_the_error() -> None:
    ran: list[torch.dtype] = []

    def watched(x: torch.Tensor) -> tuple[torch.Tensor]:
        ran.append(x.dtype)
        return (torch.sin(x),)

    computation = Computation(name="sin", fn=watched, tensors=(normal(64),), labels=("value",))
    got = list(computation.fn(*computation.tensors))
    ran.clear()
    reference = refer(computation)
    assert judge(got, reference, ("value",))[0].outcome == "ok"
    assert ran.count(torch.float64) == 1
    assert judge([got[0] * 1.001], reference, ("value",))[0].outcome == "wrong"
    assert len(ran) > 5


def test_what_pytorch_cannot_compute_has_no_reference() -> None:
    broken = Computation(name="broken", fn=lambda x: (x @ x,), tensors=(normal(4, 3),), labels=("value",))
    with pytest.raises(NoReference):
        refer(broken)


def test_the_limit_is_where_a_finding_begins() -> None:
    (found,) = score(product(F32), lambda out: [out[0] * 1.01])
    assert found.ratio is not None and found.ratio > RED
    assert found.allowed_l2 is not None and found.error_l2 == pytest.approx(0.01, rel=0.01)


# ---- what PyTorch's documentation leaves open ------------------------------------------------------------------------

OPEN = (torch.tensor([10.0, 11, 12, 13]), torch.tensor([2, 2, 1, 2]))
"""Values, and the places that they are written to: the third place has three candidates."""


def repeated(name: str) -> Call:
    """Four values written to five places, two of them to none."""
    values, index = OPEN
    zeros = torch.zeros(5)
    if name == "max_unpool2d":
        return Call.of(ATEN.max_unpool2d.default, (values.view(1, 2, 2), index.view(1, 2, 2), [1, 5]))
    if name == "index_put":
        return Call.of(ATEN.index_put.default, (zeros, [index], values))
    if name == "scatter_":
        return Call.of(ATEN.scatter_.src, (zeros, 0, index, values))
    arguments = {"scatter": (zeros, 0, index, values), "index_copy": (zeros, 0, index, values), "put": (zeros, index, values)}
    return Call.of(getattr(ATEN, name).src if name == "scatter" else getattr(ATEN, name).default, arguments[name])


@pytest.mark.parametrize("name", ["scatter", "scatter_", "index_copy", "index_put", "put", "max_unpool2d"])
def test_of_values_written_to_one_place_any_may_stay_and_no_other(name: str) -> None:
    def with_third(value: float, other: float = 12.0) -> Alter:
        return lambda out: [torch.tensor([0.0, other, value, 0, 0]).view(out[0].shape)]

    call = repeated(name)
    assert {outcomes(call, with_third(one))[0] for one in (10.0, 11.0, 13.0)} == {"ok", "legal"}
    (legal,) = {one.reason for value in (10.0, 11.0) for one in score(call, with_third(value)) if one.outcome == "legal"}
    assert legal == "prove.reason.winner"
    for wrong in (with_third(12.0), with_third(0.0), with_third(10.5), with_third(11.0, other=11.0), with_third(float("nan"))):
        assert outcomes(call, wrong)[0] in ("wrong", "nan")


def test_a_choice_among_written_values_is_followed_through_views_and_not_beyond_other_writes() -> None:
    values, index = OPEN

    def twice(target: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = target.scatter(0, index, source)
        return (first.index_copy_(0, torch.tensor([1]), source[:1]).unsqueeze(0),)

    computation = Computation(name="twice", fn=twice, tensors=(torch.zeros(5), values), labels=("value",))
    assert outcomes(computation, lambda _: [torch.tensor([[0.0, 10, 11, 0, 0]])]) == ["legal"]
    assert outcomes(computation, lambda _: [torch.tensor([[0.0, 12, 11, 0, 0]])]) == ["wrong"]


@pytest.mark.parametrize(
    "write", [lambda one: one[2:3].fill_(9.0), lambda one: one.view(5).zero_(), lambda one: one.narrow(0, 0, 3).add_(1.0)]
)
def test_a_write_through_a_view_ends_the_choice(write: Callable[[torch.Tensor], object]) -> None:
    def then(target: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = target.scatter(0, OPEN[1], source)
        write(first)
        return (first,)

    computation = Computation(name="then", fn=then, tensors=(torch.zeros(5), OPEN[0]), labels=("value",))
    assert outcomes(computation, lambda _: [torch.tensor([0.0, 12, 11, 0, 0])]) == ["wrong"]


def test_positions_are_no_conversion_and_two_to_the_63_fits_no_integer() -> None:
    call = Call.of(ATEN.argmax.default, (torch.full((3, 1), 1e30), 1, True))
    assert outcomes(call, lambda _: [torch.full((3, 1), 7)]) == ["wrong"]
    call = Call.of(ATEN._to_copy.default, (torch.tensor([2.0**63, 1.0]),), {"dtype": torch.int64})
    assert outcomes(call, lambda _: [torch.tensor([2**63 - 1, 1])])[0] in ("ok", "legal")
    assert outcomes(call, lambda _: [torch.tensor([2**63 - 1, 2])]) == ["wrong"]


def test_values_that_are_added_at_one_place_are_a_sum_in_any_order_and_no_choice() -> None:
    terms = 4096
    source, index = torch.rand(terms) + 0.5, torch.zeros(terms, dtype=torch.int64)
    call = Call.of(ATEN.index_put.default, (torch.zeros(2), [index], source, True))
    backwards = source.flip(0).cumsum(0)[-1]
    assert outcomes(call, lambda _: [torch.stack([backwards, torch.tensor(0.0)])])[0] in ("ok", "legal")
    assert outcomes(call, lambda _: [torch.stack([source[0], torch.tensor(0.0)])]) == ["wrong"]


def test_topk_without_order_may_come_in_any_and_values_must_fit_their_positions() -> None:
    call = Call.of(ATEN.topk.default, (torch.tensor([1.0, 3, 5, 2]), 2, -1, True, False))
    three, five = torch.tensor([3.0, 5]), torch.tensor([5.0, 3])
    assert set(outcomes(call, lambda _: [three, torch.tensor([1, 2])])) <= {"ok", "legal"}
    assert set(outcomes(call, lambda _: [five, torch.tensor([2, 1])])) <= {"ok", "legal"}
    assert "wrong" in outcomes(call, lambda _: [three, torch.tensor([2, 1])])
    none = Call.of(ATEN.topk.default, (torch.tensor([1.0, float("nan"), 5, 2]), 2, -1, True, False))
    assert set(outcomes(none, lambda _: [torch.tensor([5.0, float("nan")]), torch.tensor([2, 1])])) <= {"ok", "legal"}
    assert set(outcomes(none, lambda _: [torch.tensor([float("nan"), 5.0]), torch.tensor([1, 2])])) <= {"ok", "legal"}
    assert "wrong" in outcomes(call, lambda _: [five, torch.tensor([2, 1], dtype=torch.int32)])
    ordered = Call.of(ATEN.topk.default, (torch.tensor([1.0, 3, 5, 2]), 2))
    assert "wrong" in outcomes(ordered, lambda _: [three, torch.tensor([1, 2])])


def test_a_complex_number_is_infinite_if_a_part_is_and_no_number_if_a_part_is_none() -> None:
    call = Call.of(ATEN.mul.Tensor, (torch.tensor([complex("inf"), complex("nan"), 1j]), torch.tensor([2j, 1, 1])))
    nan = float("nan")
    assert outcomes(call, lambda _: [torch.tensor([complex(nan, float("inf")), complex(0.0, nan), 1j])]) == ["ok"]
    assert outcomes(call, lambda _: [torch.tensor([complex(nan, nan), complex(0.0, nan), 1j])]) == ["nan"]


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_denormals_that_are_rounded_alike_do_not_lean(dtype: torch.dtype) -> None:
    """Each is rounded up by a good part of itself."""
    spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    small = torch.tensor([1.6, 3.7, 16.6, 5.6]).double() * spacing
    total = Computation(name="sum", fn=lambda x, y: (x * y,), tensors=(small.to(dtype), torch.ones(4, dtype=dtype)), labels=("value",))
    reference = refer(total)
    reference.truth[0] = small

    (found,) = judge([small.to(dtype)], reference, total.labels)
    assert found.outcome == "ok" and found.bias is None


@pytest.mark.parametrize(("share", "outcome"), [(0.0, "ok"), (4.0, "wrong")])
def test_normal_numbers_that_lean_are_seen_among_denormals(share: float, outcome: str) -> None:
    """Half of the numbers are denormals: what they make of the norm does not dilute how far the others are off."""
    x = (normal(4096).double() * 4e-5).to(F16)
    same = Computation(name="once", fn=lambda x: (x * 1,), tensors=(x,), labels=("value",))
    moved = (x.double() * (1 + share * 2**-11)).to(F16)
    (found,) = judge([moved], refer(same), same.labels)
    assert found.outcome == outcome and ("bias" in (found.reason or "")) == (outcome == "wrong")


@pytest.mark.parametrize("name", ["inv", "cholesky"])
def test_what_checks_its_inputs_and_returns_nothing_is_judged(name: str) -> None:
    """``torch.linalg`` looks for errors by an op without results."""
    x = normal(6, 6)
    x = x @ x.mT + torch.eye(6)
    made = Computation(name=name, fn=lambda x: (getattr(torch.linalg, name)(x),), tensors=(x,), labels=("value",))
    right = getattr(torch.linalg, name)(x)
    assert judge([right], refer(made), made.labels)[0].outcome == "ok"
    assert judge([right * 1.01], refer(made), made.labels)[0].outcome in ("imprecise", "wrong")


def test_what_cancels_altogether_leans_to_no_side() -> None:
    """A row of one number normalised is its sign: the gradient is zero but for roundings, of the truth too, and the largest one decides."""
    x, cotangent = normal(4, 5, 1, dtype=BF16), normal(4, 5, 1, dtype=BF16, seed=1)
    forward = Computation(name="unit", fn=lambda x: (torch.nn.functional.normalize(x, dim=-1),), tensors=(x,), labels=("value",))
    step = with_gradients(forward, wrt=[0], cotangents=[cotangent])
    reference = refer(step)
    for run in (*reference.spread, *reference.spread_inside):
        run[1] = normal(4, 5, 1, seed=2).double() / 8  # of which little lies along the truth
    reference.truth[1] = torch.full((4, 5, 1), 1e-16).double()

    def leaning(size: float) -> str:
        return judge([x.sign(), torch.full((4, 5, 1), size, dtype=BF16)], reference, step.labels)[1].outcome

    assert (leaning(0.125), leaning(100.0)) == ("ok", "wrong")


def test_statistics_of_a_norm_may_be_kept_in_fp32_and_its_gradient_taken_from_them() -> None:
    """As CUDA does; the CPU keeps them in the dtype of the values and refuses others."""
    x, grad, weight = normal(6, 16, dtype=BF16), normal(6, 16, dtype=BF16, seed=1), normal(16, dtype=BF16, seed=2)
    forward = Call.of(ATEN.native_layer_norm.default, (x, [16], weight, weight, 1e-5))
    wide = [x.float(), weight.float()]
    values, mean, rstd = ATEN.native_layer_norm.default(wide[0], [16], wide[1], wide[1], 1e-5)
    backward = Call.of(ATEN.native_layer_norm_backward.default, (grad, x, [16], mean, rstd, weight, weight, [True] * 3))
    args = (grad.float(), wide[0], [16], mean, rstd, wide[1], wide[1], [True] * 3)
    got = [one.to(BF16) for one in ATEN.native_layer_norm_backward.default(*args)]

    assert [one.outcome for one in judge([values.to(BF16), mean, rstd], refer(forward.computation()), forward.labels)] == ["ok"] * 3
    assert judge([values.to(BF16), mean * 1.5, rstd], refer(forward.computation()), forward.labels)[1].outcome == "wrong"
    assert [one.outcome for one in judge(got, refer(backward.computation()), backward.labels)] == ["ok"] * 3
    assert judge([got[0] * 1.1, *got[1:]], refer(backward.computation()), backward.labels)[0].outcome == "wrong"


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Call:
    return Call.of(ATEN.convolution.default, (x, weight, bias, [1, 1], [1, 1], [1, 1], False, [0, 0], 1))


def convolution(dtype: torch.dtype) -> Call:
    return convolved(normal(2, 8, 12, 12, dtype=dtype), normal(8, 8, 3, 3, dtype=dtype, seed=1) / 4, normal(8, dtype=dtype, seed=2))


def in_two_steps(call: Call, *, parts: int = 1) -> torch.Tensor:
    """As PyTorch's GPU kernels do: the products are written, then the bias is added to them.

    Args:
        call: A convolution with a bias.
        parts: Of the channels; what the products of each add up to is added in the dtype.
    """
    x, weight, bias = call.tensors
    sums = [
        convolved(channels.float(), part.float(), None).run()[0].to(bias.dtype)
        for channels, part in zip(x.chunk(parts, 1), weight.chunk(parts, 1), strict=True)
    ]
    return sum(sums[1:], start=sums[0]) + bias[:, None, None]


def whole_convolution(call: Call, *more: torch.Tensor) -> Computation:
    """The convolution as a model calls it; ``more``: two matrices, whose product comes after it."""

    def fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *matrices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (functional.conv2d(x, weight, bias, padding=1), *([torch.mm(*matrices)] if matrices else []))

    return Computation(name="conv2d", fn=fn, tensors=(*call.tensors, *more), labels=("value", "product") if more else ("value",))


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_a_product_may_be_written_before_its_bias_is_added(dtype: torch.dtype) -> None:
    """Where the two cancel, all that is left is the first rounding. It excuses no element that does not cancel, nor all of them."""
    call = convolution(dtype)
    right = in_two_steps(call)
    one_off, shifted = right.clone(), right + 0.05 * right.abs().mean()
    one_off.view(-1)[right.abs().argmax()] *= 1.1
    gradients = with_gradients(whole_convolution(call), wrt=[1], cotangents=[torch.ones_like(right)])

    for one in (call.computation(), whole_convolution(call)):
        assert judge([right], refer(one), ["value"])[0].outcome == "ok"
        for wrong in (one_off, shifted, (right.float() * 1.02).to(dtype)):
            assert judge([wrong], refer(one), ["value"])[0].outcome == "wrong"
    assert [one.outcome for one in judge([right, gradients()[1]], refer(gradients), gradients.labels)] == ["ok", "ok"]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_products_that_are_added_up_in_bf16_before_a_bias_are_imprecise(parts: int) -> None:
    call = convolution(BF16)
    for one in (call.computation(), whole_convolution(call)):
        assert judge([in_two_steps(call, parts=parts)], refer(one), ["value"])[0].outcome in ("imprecise", "wrong")


def test_the_steps_of_one_op_excuse_nothing_in_what_another_made() -> None:
    call, matrices = convolution(BF16), product(BF16)
    left, right = matrices.tensors
    narrow = added_one_by_one(matrices, BF16)
    halves = torch.mm(left[:, :128], right[:128]) + torch.mm(left[:, 128:], right[128:])
    both = whole_convolution(call, left, right)

    def doubled(*tensors: torch.Tensor) -> tuple[torch.Tensor]:
        return (functional.conv2d(*tensors, padding=1).mul_(2.0).sub_(1.0),)  # what was written by the op is no longer there

    later = Computation(name="later", fn=doubled, tensors=call.tensors, labels=("value",))

    assert [one.outcome for one in judge([in_two_steps(call), *matrices.run()], refer(both), both.labels)] == ["ok", "ok"]
    for one in (narrow, halves):
        assert judge([in_two_steps(call), one], refer(both), both.labels)[1].outcome in ("imprecise", "wrong")
    assert refer(later).stepwise(0, BF16) is None and refer(both).stepwise(1, BF16) is None


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("name", ["mish", "silu"])
def test_a_gradient_may_be_rounded_in_each_step_that_pytorch_itself_takes_for_a_device(name: str, dtype: torch.dtype) -> None:
    """Near the root of the slope little is left but those roundings; they excuse no element beyond them, nor any that does not cancel."""
    backward, activation = getattr(ATEN, f"{name}_backward").default, functional.mish if name == "mish" else functional.silu
    x, grad = torch.linspace(-3, 3, 4000).to(dtype), normal(4000, dtype=dtype)
    call = Call.of(backward, (grad, x))
    whole = Computation(name=name, fn=lambda x: (activation(x),), tensors=(x,), labels=("value",))
    whole = with_gradients(whole, wrt=[0], cotangents=[grad])
    right, truth = backward.decompose(grad, x), backward(grad.double(), x.double())
    apart = (right - truth).abs() / (truth.abs() * torch.finfo(dtype).eps / 2 + 2.0**-24)
    near, far = int(apart.argmax()), int(truth.abs().argmax())
    near_off, far_off = right.clone(), right.clone()
    near_off[near] += 8 * (right - truth)[near].to(dtype)
    far_off[far] *= 1.1

    assert apart[near] > 4 * RED
    assert judge([right], refer(call.computation()), call.labels)[0].outcome == "ok"
    assert [one.outcome for one in judge([whole()[0], right], refer(whole), whole.labels)] == ["ok", "ok"]
    for wrong in (near_off, far_off, (right.float() * 1.03).to(dtype), right + 0.05 * right.abs().mean()):
        assert judge([wrong], refer(call.computation()), call.labels)[0].outcome in ("imprecise", "wrong")
        assert judge([whole()[0], wrong], refer(whole), whole.labels)[1].outcome in ("imprecise", "wrong")


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("name", ["mish", "silu"])
@pytest.mark.parametrize("at", [5.0, 10.0, 40.0])
def test_where_a_step_gives_one_whoever_rounds_it_nothing_is_excused(name: str, dtype: torch.dtype, at: float) -> None:
    """The next factor is as large as the input, and would make much of a rounding that nobody's step has."""
    backward = getattr(ATEN, f"{name}_backward").default
    x = torch.cat([4 * normal(1 << 16), torch.tensor([at])]).to(dtype)
    call = Call.of(backward, (torch.ones_like(x), x))
    right = backward.decompose(*call.tensors)
    wrong = right.clone()
    wrong[-1] *= 1.04

    assert judge([right], refer(call.computation()), call.labels)[0].outcome == "ok"
    assert judge([wrong], refer(call.computation()), call.labels)[0].outcome in ("imprecise", "wrong")


def group_norm(x: torch.Tensor) -> Call:
    weight, bias = 1 + normal(8, dtype=BF16, seed=1) / 3, normal(8, dtype=BF16, seed=2) / 3
    return Call.of(ATEN.native_group_norm.default, (x, weight, bias, 2, 8, x[0, 0].numel(), 4, 1e-5))


def normalised(call: Call, mean: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
    """By given statistics, in fp32, as PyTorch's GPU kernel does."""
    x, weight, bias = (one.float() for one in call.tensors)
    scale = rstd.float().repeat_interleave(2, 1) * weight
    shift = bias - mean.float().repeat_interleave(2, 1) * scale
    return (x * scale[..., None, None] + shift[..., None, None]).to(BF16)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_group_norm_may_use_the_statistics_as_it_returns_them_and_no_worse_ones(offset: float) -> None:
    call = group_norm(normal(2, 8, 20, 20, dtype=BF16) + offset)
    mean, rstd = (one.to(BF16) for one in call.in_dtypes({BF16: F32}).run([one.float() for one in call.tensors])[1:])
    right = normalised(call, mean, rstd)
    one_off = right.clone()
    one_off.view(-1)[right.abs().argmax()] *= 1.1

    assert [one.outcome for one in judge([right, mean, rstd], refer(call.computation()), call.labels)] == ["ok"] * 3
    for wrong in (one_off, right + 0.05 * right.abs().mean(), normalised(call, mean, rstd * 1.03), normalised(call, mean + 0.1, rstd)):
        assert judge([wrong, mean, rstd], refer(call.computation()), call.labels)[0].outcome == "wrong"


def test_what_one_op_keeps_for_itself_frees_nothing_of_what_another_made() -> None:
    """Positions and dtypes of an output count, whatever another op of the computation returns at its place."""
    query, x, table = normal(1, 2, 8, 4), normal(6, 16), normal(10, 4)
    rows, starts = torch.tensor([1, 2, 4, 5]), torch.tensor([0, 2])

    def attended(query: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return functional.scaled_dot_product_attention(query, query, query), x.argmax(1), x @ x.T

    def bagged(table: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ATEN._embedding_bag.default(table, rows, starts)[0], x.argmax(1)

    for fn, tensors in ((attended, (query, x)), (bagged, (table, x))):
        whole = Computation(name="whole", fn=fn, tensors=tensors, labels=("value", "positions", "product")[: len(fn(*tensors))])
        value, positions, *rest = whole()
        assert [one.outcome for one in judge([value, positions, *rest], refer(whole), whole.labels)] == ["ok"] * (2 + len(rest))
        assert judge([value, (positions + 1) % 16, *rest], refer(whole), whole.labels)[1].outcome == "wrong"
        assert judge([value, positions.float(), *rest], refer(whole), whole.labels)[1].outcome == "wrong"
        assert [one.outcome for one in judge([value], refer(whole), whole.labels)] == ["wrong"]


def test_what_an_op_keeps_for_itself_may_have_any_form_and_number() -> None:
    table, rows, starts = normal(10, 4), torch.tensor([1, 2, 4, 5]), torch.tensor([0, 2])
    call = Call.of(ATEN._embedding_bag.default, (table, rows, starts))
    value, *kept = call.run()

    assert [one.outcome for one in judge([value], refer(call.computation()), call.labels)] == ["ok"]
    shorter = [value, kept[0][:1], *kept[1:]]
    assert [one.outcome for one in judge(shorter, refer(call.computation()), call.labels)] == ["ok", "legal", "ok", "ok"]
    assert judge([value * 1.1], refer(call.computation()), call.labels)[0].outcome == "wrong"


def test_fp32_is_for_the_statistics_of_a_norm_and_not_for_what_stands_beside_them() -> None:
    x, matrix, weight = normal(6, 16, dtype=BF16), normal(16, 16, dtype=BF16, seed=1), normal(16, dtype=BF16, seed=2)

    def fn(x: torch.Tensor, matrix: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return functional.layer_norm(x, [16], weight), x @ matrix

    beside = Computation(name="beside", fn=fn, tensors=(x, matrix, weight), labels=("value", "product"))
    norm = Call.of(ATEN.native_layer_norm.default, (x, [16], weight, weight, 1e-5)).computation()
    gradients = with_gradients(norm, wrt=[0], cotangents=[torch.ones_like(x), None, None])
    value, *_, grad = gradients()

    assert [one.outcome for one in judge([beside()[0], beside()[1].float()], refer(beside), beside.labels)] == ["ok", "wrong"]
    kept = [value, *ATEN.native_layer_norm.default(x.float(), [16], weight.float(), weight.float(), 1e-5)[1:]]
    assert [one.outcome for one in judge([*kept, grad], refer(gradients), gradients.labels)] == ["ok"] * 4
    assert judge([*kept, grad.float()], refer(gradients), gradients.labels)[3].outcome == "wrong"


@pytest.mark.parametrize(("reduce", "kind"), [("amax", "exact"), ("amin", "exact"), ("sum", "other"), ("prod", "other")])
def test_a_scatter_that_chooses_computes_nothing(reduce: str, kind: str) -> None:
    assert kind_of("aten::scatter_reduce.two", {"reduce": reduce}) == kind


def test_a_number_in_the_place_of_nan_is_held_against_something() -> None:
    """PyTorch's decomposition of ``grid_sample`` gives 0 for a NaN coordinate, its kernel NaN: neither makes any number right."""
    grid = torch.tensor([[[[float("nan"), 0.0], [0.0, 0.0]]]])
    call = Call.of(ATEN.grid_sampler_2d.default, (torch.ones(1, 1, 2, 2), grid, 0, 0, False))

    def with_first(out: list[torch.Tensor]) -> list[torch.Tensor]:
        out[0].view(-1)[0] = 123.0
        return out

    assert outcomes(call, with_first) == ["nan"]


def test_positions_of_flushed_denormals_are_no_mixture_of_two_answers() -> None:
    call = Call.of(ATEN.argsort.default, (torch.tensor([2.0, 3e-40, 1e-40, 0.0, -1.0]),))

    def answer(*positions: int) -> Alter:
        return lambda _: [torch.tensor(positions)]

    assert outcomes(call, answer(4, 1, 2, 3, 0)) == ["legal"]
    assert outcomes(call, answer(4, 1, 2, 1, 0)) == ["wrong"]
