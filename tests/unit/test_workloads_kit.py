"""The kit: FLOPs, bytes, params and kept activations of single ops against the papers and against counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.workloads.kit import Kit, causal_pairs
from sapper.workloads.op import Op

SEQ, HIDDEN, HEADS = 2048, 4096, 32


def gpt_layer(kit: Kit, *, dropout: float = 0.1) -> tuple[Op, ...]:
    size = HIDDEN // HEADS
    return (
        kit.norm("ln_1", HIDDEN, style="layer"),
        kit.linear("qkv", 3 * HIDDEN, HIDDEN, bias=True),
        *kit.attention("attn", heads=HEADS, kv_heads=HEADS, qk_dim=size, v_dim=size, dropout=dropout),
        kit.linear("out", HIDDEN, HIDDEN, bias=True, shard="row"),
        kit.residual("attn.add", HIDDEN, dropout=dropout),
        kit.norm("ln_2", HIDDEN, style="layer"),
        *kit.mlp("mlp", HIDDEN, 4 * HIDDEN, gated=False, bias=True),
        kit.residual("mlp.add", HIDDEN, dropout=dropout),
    )


def kept(ops: tuple[Op, ...]) -> float:
    return sum(op.saved_bytes for op in ops)


def test_an_unfused_gpt_layer_keeps_what_the_paper_says() -> None:
    """arXiv:2205.05198, equation 1: sbh(34 + 5as/h) bytes."""
    ops = gpt_layer(Kit.of(SEQ, attention_impl="unfused"))

    assert kept(ops) == SEQ * HIDDEN * (34 + 5 * HEADS * SEQ / HIDDEN)


def test_selective_recomputation_of_the_core_leaves_34_sbh() -> None:
    """arXiv:2205.05198, section 5: only the core's own activations go."""
    for impl in ("flash", "unfused"):
        ops = gpt_layer(Kit.of(SEQ, attention_impl=impl))

        assert sum(op.saved_bytes for op in ops if not op.core) == 34 * SEQ * HIDDEN


def test_a_flash_layer_keeps_its_log_sum_exp_instead_of_the_scores() -> None:
    assert kept(gpt_layer(Kit.of(SEQ))) == 34 * SEQ * HIDDEN + 4 * HEADS * SEQ


def test_tensor_parallelism_cuts_24_of_the_34() -> None:
    """arXiv:2205.05198, equation 2: sbh(10 + 24/t), the 10 being inputs of norms and linear layers and dropout masks."""
    ops = gpt_layer(Kit.of(SEQ))
    whole = sum(op.saved_bytes for op in ops if op.saved_shard == "sequence")

    assert whole == 10 * SEQ * HIDDEN


def test_without_dropout_no_mask_is_kept() -> None:
    ops = gpt_layer(Kit.of(SEQ, attention_impl="unfused"), dropout=0.0)

    assert kept(ops) == SEQ * HIDDEN * (32 + 2 * HEADS * SEQ / HIDDEN)


def test_nothing_is_kept_outside_of_training() -> None:
    for purpose in ("prefill", "decode"):
        assert kept(gpt_layer(Kit.of(SEQ, purpose=purpose, attention_impl="unfused"))) == 0


def test_a_gpt_layer_has_the_flops_of_the_paper() -> None:
    """arXiv:2104.04473, appendix: 24Bsh^2 + 4Bs^2h forward for a layer; a causal kernel does half of the second term."""
    ops = [op for op in gpt_layer(Kit.of(SEQ)) if op.kind in ("matmul", "attention")]
    matmul, scores = 24 * SEQ * HIDDEN**2, 4 * SEQ**2 * HIDDEN

    assert sum(op.full_flops for op in ops) == matmul + scores
    assert sum(op.flops for op in ops) == pytest.approx(matmul + scores / 2 * (1 + 1 / SEQ), rel=1e-12)


@given(past=st.integers(0, 30), new=st.integers(1, 30), window=st.none() | st.integers(1, 40), chunked=st.booleans())
def test_causal_pairs_are_those_of_a_mask(past: int, new: int, window: int | None, chunked: bool) -> None:
    def sees(query: int, key: int) -> bool:
        if key > query:
            return False
        if window is None:
            return True
        return key // window == query // window if chunked else query - key < window

    counted = sum(sees(query, key) for query in range(past, past + new) for key in range(past + new))

    assert causal_pairs(new, past + new, window=window, chunked=chunked) == counted


