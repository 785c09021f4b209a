"""Bundled models: published parameter counts, layer patterns, and what a sequence costs."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from sapper import workloads
from sapper.errors import BadValue
from sapper.workloads import Model, load

PUBLISHED = {
    # Totals that the checkpoints state (safetensors metadata, model cards, papers).
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192, "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-7b": 7_615_616_512, "qwen2.5-72b": 72_706_203_648, "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624, "qwen3-235b-a22b": 235_093_634_560, "qwen-7b": 7_721_324_544, "qwen-14b": 14_167_290_880,
    "qwen1.5-moe-a2.7b": 14_315_784_192, "mistral-7b": 7_241_732_096, "mixtral-8x7b": 46_702_792_704, "mixtral-8x22b": 140_620_634_112,
    "deepseek-v2-lite": 15_706_484_224, "deepseek-v2": 235_741_434_880, "deepseek-moe-16b": 16_375_728_128,
    "deepseek-v3": 671_026_419_200 - 58 * 256,  # the checkpoint holds the router's correction, a buffer that nobody trains
    "gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952, "phi-2": 2_779_683_840, "phi-3-mini": 3_821_079_552, "phi-4": 14_659_507_200, "phi-3.5-moe": 41_873_153_344,
    "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "gpt-j-6b": 6_050_882_784, "gpt-neox-20b": 20_554_567_680, "opt-1.3b": 1_315_758_080,
    "opt-13b": 12_853_473_280, "bloom-7b1": 7_069_016_064, "bloom-176b": 176_247_271_424, "falcon-7b": 6_921_720_704,
    "falcon-40b": 41_303_293_952, "mpt-7b": 6_649_286_656, "starcoder-15b": 15_517_456_384, "chatglm3-6b": 6_243_584_000,
    "glm-4-9b": 9_399_951_360, "baichuan2-7b": 7_505_973_248, "baichuan2-13b": 13_896_668_160, "internlm2-7b": 7_737_708_544,
    "internlm2-20b": 19_861_149_696, "minicpm-2b": 2_724_880_896, "gpt-oss-120b": 116_829_156_672, "gpt-oss-20b": 20_914_757_184,
}


@pytest.mark.parametrize(("name", "params"), PUBLISHED.items(), ids=PUBLISHED)
def test_a_bundled_model_has_its_published_parameters(name: str, params: int) -> None:
    assert load(name).params == params


ACTIVE_B = {
    "mixtral-8x7b": 12.9,
    "deepseek-v3": 37,
    "qwen3-30b-a3b": 3.3,
    "qwen3-235b-a22b": 22,
    "deepseek-v2": 21,
    "kimi-k2": 32,
    "qwen1.5-moe-a2.7b": 2.7,
}


@pytest.mark.parametrize(("name", "billions"), ACTIVE_B.items(), ids=ACTIVE_B)
def test_a_mixture_activates_what_its_paper_says(name: str, billions: float) -> None:
    assert load(name).active_params / 1e9 == pytest.approx(billions, rel=0.03)


def test_a_dense_model_activates_all_of_itself() -> None:
    model = load("qwen2.5-7b")

    assert model.active_params == model.params


PATTERNS = {
    "mistral-7b": {"sliding": 32}, "gemma-2-9b": {"sliding": 21, "full": 21}, "gemma-3-1b": {"sliding": 22, "full": 4},
    "gpt-oss-20b": {"sliding+moe": 12, "full+moe": 12}, "deepseek-v3": {"mla": 3, "mla+moe": 58},
    "llama-4-maverick": {"chunked": 24, "chunked+moe": 12, "full-nope+moe": 12}, "smollm3-3b": {"full": 27, "full-nope": 9},
    "gpt-neo-2.7b": {"full": 16, "sliding": 16}, "qwen2.5-7b": {"full": 28},
}


@pytest.mark.parametrize(("name", "pattern"), PATTERNS.items(), ids=PATTERNS)
def test_layers_by_type(name: str, pattern: dict[str, int]) -> None:
    assert load(name).layer_counts == pattern


def test_blocks_are_runs_of_like_layers_in_order() -> None:
    blocks = [block for block in load("gemma-3-1b").workload(4096).blocks if block.role == "layer"]

    assert [(block.name, block.count) for block in blocks[:4]] == [("layers.0-4", 5), ("layers.5", 1), ("layers.6-10", 5), ("layers.11", 1)]
    assert sum(block.count for block in blocks) == 26
    assert blocks[0].ops is blocks[2].ops


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(workloads.bundled()))
def test_every_bundled_model_makes_a_consistent_workload(name: str) -> None:
    model = load(name)
    workload = model.workload(model.fixed_seq_len or 1024)
    layers = [block for block in workload.blocks if block.role == "layer"]

    ends = 2 if model.family == "t5" else 0  # the last norms of encoder and decoder are blocks of their own
    assert sum(block.count for block in layers) == len(model.layer_types) + ends
    assert workload.params == model.params >= model.active_params > 0
    assert 0 < workload.flops() <= workload.flops(convention="full")
    for block in workload.blocks:
        names = [op.name for op in block.ops]
        assert len(names) == len(set(names)), block.name
        assert block.hidden_size > 0
        for op in block.ops:
            assert min(op.flops, op.input_bytes, op.weight_bytes, op.output_bytes, op.saved_bytes, op.params) >= 0
            assert op.flops <= op.full_flops
            if op.kind in ("matmul", "router") and not op.expert:
                assert op.flops == 2 * op.m * op.n * op.k * op.groups, op.name


def test_flops_per_token_are_twice_the_active_weights_and_the_scores() -> None:
    """arXiv:2001.08361, equation 2.2, with the head counted and the embedding's look-up not."""
    model = load("llama-3-8b")
    tokens = 8192
    weights = model.params - model.vocab * model.hidden - 65 * model.hidden  # look-up and norms
    scores = 32 * 4 * tokens * model.heads * model.head_dim

    assert model.workload(tokens).flops(convention="full") == tokens * (2 * weights + scores)


