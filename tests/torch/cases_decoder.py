"""Decoder-only transformers."""

from __future__ import annotations

import random
from typing import Any

from cases import Case, body, experts, flag, heads, llama_like, ties


def llama(r: random.Random) -> dict[str, Any]:
    found = llama_like(r) | {"attention_bias": flag(r), "mlp_bias": flag(r)}
    return found | {"hidden_size": found["num_attention_heads"] * r.choice([5, 8, 20])}


def mistral(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"sliding_window": r.choice([None, 16, 4096])}


def mixtral(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | experts(r, "num_local_experts") | {"sliding_window": r.choice([None, 16])}


def qwen2(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"use_sliding_window": flag(r), "sliding_window": 16, "max_window_layers": 1}


def qwen2_moe(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | experts(r, "num_experts", "moe_intermediate_size") | {
        "shared_expert_intermediate_size": r.randrange(16, 90), "decoder_sparse_step": r.choice([1, 2]),
        "mlp_only_layers": r.choice([[], [0]]), "qkv_bias": flag(r),
    }


def qwen3(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r), "use_sliding_window": flag(r), "sliding_window": 16, "max_window_layers": 1}


def qwen3_moe(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | experts(r, "num_experts", "moe_intermediate_size") | {
        "attention_bias": flag(r), "decoder_sparse_step": r.choice([1, 2]), "mlp_only_layers": r.choice([[], [0]]),
    }


def mla(r: random.Random) -> dict[str, Any]:
    count = r.choice([2, 3, 4])
    return body(r) | ties(r) | {
        "hidden_size": 8 * count * r.choice([2, 3]), "num_attention_heads": count, "num_key_value_heads": count,
        "kv_lora_rank": 2 * r.randrange(4, 20), "q_lora_rank": r.choice([None, r.randrange(8, 60)]),
        "qk_nope_head_dim": 8 * r.choice([1, 2, 3]), "qk_rope_head_dim": 8 * r.choice([1, 2]), "v_head_dim": 8 * r.choice([1, 2, 3]),
        "attention_bias": flag(r), "first_k_dense_replace": r.choice([0, 1, 2]),
        "n_routed_experts": 8, "num_experts_per_tok": r.choice([1, 2, 3]), "n_shared_experts": r.choice([1, 2]),
        "moe_intermediate_size": r.randrange(16, 90), "n_group": 2, "topk_group": 1,
    }


def glm_moe_dsa(r: random.Random) -> dict[str, Any]:
    found = mla(r)
    dense = found.pop("first_k_dense_replace")
    layers = found["num_hidden_layers"]
    return found | {
        "q_lora_rank": r.randrange(8, 60), "attention_bias": False, "index_n_heads": r.choice([2, 4]), "index_topk": 2048,
        "index_head_dim": found["qk_rope_head_dim"] + 8, "mlp_layer_types": ["dense" if i < dense else "sparse" for i in range(layers)],
    }


def minimax_m2(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | experts(r, "num_local_experts")


def deepseek_v2(r: random.Random) -> dict[str, Any]:
    method = r.choice([{"topk_method": "greedy", "n_group": None, "topk_group": None}, {"topk_method": "group_limited_greedy"}])
    return mla(r) | method


def gemma(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r)}


def gemma2(r: random.Random) -> dict[str, Any]:
    found = llama_like(r) | {"sliding_window": 16, "attention_bias": flag(r)}
    return found | {"hidden_size": found["num_attention_heads"] * 8 * r.choice([1, 2, 5])}


def gemma3(r: random.Random) -> dict[str, Any]:
    return gemma2(r) | {"sliding_window_pattern": r.choice([2, 6])}


def phi(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"qk_layernorm": flag(r)}


def phi3(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"sliding_window": r.choice([None, 16]), "pad_token_id": 0}


def gpt2(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3, 5])
    return ties(r) | {
        "n_embd": 8 * count * r.choice([1, 2]), "n_head": count, "n_layer": r.choice([1, 2, 3]), "n_positions": 200,
        "n_inner": r.choice([None, r.randrange(20, 90)]), "vocab_size": r.randrange(90, 300),
    }


def gpt_neox(r: random.Random) -> dict[str, Any]:
    found = body(r) | heads(r, free_head_dim=False) | ties(r)
    del found["num_key_value_heads"]
    return found | {"use_parallel_residual": flag(r), "attention_bias": flag(r)}


def opt(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3])
    hidden = 16 * count
    return ties(r) | {
        "hidden_size": hidden, "num_attention_heads": count, "ffn_dim": r.randrange(20, 120), "num_hidden_layers": r.choice([1, 2, 3]),
        "vocab_size": r.randrange(90, 300), "max_position_embeddings": 200, "word_embed_proj_dim": r.choice([hidden, 20]),
        "do_layer_norm_before": flag(r), "enable_bias": flag(r), "layer_norm_elementwise_affine": flag(r),
    }


