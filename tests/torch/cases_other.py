"""Encoders, encoder-decoders, vision transformers, state-space models and hybrids."""

from __future__ import annotations

import random
from typing import Any

from cases import Case, body, experts, flag, heads, llama_like, pattern, ties


def bert(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3, 5])
    found = body(r) | ties(r) | {
        "hidden_size": 8 * count * r.choice([1, 3]), "num_attention_heads": count, "type_vocab_size": r.choice([1, 2, 3]),
    }
    return found | {"num_labels": r.choice([2, 3, 7])}


def distilbert(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3, 5])
    return ties(r) | {
        "dim": 8 * count * r.choice([1, 3]), "n_heads": count, "hidden_dim": r.randrange(30, 200), "n_layers": r.choice([1, 2, 3]),
        "vocab_size": r.randrange(90, 300), "max_position_embeddings": 256, "num_labels": r.choice([2, 3, 7]),
    }


def albert(r: random.Random) -> dict[str, Any]:
    layers = r.choice([2, 4])
    return bert(r) | {
        "embedding_size": r.choice([16, 24]), "num_hidden_layers": layers, "num_hidden_groups": r.choice([1, 2]),
        "inner_group_num": r.choice([1, 2]),
    }


def electra(r: random.Random) -> dict[str, Any]:
    found = bert(r)
    return found | {"embedding_size": r.choice([found["hidden_size"], 20])}


def t5(r: random.Random) -> dict[str, Any]:
    return ties(r) | {
        "d_model": r.randrange(20, 90), "d_kv": r.choice([8, 12, 16]), "d_ff": r.randrange(30, 200), "num_heads": r.choice([1, 2, 3, 5]),
        "num_layers": r.choice([1, 2, 3]), "num_decoder_layers": r.choice([None, 1, 4]), "vocab_size": r.randrange(90, 300),
        "relative_attention_num_buckets": r.choice([8, 32]), "feed_forward_proj": r.choice(["relu", "gated-gelu", "gated-silu"]),
    }


def vit(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3, 5])
    return {
        "hidden_size": 8 * count * r.choice([1, 3]), "num_attention_heads": count, "num_hidden_layers": r.choice([1, 2, 3]),
        "intermediate_size": r.randrange(30, 200), "image_size": r.choice([32, 40, 56]), "patch_size": 8, "num_channels": r.choice([1, 3]),
        "qkv_bias": flag(r), "num_labels": r.choice([2, 10, 1000]), "pooler_output_size": r.choice([None, 24]),
    }


def dinov2(r: random.Random) -> dict[str, Any]:
    found = vit(r) | {"mlp_ratio": r.choice([2, 4]), "use_swiglu_ffn": flag(r), "use_mask_token": flag(r)}
    return {key: value for key, value in found.items() if key not in ("intermediate_size", "pooler_output_size")}


def mamba(r: random.Random) -> dict[str, Any]:
    return ties(r) | {
        "hidden_size": r.randrange(20, 90), "state_size": r.choice([4, 16, 20]), "num_hidden_layers": r.choice([1, 2]),
        "vocab_size": r.randrange(90, 300), "expand": r.choice([1, 2, 3]), "conv_kernel": r.choice([2, 4]), "use_bias": flag(r),
        "use_conv_bias": flag(r), "time_step_rank": r.choice(["auto", 5]),
    } | r.choice([{}, {"intermediate_size": 50}])


def ssd(r: random.Random, width: int, **names: str) -> dict[str, Any]:
    """Heads, groups and state of a Mamba-2 mixer whose inner width is ``width``; ``names`` maps them to config fields."""
    count = r.choice([n for n in (2, 4, 8) if width % n == 0])
    values = {
        "heads": count, "head_dim": width // count, "groups": r.choice([n for n in (1, 2) if count % n == 0]),
        "state": r.choice([8, 16, 20]),
    }
    return {names[key]: value for key, value in values.items() if key in names}


BAMBA_NAMES = {"heads": "mamba_n_heads", "head_dim": "mamba_d_head", "groups": "mamba_n_groups", "state": "mamba_d_state"}


def mamba2(r: random.Random) -> dict[str, Any]:
    hidden, expand = 8 * r.randrange(4, 12), r.choice([1, 2])
    found = ssd(r, hidden * expand, heads="num_heads", head_dim="head_dim", groups="n_groups", state="state_size")
    return ties(r) | found | {
        "hidden_size": hidden, "expand": expand, "num_hidden_layers": r.choice([1, 2, 3]), "vocab_size": r.randrange(90, 300),
        "conv_kernel": r.choice([2, 4]), "use_bias": flag(r), "use_conv_bias": flag(r), "chunk_size": r.choice([16, 32]),
    }


