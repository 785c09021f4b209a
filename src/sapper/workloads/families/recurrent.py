"""Hybrids of attention and gated recurrences or short convolutions: recurrent_gemma, lfm2, lfm2_moe."""

from __future__ import annotations

from dataclasses import replace

from sapper.workloads import scans
from sapper.workloads.decoder import Experts, Norm
from sapper.workloads.fields import Fields
from sapper.workloads.hybrid_parts import CONV, FULL, LINEAR, around, attention, causal_class, causal_lm, chosen, pattern, read_attention
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.op import Op

SLIDING = "sliding_attention"


def recurrent_gemma(fields: Fields) -> Model:
    """RecurrentGemma (arXiv:2404.07839, after Griffin, arXiv:2402.19427): RG-LRU blocks and local attention in turn."""
    causal_class(fields, "RecurrentGemmaForCausalLM")
    fields.ignore(
        "logits_soft_cap", "w_init_variance_scale", "final_w_init_variance_scale", "embeddings_scale_by_sqrt_dim", "scan_type",
        "layer_types", "layers_block_type", "_block_types",
    )
    hidden = fields.count("hidden_size", default=2560)
    layers = fields.layers("num_hidden_layers", default=26)
    # The config holds the widths of gate and up together.
    ffn = fields.count("intermediate_size", default=7680) // 2
    width = fields.optional_count("lru_width") or hidden
    a = read_attention(fields, hidden, default=10, dim=False, partial=0.5, out_bias=True)
    a = replace(a, window=fields.count("attention_window_size", "sliding_window", default=2048))
    fields.only("head_dim", a.head_dim)
    fields.divides("lru_width", width, "num_attention_heads", a.heads)
    kernel = fields.count("conv1d_width", default=4)
    turn = fields.raw.get("block_types")
    listed = fields.texts("block_types", choices=("recurrent", "attention"), length=len(turn) if isinstance(turn, list) and turn else 1)
    turns = listed or ("recurrent", "recurrent", "attention")
    kinds = tuple(SLIDING if turns[index % len(turns)] == "attention" else LINEAR for index in range(layers))

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden) if kind == SLIDING else scans.rg_lru(
            kit, "rec", hidden=hidden, width=width, heads=a.heads, kernel=kernel,
        )
        return (*around(kit, "temporal", hidden, first), *around(kit, "mlp", hidden, kit.mlp("mlp", hidden, ffn, bias=True)))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=256000),
        tied=fields.flag("tie_word_embeddings", default=True), attention=a, act="hidden_activation", paper="arXiv:2402.19427",
    )


def _lfm2_ffn(fields: Fields) -> int:
    ffn = fields.count("block_ff_dim", "intermediate_size", default=12288)
    multiple = fields.count("block_multiple_of", default=256, noted=False)
    factor = fields.number("block_ffn_dim_multiplier", default=1.0, maximum=1024.0, noted=False)
    if not fields.flag("block_auto_adjust_ff_dim", default=True):
        return ffn
    # A gated layer has three matrices: two thirds of the width, rounded up to a multiple.
    ffn = int(factor * int(2 * ffn / 3))
    return -(-ffn // multiple) * multiple


UNUSED_LFM2 = ("block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu", "block_use_xavier_init",
               "conv_dim", "conv_dim_out", "conv_use_xavier_init", "num_heads", "use_pos_enc", "theta")


def lfm2(fields: Fields, *, moe: bool = False) -> Model:
    """LFM2 (arXiv:2511.23404): gated short convolutions and grouped-query attention with normed q and k; perhaps experts."""
    causal_class(fields, "Lfm2MoeForCausalLM" if moe else "Lfm2ForCausalLM")
    fields.ignore(*UNUSED_LFM2)
    hidden = fields.count("hidden_size", default=2048 if moe else 2560)
    layers = fields.layers("num_hidden_layers", default=32)
    a = replace(read_attention(fields, hidden, default=32, kv_default=8, dim=False, bias=False), qk_norm=Norm(), out="out_proj")
    kernel, bias = fields.count("conv_L_cache", default=3), fields.flag("conv_bias", default=False)
    at = fields.numbers("full_attn_idxs", default=()) if fields.given("full_attn_idxs") else range(layers)
    fields.ignore("full_attn_idxs", "use_expert_bias")
    mixers = pattern(fields, "layer_types", layers=layers, kinds=(CONV, FULL), default=lambda index: FULL if index in at else CONV)
    ffn = fields.count("intermediate_size", default=7168) if moe else _lfm2_ffn(fields)
    routed: Experts | None = None
    dense = layers
    if moe:
        dense = fields.count("num_dense_layers", default=2, minimum=0)
        count = fields.count("num_experts", default=32)
        routed = Experts(
            experts=count, topk=chosen(fields, count, "num_experts_per_tok", default=4),
            ffn=fields.count("moe_intermediate_size", default=1792),
        )
    kinds = tuple(f"{kind}+{'dense' if index < dense else 'moe'}" for index, kind in enumerate(mixers))

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden) if kind.startswith(FULL) else scans.short_conv(
            kit, "conv", hidden=hidden, kernel=kernel, bias=bias,
        )
        second = routed.ops(kit, hidden) if routed and kind.endswith("moe") else kit.mlp("mlp", hidden, ffn, names=("w1", "w3", "w2"))
        return (*around(kit, "operator", hidden, first), *around(kit, "ffn", hidden, second))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=65536),
        tied=fields.flag("tie_embedding", "tie_word_embeddings", default=True), attention=a,
        experts=lambda kind: (routed.experts, routed.topk) if routed and kind.endswith("moe") else (0, 0),
    )


def lfm2_moe(fields: Fields) -> Model:
    """LFM2 with routed experts behind the first dense layers."""
    return lfm2(fields, moe=True)


FAMILIES = {"recurrent_gemma": recurrent_gemma, "lfm2": lfm2, "lfm2_moe": lfm2_moe}