def bloom(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 3, 4])
    return ties(r) | {"hidden_size": 16 * count, "n_head": count, "n_layer": r.choice([1, 2, 3]), "vocab_size": r.randrange(90, 300)}


def falcon(r: random.Random) -> dict[str, Any]:
    count = r.choice([2, 4, 6])
    new = flag(r)
    return ties(r) | {
        "hidden_size": 16 * count, "num_attention_heads": count, "num_hidden_layers": r.choice([1, 2, 3]),
        "vocab_size": r.randrange(90, 300),
        "new_decoder_architecture": new, "num_kv_heads": r.choice([1, 2]) if new else None, "multi_query": flag(r),
        "parallel_attn": new or flag(r), "bias": flag(r), "alibi": flag(r), "ffn_hidden_size": r.choice([None, r.randrange(30, 100)]),
    }


def glm(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r), "pad_token_id": 0}


def gpt_oss(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | experts(r, "num_local_experts") | {"sliding_window": 16, "attention_bias": flag(r)}


def arcee(r: random.Random) -> dict[str, Any]:
    return llama(r)


def granite(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"attention_bias": flag(r), "mlp_bias": flag(r), "residual_multiplier": 0.5}


def granitemoe(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | experts(r, "num_local_experts") | {"attention_bias": flag(r)}


def cohere(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"attention_bias": flag(r), "use_qk_norm": flag(r)}


def cohere2(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"attention_bias": flag(r), "sliding_window": 16}


def codegen(r: random.Random) -> dict[str, Any]:
    return ties(r) | {
        "n_embd": 64 * r.choice([1, 2]), "n_head": 4, "n_layer": r.choice([1, 2, 3]), "n_positions": 200, "rotary_dim": r.choice([4, 8]),
        "n_inner": r.choice([None, r.randrange(20, 90)]), "vocab_size": r.randrange(90, 300),
    }


def gpt_bigcode(r: random.Random) -> dict[str, Any]:
    return gpt2(r) | {"multi_query": flag(r)}


def gpt_neo(r: random.Random) -> dict[str, Any]:
    count, turns = r.choice([1, 2, 3]), r.choice([1, 2])
    return ties(r) | {
        "hidden_size": 16 * count, "num_heads": count, "num_layers": 2 * turns, "attention_types": [[["global", "local"], turns]],
        "intermediate_size": r.choice([None, r.randrange(20, 90)]), "window_size": 16, "vocab_size": r.randrange(90, 300),
        "max_position_embeddings": 200,
    }


def mpt(r: random.Random) -> dict[str, Any]:
    count = r.choice([1, 2, 4])
    return ties(r) | {
        "d_model": 16 * count, "n_heads": count, "n_layers": r.choice([1, 2, 3]), "vocab_size": r.randrange(90, 300), "max_seq_len": 200,
    }


def grouped_experts(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {
        "attention_bias": flag(r), "first_k_dense_replace": r.choice([0, 1, 2]), "n_routed_experts": 8,
        "num_experts_per_tok": r.choice([1, 2, 3]),
        "n_shared_experts": r.choice([1, 2]), "moe_intermediate_size": r.randrange(16, 90), "n_group": 2, "topk_group": 1,
    }


def glm4_moe(r: random.Random) -> dict[str, Any]:
    return grouped_experts(r) | {"use_qk_norm": flag(r)}


def dots1(r: random.Random) -> dict[str, Any]:
    return grouped_experts(r) | {"sliding_window": r.choice([None, 16]), "max_window_layers": 1}


def ernie(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"use_bias": flag(r)}


def exaone4(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"sliding_window": 16, "sliding_window_pattern": r.choice([2, 4])}


def hunyuan(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r)}


def internlm3(r: random.Random) -> dict[str, Any]:
    found = llama_like(r)
    return found | {"hidden_size": found["num_attention_heads"] * r.choice([5, 8, 20])}


def minicpm3(r: random.Random) -> dict[str, Any]:
    found = mla(r)
    kept = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "attention_bias", *body(r), "hidden_size")
    return {key: found[key] for key in (*kept, "num_attention_heads", "num_key_value_heads", "tie_word_embeddings")} | {"mlp_bias": flag(r)}


def ministral(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"sliding_window": 16}


def nemotron(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r), "mlp_bias": flag(r)}