def jamba(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False) | experts(r, "num_experts")
    return found | {
        "num_hidden_layers": 4, "attn_layer_period": r.choice([2, 3]), "attn_layer_offset": r.choice([0, 1]),
        "expert_layer_period": r.choice([1, 2]),
        "expert_layer_offset": 0, "mamba_d_state": r.choice([4, 16]), "mamba_d_conv": r.choice([2, 4]), "mamba_expand": r.choice([1, 2]),
        "mamba_dt_rank": r.choice(["auto", 5]), "mamba_conv_bias": flag(r), "mamba_proj_bias": flag(r),
    }


def bamba(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False)
    expand = r.choice([1, 2])
    return found | ssd(r, expand * found["hidden_size"], **BAMBA_NAMES) | {
        "mamba_expand": expand, "mamba_d_conv": r.choice([2, 4]), "mamba_conv_bias": flag(r), "mamba_proj_bias": flag(r),
        "mamba_chunk_size": r.choice([16, 32]), "attn_layer_indices": r.choice([None, [0], [0, 2]]), "attention_bias": flag(r),
        "mlp_bias": flag(r),
    }


def falcon_h1(r: random.Random) -> dict[str, Any]:
    found = llama_like(r)
    width = r.choice([None, 48])
    expand = r.choice([1, 2])
    return found | ssd(r, width or expand * found["hidden_size"], **BAMBA_NAMES) | {
        "mamba_d_ssm": width, "mamba_expand": expand, "mamba_d_conv": r.choice([2, 4]), "mamba_conv_bias": flag(r),
        "mamba_proj_bias": flag(r),
        "mamba_rms_norm": flag(r), "projectors_bias": flag(r), "attention_bias": flag(r), "mlp_bias": flag(r), "mamba_chunk_size": 16,
    }


def granite_hybrid(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False)
    expand = r.choice([1, 2])
    count = r.choice([0, 4, 5])
    return found | ssd(r, expand * found["hidden_size"], **BAMBA_NAMES) | {
        "layer_types": pattern(r, found["num_hidden_layers"], "mamba", "attention"), "num_local_experts": count,
        "num_experts_per_tok": r.choice([1, 2]) if count else 0, "shared_intermediate_size": r.randrange(20, 90), "mamba_expand": expand,
        "mamba_d_conv": r.choice([2, 4]), "mamba_conv_bias": flag(r), "mamba_proj_bias": flag(r), "attention_bias": flag(r),
        "mamba_chunk_size": 16, "position_embedding_type": r.choice([None, "rope"]),
    }


def zamba2(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 4])
    hidden, layers, expand = 16 * count, r.choice([5, 7]), r.choice([1, 2])
    kinds = ["mamba", *pattern(r, layers - 1, "hybrid", "hybrid", "mamba")]
    mixer = ssd(r, expand * hidden, heads="n_mamba_heads", groups="mamba_ngroups", state="mamba_d_state")
    return ties(r) | mixer | {
        "hidden_size": hidden, "num_attention_heads": count, "num_key_value_heads": count, "num_hidden_layers": layers,
        "layers_block_type": kinds,
        "num_mem_blocks": r.choice([1, 2]), "intermediate_size": r.randrange(30, 150), "mamba_expand": expand,
        "mamba_d_conv": r.choice([2, 4]),
        "use_shared_attention_adapter": flag(r), "adapter_rank": r.choice([4, 10]), "add_bias_linear": flag(r), "use_mem_rope": flag(r),
        "vocab_size": r.randrange(90, 300), "chunk_size": 16,
    }


def nemotron_h(r: random.Random) -> dict[str, Any]:
    groups = r.choice([1, 2])
    return ties(r) | heads(r) | {
        "hybrid_override_pattern": "".join(pattern(r, r.choice([4, 6]), "M", "*", "-", "E")), "vocab_size": r.randrange(90, 300),
        "intermediate_size": r.randrange(30, 150), "mamba_num_heads": 2 * groups, "mamba_head_dim": r.choice([8, 12]), "n_groups": groups,
        "ssm_state_size": r.choice([8, 16]), "conv_kernel": r.choice([2, 4]), "use_conv_bias": flag(r), "use_bias": flag(r),
        "mlp_bias": flag(r),
        "chunk_size": 16, "n_routed_experts": 4, "num_experts_per_tok": r.choice([1, 2]), "moe_intermediate_size": r.randrange(20, 60),
        "moe_shared_expert_intermediate_size": r.randrange(20, 60), "moe_latent_size": r.choice([None, 24]),
    }


