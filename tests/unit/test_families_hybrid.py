"""State-space models and hybrids: published counts, layers priced by type, scans by formula, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sapper import workloads
from sapper.errors import BadFile
from sapper.workloads import scans
from sapper.workloads.op import Op, Workload


def ops(workload: Workload, kind: str) -> list[tuple[int, Op]]:
    return [(block.count, op) for block in workload.blocks for op in block.ops if op.kind == kind]


def read(raw: dict[str, Any]) -> workloads.Model:
    return workloads.from_config(raw, name="small", where="config.json")


@pytest.mark.parametrize(
    ("name", "params", "active"),
    [
        # Billions as the publishers round them.
        ("mamba-130m", 129_135_360, None), ("mamba-2.8b", 2_768_345_600, None), ("falcon-mamba-7b", 7.27e9, None),
        ("mamba2-2.7b", 2.70e9, None),
        ("jamba-v0.1", 52e9, 12e9), ("bamba-9b", 9.78e9, None), ("falcon-h1-7b", 7.59e9, None), ("falcon-h1-34b", 33.6e9, None),
        ("granite-4.0-h-tiny", 7e9, None), ("granite-4.0-h-small", 32e9, 9e9), ("zamba2-2.7b", 2.7e9, None), ("zamba2-7b", 7.4e9, None),
        ("nemotron-h-8b", 8.1e9, None), ("nemotron-3-nano-30b-a3b", 31.6e9, 3.6e9), ("recurrentgemma-2b", 2.7e9, None),
        ("qwen3-next-80b-a3b", 80e9, 3.9e9), ("minimax-text-01", 456e9, 45.9e9), ("olmo-hybrid-7b", 7.4e9, None),
        ("lfm2-1.2b", 1.17e9, None),
        ("lfm2-8b-a1b", 8.3e9, 1.5e9), ("kimi-linear-48b-a3b", 49e9, None),
    ],
)
def test_published_size(name, params, active):
    model = workloads.load(name)

    assert model.params == pytest.approx(params, rel=0.02)
    if active is not None:
        assert model.active_params == pytest.approx(active, rel=0.06)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("jamba-v0.1", {"linear_attention+dense": 12, "linear_attention+moe": 16, "full_attention+dense": 4}),
        ("bamba-9b", {"linear_attention": 29, "full_attention": 3}),
        ("falcon-h1-7b", {"hybrid": 44}),
        ("granite-4.0-h-small", {"linear_attention": 36, "full_attention": 4}),
        ("nemotron-h-8b", {"linear_attention": 24, "mlp": 24, "full_attention": 4}),
        ("zamba2-2.7b", {"linear_attention": 45, "hybrid": 9}),
        ("recurrentgemma-2b", {"linear_attention": 18, "sliding_attention": 8}),
        ("qwen3-next-80b-a3b", {"linear_attention+moe": 36, "full_attention+moe": 12}),
        ("minimax-text-01", {"linear_attention": 70, "full_attention": 10}),
        ("lfm2-8b-a1b", {"conv+dense": 2, "full_attention+moe": 6, "conv+moe": 16}),
        ("kimi-linear-48b-a3b", {"linear_attention+dense": 1, "linear_attention+moe": 19, "full_attention+moe": 7}),
    ],
)
def test_layers_by_type(name, counts):
    assert counts == workloads.load(name).layer_counts


@pytest.mark.parametrize("name", ["mamba2-2.7b", "qwen3-next-80b-a3b", "recurrentgemma-2b"])
def test_scans_grow_with_length_and_attention_with_its_square(name):
    model = workloads.load(name)
    short, long = (model.workload(length) for length in (4096, 8192))

    for (_, a), (_, b) in zip(ops(short, "scan"), ops(long, "scan"), strict=True):
        assert b.flops == pytest.approx(2 * a.flops)
    for (_, a), (_, b) in zip(ops(short, "attention"), ops(long, "attention"), strict=True):
        assert b.full_flops == 4 * a.full_flops


def test_local_attention_sees_its_window():
    core = ops(workloads.load("recurrentgemma-2b").workload(8192), "attention")[0][1]

    assert core.attention is not None
    assert core.attention.window == 2048
    assert core.flops / core.full_flops == pytest.approx((2048 * 2049 / 2 + (8192 - 2048) * 2048) / 8192**2)


def test_selective_scan_by_hand():
    model = read({"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 10, "state_size": 4, "time_step_rank": 3})
    [(_, scan)] = ops(model.workload(5), "scan")

    assert scan.flops == 7 * 5 * 16 * 4 + 3 * 5 * 16
    assert scan.params == 16 * 4 + 16


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(4, 2 * 16 * (6 + 4 * 8) + 4 * 8 * 6 * (4 * 4 + 2)), (6, 2 * (16 + 4) * (6 + 4 * 8) + 4 * 8 * 6 * (4 * 6 + 2 * 2))],
)
def test_state_space_duality_by_hand(tokens, expected):
    assert expected == scans.ssd_flops(tokens, heads=4, head_dim=8, groups=1, state=6, chunk=4)


def test_delta_rule_by_hand():
    chunk = 3 * (64 * 64 * (5 * 8 + 3 * 16) + 6 * 64 * 8 * 16)

    assert 2 * chunk == scans.delta_rule_flops(128, heads=3, key_dim=8, value_dim=16)


def test_lightning_attention_halves_only_inside_a_block():
    causal, full = (scans.lightning_flops(512, heads=2, head_dim=16, block=256, causal=c) for c in (True, False))
    across = 4 * 512 * 16 * 16 * 2

    assert full == 2 * 2 * 4 * 256 * 256 * 16 + across
    assert (causal - across) / (full - across) == pytest.approx(257 / 512)


@pytest.mark.parametrize(
    "name",
    ["mamba-130m", "mamba2-2.7b", "jamba-v0.1", "qwen3-next-80b-a3b", "minimax-text-01", "recurrentgemma-2b", "kimi-linear-48b-a3b"],
)
def test_decode_does_not_depend_on_the_context_but_for_attention(name):
    model = workloads.load(name)
    near, far = (model.workload(length, purpose="decode") for length in (1024, 65536))

    assert near.params == model.params
    for kind in ("scan", "matmul", "conv", "router"):
        assert ops(near, kind) == ops(far, kind)
    assert all(op.output_bytes > 0 and op.input_bytes > 0 for _, op in ops(near, "scan"))


def test_shared_blocks_of_zamba_are_owned_once():
    raw = {
        "model_type": "zamba2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 5, "n_mamba_heads": 2, "vocab_size": 20,
        "num_mem_blocks": 1, "adapter_rank": 2, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
    }
    one, two, many = read(raw), read(raw | {"num_mem_blocks": 2}), read(raw | {"num_mem_blocks": 3})

    assert one.params < two.params < many.params
    assert two.params - one.params == many.params - two.params
    assert one.workload(8).flops() == many.workload(8).flops()


def test_layer_names_before_and_after_transformers_5():
    raw = {
        "model_type": "granitemoehybrid", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mamba_n_heads": 4,
        "vocab_size": 20,
    }
    old, new = (read(raw | {"layer_types": kinds}) for kinds in (["mamba", "attention"], ["linear_attention", "full_attention"]))

    assert old.layer_types == new.layer_types
    assert old.params == new.params


def test_a_width_that_is_given_stands_beside_expand():
    raw = {"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 10, "state_size": 4, "time_step_rank": 3}

    assert read(raw | {"expand": 16, "intermediate_size": 24}).params == read(raw | {"expand": 3}).params


def test_nemotron_pattern_letters():
    raw = {
        "model_type": "nemotron_h", "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20,
        "mamba_num_heads": 8,
    }

    assert read(raw | {"hybrid_override_pattern": "M*-E"}).layer_types == ("linear_attention", "full_attention", "mlp", "moe")
    with pytest.raises(BadFile) as error:
        read(raw | {"hybrid_override_pattern": "M*Z"})
    assert "M*Z" in str(error.value)


def test_the_paper_of_a_recurrence_is_told():
    assert any("arXiv:2412.06464" in note for note in workloads.load("qwen3-next-80b-a3b").notes)
    assert not any("scan" in note for note in workloads.load("lfm2-1.2b").notes)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"model_type": "mamba3"}, "mamba3"),
        ({"model_type": "rwkv"}, "rwkv"),
        ({"model_type": "mamba", "architectures": ["MambaForSequenceClassification"]}, "MambaForSequenceClassification"),
        ({"model_type": "mamba2", "hidden_size": 100, "num_heads": 3, "head_dim": 64}, "num_heads"),
        ({"model_type": "mamba2", "num_heads": 128, "n_groups": 3}, "128 / 3"),
        ({"model_type": "mamba", "expand": -2}, "expand"),
        ({"model_type": "mamba", "time_step_rank": "car"}, "time_step_rank"),
        ({"model_type": "jamba", "attn_layer_period": 0}, "attn_layer_period"),
        ({"model_type": "bamba", "attn_layer_indices": "all"}, "attn_layer_indices"),
        ({"model_type": "bamba", "mamba_n_heads": 7}, "8192 / 7"),
        ({"model_type": "falcon_h1", "mamba_d_head": 5}, "mamba_d_head"),
        ({"model_type": "granitemoehybrid", "layer_types": ["mamba"]}, "32 layers"),
        ({"model_type": "granitemoehybrid", "num_hidden_layers": 1, "layer_types": ["rwkv"]}, "rwkv"),
        ({"model_type": "zamba2", "n_mamba_heads": 7}, "5120 / 7"),
        ({"model_type": "zamba2", "attention_head_dim": 80}, "attention_head_dim"),
        ({"model_type": "nemotron_h", "attention_head_dim": 64}, "attention_head_dim"),
        ({"model_type": "recurrent_gemma", "head_dim": 128}, "head_dim"),
        ({"model_type": "granitemoehybrid", "num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"model_type": "recurrent_gemma", "lru_width": 11}, "11 / 10"),
        ({"model_type": "recurrent_gemma", "block_types": []}, "block_types"),
        ({"model_type": "recurrent_gemma", "block_types": ["conv"]}, "conv"),
        ({"model_type": "qwen3_next", "linear_num_value_heads": 17}, "17 / 16"),
        ({"model_type": "qwen3_next", "full_attention_interval": 0}, "full_attention_interval"),
        ({"model_type": "minimax", "sliding_window": 128}, "sliding_window"),
        ({"model_type": "kimi_linear", "linear_attn_config": [1]}, "linear_attn_config"),
        ({"model_type": "kimi_linear", "linear_attn_config": {"decay": 1}}, "linear_attn_config.decay"),
        ({"model_type": "lfm2", "block_ffn_dim_multiplier": "1"}, "block_ffn_dim_multiplier"),
        ({"model_type": "olmo_hybrid", "linear_gate": True}, "linear_gate"),
    ],
)
def test_refused_by_name(raw, named):
    with pytest.raises(BadFile) as error:
        read(raw)

    assert named in str(error.value)