def olmo(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"attention_bias": flag(r), "pad_token_id": 0}


def olmo3(r: random.Random) -> dict[str, Any]:
    return olmo(r) | {"sliding_window": 16}


def olmoe(r: random.Random) -> dict[str, Any]:
    return olmo(r) | experts(r, "num_experts")


def phimoe(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | experts(r, "num_local_experts") | {
        "num_experts_per_tok": 2, "attention_bias": flag(r), "lm_head_bias": flag(r), "sliding_window": r.choice([None, 16]),
    }


def seed_oss(r: random.Random) -> dict[str, Any]:
    return llama_like(r) | {"attention_bias": flag(r), "attention_out_bias": flag(r), "mlp_bias": flag(r)}


def smollm3(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {
        "attention_bias": flag(r), "mlp_bias": flag(r), "no_rope_layer_interval": 2, "pad_token_id": 0,
    }


def stablelm(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"use_qkv_bias": flag(r), "qk_layernorm": flag(r), "use_parallel_residual": flag(r)}


def starcoder2(r: random.Random) -> dict[str, Any]:
    return llama_like(r, free_head_dim=False) | {"use_bias": flag(r), "sliding_window": r.choice([None, 16])}


def llama4(r: random.Random) -> dict[str, Any]:
    found = llama_like(r)
    return found | {
        "num_experts_per_tok": r.choice([1, 2]), "num_local_experts": 4, "intermediate_size_mlp": r.randrange(30, 150),
        "attention_bias": flag(r),
        "interleave_moe_layer_step": r.choice([1, 2]), "attention_chunk_size": 16, "use_qk_norm": flag(r), "pad_token_id": 0,
    }


CASES = [
    Case("llama", "LlamaConfig", ("LlamaForCausalLM",), llama),
    Case("mistral", "MistralConfig", ("MistralForCausalLM",), mistral),
    Case("mixtral", "MixtralConfig", ("MixtralForCausalLM",), mixtral),
    Case("qwen2", "Qwen2Config", ("Qwen2ForCausalLM",), qwen2),
    Case("qwen2_moe", "Qwen2MoeConfig", ("Qwen2MoeForCausalLM",), qwen2_moe),
    Case("qwen3", "Qwen3Config", ("Qwen3ForCausalLM",), qwen3),
    Case("qwen3_moe", "Qwen3MoeConfig", ("Qwen3MoeForCausalLM",), qwen3_moe),
    Case("deepseek_v2", "DeepseekV2Config", ("DeepseekV2ForCausalLM",), deepseek_v2, defaults={"num_experts_per_tok": 6}),
    Case("deepseek_v3", "DeepseekV3Config", ("DeepseekV3ForCausalLM",), mla),
    Case("deepseek_v32", "DeepseekV32Config", ("DeepseekV32ForCausalLM",), glm_moe_dsa),
    Case("glm_moe_dsa", "GlmMoeDsaConfig", ("GlmMoeDsaForCausalLM",), glm_moe_dsa),
    Case("minimax_m2", "MiniMaxM2Config", ("MiniMaxM2ForCausalLM",), minimax_m2),
    Case("gemma", "GemmaConfig", ("GemmaForCausalLM",), gemma),
    Case("gemma2", "Gemma2Config", ("Gemma2ForCausalLM",), gemma2),
    Case("gemma3_text", "Gemma3TextConfig", ("Gemma3ForCausalLM",), gemma3),
    Case("phi", "PhiConfig", ("PhiForCausalLM",), phi),
    Case("phi3", "Phi3Config", ("Phi3ForCausalLM",), phi3),
    Case("gpt2", "GPT2Config", ("GPT2LMHeadModel",), gpt2),
    Case("gpt_neox", "GPTNeoXConfig", ("GPTNeoXForCausalLM",), gpt_neox),
    Case("opt", "OPTConfig", ("OPTForCausalLM",), opt),
    Case("bloom", "BloomConfig", ("BloomForCausalLM",), bloom),
    Case("falcon", "FalconConfig", ("FalconForCausalLM",), falcon),
    Case("glm", "GlmConfig", ("GlmForCausalLM",), glm),
    Case("glm4", "Glm4Config", ("Glm4ForCausalLM",), glm),
    Case("gpt_oss", "GptOssConfig", ("GptOssForCausalLM",), gpt_oss),
    Case("arcee", "ArceeConfig", ("ArceeForCausalLM",), arcee),
    Case("codegen", "CodeGenConfig", ("CodeGenForCausalLM",), codegen),
    Case("cohere", "CohereConfig", ("CohereForCausalLM",), cohere),
    Case("cohere2", "Cohere2Config", ("Cohere2ForCausalLM",), cohere2),
    Case(
        "dots1", "Dots1Config", ("Dots1ForCausalLM",), dots1,
        defaults={"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
    ),
    Case("ernie4_5", "Ernie4_5Config", ("Ernie4_5ForCausalLM",), ernie),
    Case("exaone4", "Exaone4Config", ("Exaone4ForCausalLM",), exaone4),
    Case("glm4_moe", "Glm4MoeConfig", ("Glm4MoeForCausalLM",), glm4_moe),
    Case("gpt_bigcode", "GPTBigCodeConfig", ("GPTBigCodeForCausalLM",), gpt_bigcode),
    Case("gpt_neo", "GPTNeoConfig", ("GPTNeoForCausalLM",), gpt_neo),
    Case("gptj", "GPTJConfig", ("GPTJForCausalLM",), codegen),
    Case("granite", "GraniteConfig", ("GraniteForCausalLM",), granite),
    Case("granitemoe", "GraniteMoeConfig", ("GraniteMoeForCausalLM",), granitemoe),
    Case("hunyuan_v1_dense", "HunYuanDenseV1Config", ("HunYuanDenseV1ForCausalLM",), hunyuan, defaults={"head_dim": 128}),
    Case("internlm3", "InternLM3Config", ("LlamaForCausalLM",), internlm3),
    Case("llama4_text", "Llama4TextConfig", ("Llama4ForCausalLM",), llama4, dense_experts=True),
    Case("minicpm3", "MiniCPM3Config", ("MiniCPM3ForCausalLM",), minicpm3),
    Case("ministral", "MinistralConfig", ("MinistralForCausalLM",), ministral, defaults={"head_dim": 128}),
    Case("ministral3", "Ministral3Config", ("Ministral3ForCausalLM",), ministral),
    Case("mpt", "MptConfig", ("MptForCausalLM",), mpt),
    Case("nemotron", "NemotronConfig", ("NemotronForCausalLM",), nemotron, defaults={"head_dim": 128, "num_key_value_heads": 8}),
    Case("olmo", "OlmoConfig", ("OlmoForCausalLM",), olmo),
    Case("olmo2", "Olmo2Config", ("Olmo2ForCausalLM",), olmo),
    Case("olmo3", "Olmo3Config", ("Olmo3ForCausalLM",), olmo3),
    Case("olmoe", "OlmoeConfig", ("OlmoeForCausalLM",), olmoe),
    Case("phimoe", "PhimoeConfig", ("PhimoeForCausalLM",), phimoe),
    Case("seed_oss", "SeedOssConfig", ("SeedOssForCausalLM",), seed_oss),
    Case("smollm3", "SmolLM3Config", ("SmolLM3ForCausalLM",), smollm3),
    Case("stablelm", "StableLmConfig", ("StableLmForCausalLM",), stablelm),
    Case("starcoder2", "Starcoder2Config", ("Starcoder2ForCausalLM",), starcoder2),
]