def recurrent_gemma(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False)
    return found | {
        "lru_width": r.choice([None, 8 * found["num_attention_heads"]]), "intermediate_size": 2 * r.randrange(20, 80),
        "conv1d_width": r.choice([2, 4]),
        "attention_window_size": 16, "attention_bias": flag(r),
        "block_types": r.choice([["recurrent", "attention"], ["recurrent", "recurrent", "attention"]]),
    }


def delta_net(r: random.Random) -> dict[str, Any]:
    key_heads = r.choice([1, 2, 3])
    return {
        "linear_num_key_heads": key_heads, "linear_num_value_heads": key_heads * r.choice([1, 2]), "linear_key_head_dim": r.choice([8, 16]),
        "linear_value_head_dim": r.choice([8, 24]), "linear_conv_kernel_dim": r.choice([2, 4]),
    }


def qwen3_5(r: random.Random) -> dict[str, Any]:
    found = llama_like(r)
    kinds = pattern(r, found["num_hidden_layers"], "linear_attention", "full_attention")
    return found | delta_net(r) | {"attention_bias": flag(r), "layer_types": kinds}


def qwen3_5_moe(r: random.Random) -> dict[str, Any]:
    found = qwen3_5(r) | experts(r, "num_experts", "moe_intermediate_size") | {"shared_expert_intermediate_size": r.randrange(16, 90)}
    del found["intermediate_size"]
    return found


def qwen3_next(r: random.Random) -> dict[str, Any]:
    found = qwen3_5(r) | experts(r, "num_experts", "moe_intermediate_size")
    return found | {
        "shared_expert_intermediate_size": r.randrange(16, 90), "decoder_sparse_step": r.choice([1, 2]),
        "mlp_only_layers": r.choice([[], [0]]),
    }


def minimax(r: random.Random) -> dict[str, Any]:
    found = llama_like(r) | experts(r, "num_local_experts") | {"block_size": r.choice([16, 24])}
    return found | {"layer_types": pattern(r, found["num_hidden_layers"], "linear_attention", "full_attention")}


def olmo_hybrid(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False) | delta_net(r) | {"attention_bias": flag(r), "num_hidden_layers": r.choice([2, 3])}
    kinds = ["linear_attention", "full_attention", "linear_attention"][: found["num_hidden_layers"]]
    return found | {"layer_types": kinds, "pad_token_id": 0}


def lfm2(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False) | {"num_hidden_layers": r.choice([2, 3])}
    return found | {
        "full_attn_idxs": [1], "conv_bias": flag(r), "conv_L_cache": r.choice([3, 4]), "block_auto_adjust_ff_dim": flag(r),
        "block_multiple_of": r.choice([16, 256]), "block_ffn_dim_multiplier": r.choice([1.0, 1.3]),
    }


def lfm2_moe(r: random.Random) -> dict[str, Any]:
    found = llama_like(r, free_head_dim=False) | experts(
        r, "num_experts", "moe_intermediate_size",
    ) | {"num_hidden_layers": r.choice([2, 3])}
    kinds = ["conv", "full_attention", "conv"][: found["num_hidden_layers"]]
    return found | {
        "layer_types": kinds, "conv_bias": flag(r), "conv_L_cache": 3, "num_dense_layers": r.choice([0, 1]), "use_expert_bias": flag(r),
    }