@given(length=st.integers(1, 40), window=st.integers(1, 60))
def test_a_two_sided_window_sees_half_on_each_side(length: int, window: int) -> None:
    kit = Kit.of(length)
    _, core = kit.attention("a", heads=1, kv_heads=1, qk_dim=4, v_dim=4, causal=False, window=window)
    seen = sum(abs(i - j) <= window // 2 for i in range(length) for j in range(length)) if window < length else length**2

    assert core.flops == pytest.approx(2 * 8 * seen)


def test_unfused_attention_executes_the_full_square_and_moves_the_scores() -> None:
    def core(impl: str) -> Op:
        return Kit.of(1024, attention_impl=impl).attention("a", heads=8, kv_heads=2, qk_dim=64, v_dim=64)[1]  # type: ignore[arg-type]

    scores_bytes = 8 * 1024**2 * 2
    extra = core("unfused").forward_bytes - core("flash").forward_bytes

    assert core("unfused").flops == core("flash").full_flops == 4 * 8 * 64 * 1024**2
    assert extra == 4 * scores_bytes - 4 * 8 * 1024  # written, read, written, read; flash writes the log-sum-exp


def test_grouped_heads_share_keys_and_values() -> None:
    many = Kit.of(SEQ).attention("a", heads=32, kv_heads=32, qk_dim=128, v_dim=128)[1]
    few = Kit.of(SEQ).attention("a", heads=32, kv_heads=8, qk_dim=128, v_dim=128)[1]

    assert many.flops == few.flops
    assert many.input_bytes - few.input_bytes == SEQ * 24 * 256 * 2


def test_decode_reads_the_whole_cache_and_a_window_of_it() -> None:
    kit = Kit.of(8192, purpose="decode")
    _, full = kit.attention("a", heads=32, kv_heads=8, qk_dim=128, v_dim=128)
    _, windowed = kit.attention("a", heads=32, kv_heads=8, qk_dim=128, v_dim=128, window=1024)

    assert full.flops == 4 * 32 * 128 * 8192
    assert full.input_bytes == (32 * 128 + 8192 * 8 * 256) * 2
    assert windowed.flops == 4 * 32 * 128 * 1024
    assert windowed.input_bytes == (32 * 128 + 1024 * 8 * 256) * 2


def test_experts_count_the_rows_that_are_routed_and_own_all_weights() -> None:
    ops = {op.name: op for op in Kit.of(4096).experts("moe", 2048, 768, experts=128, topk=8)}
    up, router, dispatch = ops["moe.experts.gate_up_proj"], ops["moe.router"], ops["moe.dispatch"]

    assert up.flops == 2 * 4096 * 8 * 2048 * 1536
    assert up.params == 128 * 2048 * 1536
    assert (up.groups, up.m, up.n, up.k) == (128, 256, 1536, 2048)
    assert up.expert and not up.trainable_lora and not router.expert
    assert router.flops == 2 * 4096 * 2048 * 128
    assert router.saved_bytes == 4096 * (2048 * 2 + 128 * 4 + 8 * 12)
    assert up.saved_bytes == 4096 * 8 * 2048 * 2
    assert dispatch.output_bytes == 8 * dispatch.input_bytes == 8 * 4096 * 2048 * 2


def test_a_single_token_reaches_only_its_experts() -> None:
    up = Kit.of(4096, purpose="decode").expert_linear("up", 1536, 2048, experts=128, topk=8)

    assert (up.groups, up.m) == (8, 1)
    assert up.weight_bytes == 8 * 1536 * 2048 * 2
    assert up.params == 128 * 1536 * 2048


def test_a_tied_head_owns_its_bias_alone() -> None:
    kit = Kit.of(16)

    assert kit.lm_head(1000, 64).params == 64_000
    assert kit.lm_head(1000, 64, tied=True).params == 0
    assert kit.lm_head(1000, 64, tied=True, bias=True).params == 1000
    assert kit.lm_head(1000, 64, tied=True).flops == 2 * 16 * 1000 * 64


def test_the_loss_keeps_fp32_logits() -> None:
    """arXiv:2205.05198, section 4.3."""
    (loss,) = Kit.of(16).loss(1000)

    assert loss.saved_bytes == 4 * 16 * 1000
    assert Kit.of(16, purpose="prefill").loss(1000) == ()


def test_row_cut_layers_end_a_tensor_parallel_region() -> None:
    kit = Kit.of(16)

    assert kit.linear("down", 8, 8, shard="row").reduces
    assert not kit.linear("up", 8, 8).reduces
    assert not kit.linear("down", 8, 8, shard="row", reduces=False).reduces


def test_the_width_of_a_dtype_scales_the_bytes() -> None:
    half, whole = (Kit.of(16, dtype=dtype).linear("a", 8, 4) for dtype in ("bf16", "fp32"))

    assert whole.forward_bytes == 2 * half.forward_bytes
    assert whole.flops == half.flops
