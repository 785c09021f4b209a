"""The counter itself, against arithmetic done by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

import fake_trace  # noqa: E402
from torch.nn import functional  # noqa: E402


def counted(function, *shapes):
    with fake_trace.FakeTensorMode(), torch.no_grad():
        count = fake_trace.counted(function, *(torch.zeros(shape) for shape in shapes))
    assert not count.unpriced
    return count


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (torch.mm, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (torch.addmm, [(7,), (3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (torch.bmm, [(4, 3, 5), (4, 5, 7)], 2 * 4 * 3 * 5 * 7),
        (torch.baddbmm, [(4, 3, 7), (4, 3, 5), (4, 5, 7)], 2 * 4 * 3 * 5 * 7),
        (torch.matmul, [(2, 4, 3, 5), (5, 7)], 2 * 2 * 4 * 3 * 5 * 7),
        (torch.mv, [(3, 5), (5,)], 2 * 3 * 5),
        (functional.linear, [(2, 3, 5), (7, 5), (7,)], 2 * 2 * 3 * 5 * 7),
        (lambda a, b: torch.einsum("bclhn,bcshn->bclsh", a, b), [(2, 3, 4, 5, 6), (2, 3, 4, 5, 6)], 2 * 2 * 3 * 4 * 4 * 5 * 6),
        (lambda x, w: functional.conv1d(x, w, padding=3, groups=8), [(1, 8, 10), (8, 1, 4)], 2 * 13 * 8 * 4),
        (lambda x, w: functional.conv2d(x, w, stride=4), [(1, 3, 8, 12), (16, 3, 4, 4)], 2 * (2 * 3) * 16 * 3 * 4 * 4),
        (functional.scaled_dot_product_attention, [(1, 4, 6, 8), (1, 4, 9, 8), (1, 4, 9, 8)], 2 * 4 * 6 * 9 * (8 + 8)),
        (
            lambda a, b: torch.linalg.solve_triangular(a, b, upper=False, unitriangular=True),
            [(3, 6, 6), (3, 6, 5)],
            3 * 6 * 6 * 5,
        ),
    ],
)
def test_formula(function, shapes, flops):
    assert flops == counted(function, *shapes).flops


def test_elementwise_work_is_free_and_seen():
    count = counted(lambda x: functional.softmax(functional.gelu(x) * 2 + 1, -1).sum(), (4, 8))

    assert count.flops == 0
    assert {"gelu", "mul", "add", "_softmax", "sum"} <= set(count.seen)


def test_op_without_formula_is_named_and_never_zero_in_silence():
    with fake_trace.FakeTensorMode(), torch.no_grad():
        count = fake_trace.counted(torch.linalg.cholesky, torch.zeros(4, 4))

    assert "aten.linalg_cholesky_ex" in count.unpriced


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_llama3_8b_at_4096_tokens(attention):
    config = transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"], hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
    )
    linear = 32 * (4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 128256
    square = 32 * 2 * 2 * 4096 * 4096 * 4096

    found = fake_trace.count(config, {"input_ids": (1, 4096)}, attention=attention)

    # The rotary table is one more product, [64, 1] x [1, 4096].
    assert pytest.approx(2 * 4096 * linear + square, rel=1e-6) == found.flops
    assert found.params == fake_trace.count_params(config) == 8_030_261_248
    assert not found.unpriced


def test_batched_experts_count_topk_per_token():
    config = transformers.MixtralConfig(
        architectures=["MixtralForCausalLM"], hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=64, num_local_experts=6, num_experts_per_tok=2,
    )

    found = fake_trace.count(config, {"input_ids": (1, 16)})

    experts = sum(flops for (name, shapes), flops in found.shapes.items() if name == "aten.bmm" and shapes[0].startswith("fp32[32,"))
    assert experts == 2 * 16 * 2 * 3 * 32 * 48
