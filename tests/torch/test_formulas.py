"""Ops that PyTorch has for devices alone: the CPU computes them by formulas, so that a device's own can be judged."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional as F

import torch
from sapper.prove.call import Call, overload
from sapper.prove.model.local import judged

FUSED = "aten::_scaled_dot_product_{}_attention{}"


def op(kind: str, way: str = "") -> Any:
    return overload(FUSED.format(kind, way))


def outcomes(call: Call, got: list[torch.Tensor]) -> list[str]:
    scores, why = judged(call, got)
    assert why is None
    return [one.outcome for one in scores]


def wide(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("heads", "biased"), [(4, False), (2, False), (4, True)])
def test_fused_attention_and_its_gradients_are_those_of_attention(heads: int, biased: bool) -> None:
    torch.manual_seed(0)
    query, key, value = wide(2, 4, 5, 8), wide(2, heads, 7, 8), wide(2, heads, 7, 6)
    bias = wide(2, 4, 5, 7) if biased else None
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=heads < 4)
    grad = torch.randn_like(out)
    true = torch.autograd.grad(out, [one for one in (query, key, value, bias) if one is not None], grad)
    given = [one.detach() for one in (query, key, value)]
    held = None if bias is None else bias.detach()

    if biased:
        found = op("efficient")(*given, held, True)
        backward = op("efficient", "_backward")(grad, *given, held, *found, 0.0, [True, True, True, True])
    else:
        found = op("flash")(*given)
        backward = op("flash", "_backward")(grad, *given, *found[:6], 0.0, False, found[6], found[7])

    torch.testing.assert_close(found[0], out.detach())
    torch.testing.assert_close(list(backward), list(true))


@pytest.mark.parametrize("lengths", [(5, 7), (5, 5), (7, 5)])
@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
def test_each_fused_attention_has_its_own_causal_mask_of_unlike_lengths(kind: str, lengths: tuple[int, int]) -> None:
    """torch/nn/attention/bias.py calls flash attention for its lower right mask ("for this particular op it means lower right"), and
    ``scaled_dot_product_attention(is_causal=True)``, the upper left one, for the other; PyTorch's CUDA sources give efficient attention
    ``CausalFromTopLeft`` and cuDNN ``set_causal_mask``."""
    torch.manual_seed(0)
    queries, keys = lengths
    given = [torch.randn(2, 3, length, 8, dtype=torch.float64, requires_grad=True) for length in (queries, keys, keys)]
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries if kind == "flash" else 0)
    out = F.scaled_dot_product_attention(*given, attn_mask=seen)
    grad = torch.randn_like(out)
    true = torch.autograd.grad(out, given, grad)
    query, key, value = (one.detach() for one in given)

    if kind == "flash":
        found = op(kind)(query, key, value, 0.0, True)
        backward = op(kind, "_backward")(grad, query, key, value, *found[:6], 0.0, True, found[6], found[7])
    elif kind == "efficient":
        found = op(kind)(query, key, value, None, True, 0.0, True)
        backward = op(kind, "_backward")(grad, query, key, value, None, *found, 0.0, [True] * 3 + [False], True)[:3]
    else:
        found = op(kind)(query, key, value, None, True, 0.0, True)
        kept = (found[6], found[7], torch.zeros(queries, keys), found[2], found[3], queries, keys)
        backward = op(kind, "_backward")(grad, query, key, value, *found[:2], *kept, 0.0, True)

    torch.testing.assert_close(found[0], out.detach())
    torch.testing.assert_close(list(backward), list(true))


def test_a_query_before_the_first_key_of_flash_attention_is_zero() -> None:
    """As FlashAttention's README has it (2.1); its kernels set such a row's log-sum-exp to infinity (softmax.h)."""
    query, key, value = (torch.randn(1, 1, length, 4) for length in (4, 2, 2))

    out, lse, *rest = op("flash")(query, key, value, 0.0, True)
    of_query, of_key, _ = op("flash", "_backward")(torch.ones_like(out), query, key, value, out, lse, *rest[:4], 0.0, True, *rest[4:6])

    assert out[0, 0, :2].eq(0).all() and of_query[0, 0, :2].eq(0).all() and of_key.isfinite().all()
    assert lse.isinf().tolist() == [[[True, True, False, False]]] and lse[0, 0, 0] > 0
    torch.testing.assert_close(out[0, 0, 2], value[0, 0, 0])


def test_a_row_that_sees_no_key_is_zero_and_has_no_gradient() -> None:
    query, key, value = (torch.randn(1, 1, 2, 4) for _ in range(3))
    bias = torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]]).view(1, 1, 2, 2)

    out, *kept = op("efficient")(query, key, value, bias, True)
    of_query = op("efficient", "_backward")(torch.ones_like(out), query, key, value, bias, out, *kept, 0.0, [True] * 3 + [False])[0]

    assert out[0, 0, 1].eq(0).all() and of_query[0, 0, 1].eq(0).all() and out[0, 0, 0].ne(0).all()


def test_what_a_device_keeps_for_itself_may_have_any_form_and_gradients_may_not() -> None:
    torch.manual_seed(0)
    query, key, value, grad = (torch.randn(2, 3, 5, 8) for _ in range(4))
    call = Call.of(op("efficient"), (query, key, value, None, True, 0.0, False))
    out, lse, *_ = call.run()
    padded = F.pad(lse, (0, 27))  # as CUDA's kernel keeps it, with the state of its generator
    state = torch.tensor(7)

    assert set(outcomes(call, [out, padded, state, state])) <= {"ok", "legal"}
    assert outcomes(call, [out * 1.01, padded, state, state])[0] == "wrong"
    backward = Call.of(op("efficient", "_backward"), (grad, query, key, value, None, out, padded, state, state, 0.0, [True] * 3 + [False]))
    right = backward.run()
    assert outcomes(backward, right) == ["ok", "ok", "ok"]
    assert outcomes(backward, [right[0], right[1][..., :-1], right[2]]) == ["ok", "wrong", "ok"]


def test_batch_norm_of_cudnn_is_judged_with_its_running_statistics() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(4, 3, 5), torch.rand(3), torch.rand(3)
    call = Call.of(overload("aten::cudnn_batch_norm"), (x, weight, bias, torch.zeros(3), torch.ones(3), True, 0.1, 1e-5))
    out, mean, invstd, _, running_mean, running_var = call.run()
    reserve = torch.zeros(9, dtype=torch.uint8)

    assert set(outcomes(call, [out, mean, invstd, reserve, running_mean, running_var])) <= {"ok", "legal"}
    assert outcomes(call, [out, mean, invstd, reserve, running_mean, torch.ones(3)])[-1] == "wrong"
    grad = torch.randn_like(x)
    true = torch.ops.aten.native_batch_norm_backward(grad, x, weight, None, None, mean, invstd, True, 1e-5, [True] * 3)
    backward = Call.of(
        overload("aten::cudnn_batch_norm_backward"), (x, grad, weight, torch.zeros(3), torch.ones(3), mean, invstd, 1e-5, reserve)
    )
    assert outcomes(backward, list(true)) == ["ok", "ok", "ok"]


@pytest.mark.parametrize("weighted", [True, False])
def test_the_gradient_of_fused_rms_norm_is_that_of_rms_norm(weighted: bool) -> None:
    torch.manual_seed(0)
    x, weight = wide(3, 4, 6), wide(4, 6)
    out = F.rms_norm(x, (4, 6), weight if weighted else None, 1e-3)
    grad = torch.randn_like(out)
    true = torch.autograd.grad(out, (x, weight) if weighted else (x,), grad)
    rstd = (x.detach().square().mean((1, 2), keepdim=True) + 1e-3).rsqrt()

    held = weight.detach() if weighted else None
    found = overload("aten::_fused_rms_norm_backward")(grad, x.detach(), [4, 6], rstd, held, [True, weighted])

    torch.testing.assert_close([one for one in found if one is not None], list(true))


def test_an_op_that_no_formula_gives_is_left_unjudged_and_ends_nothing() -> None:
    query = torch.randn(1, 1, 2, 4)
    backward = Call.of(op("flash", "_backward"), (query, query, query, query, query, query, None, None, 2, 2, 0.5, False, query, query))

    assert judged(backward, [query, query, query]) == ([], "no-reference")