def kimi_linear(r: random.Random) -> dict[str, Any]:
    count = r.choice([2, 3])
    layers = r.choice([2, 3])
    return ties(r) | {
        "hidden_size": 8 * r.randrange(4, 10), "num_attention_heads": count, "num_key_value_heads": count, "num_hidden_layers": layers,
        "intermediate_size": r.randrange(30, 150), "vocab_size": r.randrange(90, 300), "kv_lora_rank": r.randrange(8, 40),
        "q_lora_rank": r.choice([None, 20]), "qk_nope_head_dim": 8 * r.choice([1, 2]), "qk_rope_head_dim": 8,
        "v_head_dim": 8 * r.choice([1, 3]),
        "attention_bias": flag(r), "n_shared_experts": r.choice([1, 2]), "num_local_experts": 4, "num_experts_per_tok": r.choice([1, 2]),
        "moe_intermediate_size": r.randrange(16, 60), "layer_types": pattern(r, layers, "linear_attention", "full_attention"),
        "mlp_layer_types": pattern(r, layers, "dense", "sparse"), "linear_head_dim": r.choice([8, 16]),
        "linear_num_heads": r.choice([1, 3]),
        "linear_conv_kernel_dim": r.choice([2, 4]), "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }


BERT_HEADS = ("ForMaskedLM", "Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")

CASES = [
    Case("bert", "BertConfig", tuple(f"Bert{head}" for head in (*BERT_HEADS, "ForPreTraining", "LMHeadModel")), bert),
    Case("roberta", "RobertaConfig", tuple(f"Roberta{head}" for head in BERT_HEADS), bert),
    Case("xlm-roberta", "XLMRobertaConfig", tuple(f"XLMRoberta{head}" for head in BERT_HEADS), bert),
    Case("distilbert", "DistilBertConfig", tuple(f"DistilBert{head}" for head in BERT_HEADS), distilbert),
    Case("albert", "AlbertConfig", tuple(f"Albert{head}" for head in (*BERT_HEADS, "ForPreTraining")), albert),
    Case("electra", "ElectraConfig", tuple(f"Electra{head}" for head in (*BERT_HEADS, "ForPreTraining")), electra),
    Case("t5", "T5Config", ("T5ForConditionalGeneration", "T5Model", "T5EncoderModel"), t5, kind="seq2seq"),
    Case("mt5", "MT5Config", ("MT5ForConditionalGeneration", "MT5Model", "MT5EncoderModel"), t5, kind="seq2seq"),
    Case("umt5", "UMT5Config", ("UMT5ForConditionalGeneration", "UMT5Model", "UMT5EncoderModel"), t5, kind="seq2seq"),
    Case("vit", "ViTConfig", ("ViTForImageClassification", "ViTModel"), vit, kind="vision"),
    Case("deit", "DeiTConfig", ("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher", "DeiTModel"), vit, kind="vision"),
    Case("dinov2", "Dinov2Config", ("Dinov2ForImageClassification", "Dinov2Model"), dinov2, kind="vision"),
    Case("mamba", "MambaConfig", ("MambaForCausalLM",), mamba, small_seq_len=24, real_seq_len=8),
    Case("falcon_mamba", "FalconMambaConfig", ("FalconMambaForCausalLM",), mamba, small_seq_len=24, real_seq_len=8),
    Case("mamba2", "Mamba2Config", ("Mamba2ForCausalLM",), mamba2),
    Case("jamba", "JambaConfig", ("JambaForCausalLM",), jamba, small_seq_len=24, real_seq_len=8),
    Case("bamba", "BambaConfig", ("BambaForCausalLM",), bamba),
    Case("falcon_h1", "FalconH1Config", ("FalconH1ForCausalLM",), falcon_h1),
    Case("granitemoehybrid", "GraniteMoeHybridConfig", ("GraniteMoeHybridForCausalLM",), granite_hybrid),
    Case("zamba2", "Zamba2Config", ("Zamba2ForCausalLM",), zamba2),
    Case("nemotron_h", "NemotronHConfig", ("NemotronHForCausalLM",), nemotron_h),
    Case("recurrent_gemma", "RecurrentGemmaConfig", ("RecurrentGemmaForCausalLM",), recurrent_gemma, small_seq_len=24, real_seq_len=16),
    Case("qwen3_next", "Qwen3NextConfig", ("Qwen3NextForCausalLM",), qwen3_next, real_seq_len=64),
    Case("qwen3_5_text", "Qwen3_5TextConfig", ("Qwen3_5ForCausalLM",), qwen3_5, real_seq_len=64),
    Case("qwen3_5_moe_text", "Qwen3_5MoeTextConfig", ("Qwen3_5MoeForCausalLM",), qwen3_5_moe, real_seq_len=64),
    Case("minimax", "MiniMaxConfig", ("MiniMaxForCausalLM",), minimax, scan_is_matmul=True),
    Case("olmo_hybrid", "OlmoHybridConfig", ("OlmoHybridForCausalLM",), olmo_hybrid, real_seq_len=64),
    Case("lfm2", "Lfm2Config", ("Lfm2ForCausalLM",), lfm2),
    Case("lfm2_moe", "Lfm2MoeConfig", ("Lfm2MoeForCausalLM",), lfm2_moe, defaults={"layer_types": ["conv", "full_attention"] * 16}),
    Case("kimi_linear", "KimiLinearConfig", ("KimiLinearForCausalLM",), kimi_linear, real_seq_len=64),
]