def test_a_sliding_window_saves_flops_and_the_full_convention_ignores_it() -> None:
    windowed, full = load("mistral-7b"), load("mistral-7b-v0.3")

    assert windowed.workload(32768).flops() < full.workload(32768).flops()
    assert windowed.workload(4096).flops() == pytest.approx(full.workload(4096).flops(), rel=2e-3)


def test_prefill_computes_one_row_of_logits_and_decode_one_token() -> None:
    model = load("llama-3-8b")
    head = {purpose: model.workload(2048, purpose=purpose).blocks[-1].ops[1] for purpose in ("train", "prefill", "decode")}  # type: ignore[arg-type]

    assert (head["train"].m, head["prefill"].m, head["decode"].m) == (2048, 1, 1)
    assert model.workload(2048, purpose="decode").tokens_per_sequence == 1


def test_latent_attention_decodes_from_the_latent_cache() -> None:
    """arXiv:2405.04434, section 2.1: 512 + 64 values a token and layer are cached, whatever the heads."""
    model = load("deepseek-v2-lite")
    core = next(op for op in model.workload(8192, purpose="decode").blocks[1].ops if op.kind == "attention")
    query_bytes = 16 * (512 + 64) * 2

    assert core.input_bytes - query_bytes == 8192 * (512 + 64) * 2


def test_unfused_attention_keeps_more_and_names_the_same_ops() -> None:
    model = load("gpt3-175b")
    flash, unfused = (model.workload(2048, attention_impl=impl) for impl in ("flash", "unfused"))  # type: ignore[arg-type]
    layers = [next(block for block in workload.blocks if block.role == "layer") for workload in (flash, unfused)]
    kept = [sum(op.saved_bytes for op in layer.ops) for layer in layers]

    assert [op.name for op in layers[0].ops] == [op.name for op in layers[1].ops]
    assert kept[1] == 2048 * 12288 * (34 + 5 * 96 * 2048 / 12288)
    assert kept[0] < kept[1]


def test_lora_adapts_attention_and_dense_layers_and_nothing_else() -> None:
    names = {op.name for block in load("qwen1.5-moe-a2.7b").workload(64).blocks for op in block.ops if op.trainable_lora}

    assert {"attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj"} <= names
    assert not any("expert" in name or "router" in name or "lm_head" in name for name in names)


@pytest.mark.parametrize("bad", [0, -1, 2**40, True, 1.5, "4096"])
def test_a_sequence_length_that_cannot_be(bad: object) -> None:
    with pytest.raises(BadValue):
        load("gpt2").workload(bad)  # type: ignore[arg-type]


def test_other_choices_that_cannot_be() -> None:
    model = load("gpt2")
    for choice in ({"purpose": "dream"}, {"dtype": "fp13"}, {"attention_impl": "magic"}):
        with pytest.raises(BadValue):
            model.workload(16, **choice)  # type: ignore[arg-type]
    with pytest.raises(BadValue):
        model.workload()


def test_a_model_travels_to_another_process() -> None:
    model = load("gemma-2-9b")
    again: Model = pickle.loads(pickle.dumps(dataclasses.replace(model)))

    assert again.workload(128).params == model.params
