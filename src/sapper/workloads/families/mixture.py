"""Mixtures of experts outside the Qwen and DeepSeek lines: Mixtral, Phi-3.5-MoE, OLMoE, Granite MoE, GPT-OSS, Llama 4,
MiniMax-M2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sapper.workloads.decoder import Attention, Decoder, Experts, Layer, Mlp, Norm
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import Heads, alternating, common, heads, positions, windows


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a family of mixtures shares among its layers."""

    hidden: int
    vocab: int
    max_positions: int
    norm: Norm = field(default_factory=Norm)
    tied: bool = False
    head_bias: bool = False


def build(f: Fields, facts: Facts, layer_types: tuple[str, ...], layer: Callable[[str], Layer]) -> Model:
    """The model whose layer of each type ``layer`` makes."""
    layers = {kind: layer(kind) for kind in dict.fromkeys(layer_types)}
    for made in layers.values():
        if made.routed[1] > made.routed[0]:
            raise f.bad("num_experts_per_tok", made.routed[1], f"1 - {made.routed[0]}")
    decoder = Decoder(
        hidden=facts.hidden, vocab=facts.vocab, layers=layers, layer_types=layer_types, final_norm=facts.norm, tied=facts.tied,
        head_bias=facts.head_bias,
    )
    return decoder.model(f, max_positions=positions(f, facts.max_positions))


def _attention(h: Heads, *, window: int | None, dropout: float, bias: bool = False, qk_norm: Norm | None = None) -> Attention:
    return Attention(
        heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=h.rope_dim, window=window, qkv_bias=bias, out_bias=bias,
        qk_norm=qk_norm, qk_norm_over="all", dropout=dropout,
    )


def mixtral(f: Fields) -> Model:
    """Mixtral (arXiv:2401.04088): every layer a mixture of gated experts."""
    common(f)
    hidden = f.count("hidden_size", default=4096)
    h = heads(f, hidden, default=32, kv_default=8, divides=False)
    window = f.nullable_count("sliding_window", default=None)
    experts = Experts(
        experts=f.count("num_local_experts", "num_experts", default=8), topk=f.count("num_experts_per_tok", default=2),
        ffn=f.count("intermediate_size", default=14336),
    )
    attention = _attention(h, window=window, dropout=f.dropout("attention_dropout"))
    kinds = (("sliding" if window else "full") + "+moe",) * f.layers("num_hidden_layers", default=32)
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=32000), max_positions=131072, tied=f.flag("tie_word_embeddings", default=False),
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts))


def phimoe(f: Fields) -> Model:
    """Phi-3.5-MoE: layer norms, biases where the config says so."""
    common(f)
    f.ignore("hidden_dropout")
    hidden = f.count("hidden_size", default=4096)
    h = heads(f, hidden, default=32, kv_default=8, divides=False)
    window = f.nullable_count("sliding_window", default=None)
    experts = Experts(
        experts=f.count("num_local_experts", "num_experts", default=16), topk=f.count("num_experts_per_tok", default=2),
        ffn=f.count("intermediate_size", default=6400),
    )
    attention = _attention(h, window=window, dropout=f.dropout("attention_dropout"), bias=f.flag("attention_bias", default=False))
    norm = Norm(style="layer")
    kinds = (("sliding" if window else "full") + "+moe",) * f.layers("num_hidden_layers", default=32)
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=32064), max_positions=131072, norm=norm,
        tied=f.flag("tie_word_embeddings", default=False), head_bias=f.flag("lm_head_bias", default=False),
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts, norm=norm))


def olmoe(f: Fields) -> Model:
    """OLMoE (arXiv:2409.02060): norms on all of q and k."""
    common(f)
    f.ignore("clip_qkv")
    hidden = f.count("hidden_size", default=2048)
    h = heads(f, hidden, default=16, dim=False)
    experts = Experts(
        experts=f.count("num_experts", "num_local_experts", default=64), topk=f.count("num_experts_per_tok", default=8),
        ffn=f.count("intermediate_size", default=2048),
    )
    bias = f.flag("attention_bias", default=False)
    attention = _attention(h, window=None, dropout=f.dropout("attention_dropout"), bias=bias, qk_norm=Norm())
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=50304), max_positions=4096, tied=f.flag("tie_word_embeddings", default=False)
    )
    kinds = ("full+moe",) * f.layers("num_hidden_layers", default=16)
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts))


def minimax_m2(f: Fields) -> Model:
    """MiniMax-M2: full attention with norms on all of q and k, half of a head rotated, experts in every layer."""
    common(f)
    f.ignore("scoring_func", "use_routing_bias", "qk_norm_type", "shared_intermediate_size", "mtp_transformer_layers", "rotary_dim")
    f.ignore("attn_type_list", "layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta")
    f.only("use_qk_norm", True)
    if f.flag("use_mtp", default=False) and f.optional_count("num_mtp_modules", minimum=0):
        f.note("mtp")
    f.ignore("num_mtp_modules")
    hidden = f.count("hidden_size", default=3072)
    h = heads(f, hidden, default=48, kv_default=8, dim_default=128, divides=False)
    experts = Experts(
        experts=f.count("num_local_experts", "num_experts", default=256), topk=f.count("num_experts_per_tok", default=8),
        ffn=f.count("intermediate_size", default=1536),
    )
    attention = _attention(h, window=None, dropout=f.dropout("attention_dropout"), qk_norm=Norm())
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=200064), max_positions=196608, tied=f.flag("tie_word_embeddings", default=False)
    )
    kinds = ("full+moe",) * f.layers("num_hidden_layers", default=62)
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts))


def granitemoe(f: Fields) -> Model:
    """IBM Granite 3 MoE."""
    common(f)
    f.ignore("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier")
    hidden = f.count("hidden_size", default=4096)
    h = heads(f, hidden, default=32, dim=False)
    experts = Experts(
        experts=f.count("num_local_experts", "num_experts", default=8), topk=f.count("num_experts_per_tok", default=2),
        ffn=f.count("intermediate_size", default=11008),
    )
    attention = _attention(h, window=None, dropout=f.dropout("attention_dropout"), bias=f.flag("attention_bias", default=False))
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=32000), max_positions=2048, tied=f.flag("tie_word_embeddings", default=False)
    )
    kinds = ("full+moe",) * f.layers("num_hidden_layers", default=32)
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts, scaled=True))


def gpt_oss(f: Fields) -> Model:
    """GPT-OSS (arXiv:2508.10925, section 2): sliding and full layers in turn, attention sinks, biases everywhere."""
    common(f)
    f.ignore("swiglu_limit", "swiglu_alpha", "initial_context_length", "rope_ntk_alpha", "rope_ntk_beta", "rope_scaling_factor")
    hidden = f.count("hidden_size", default=2880)
    h = heads(f, hidden, default=64, kv_default=8, dim_default=64, divides=False)
    layers = f.layers("num_hidden_layers", default=36)
    kinds = windows(f, layers, derived=alternating(layers, 2))
    window = f.nullable_count("sliding_window", default=128)
    f.ignore("experts_per_token")
    experts = Experts(
        experts=f.count("num_local_experts", "num_experts", default=128),
        topk=f.count("num_experts_per_tok", "experts_per_token", default=4),
        ffn=f.count("intermediate_size", default=2880),
        bias=True,
        router_bias=True,
    )
    bias, dropout = f.flag("attention_bias", default=True), f.dropout("attention_dropout")

    def layer(kind: str) -> Layer:
        attention = Attention(
            heads=h.heads,
            kv_heads=h.kv_heads,
            head_dim=h.head_dim,
            rope_dim=h.rope_dim,
            window=window if kind.startswith("sliding") else None,
            qkv_bias=bias,
            out_bias=bias,
            dropout=dropout,
            sinks=True,
        )
        return Layer(attention=attention, ffn=experts)

    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=201088), max_positions=131072, tied=f.flag("tie_word_embeddings", default=False)
    )
    return build(f, facts, tuple(f"{kind}+moe" for kind in kinds), layer)


def llama4_text(f: Fields) -> Model:
    """Llama 4 (language model): chunked attention with rotary embedding, every fourth layer full without; experts on the
    layers that the config names, a shared expert beside them."""
    common(f)
    f.ignore("attn_temperature_tuning", "floor_scale", "attn_scale", "for_llm_compressor")
    hidden = f.count("hidden_size", default=5120)
    h = heads(f, hidden, default=40, kv_default=8, dim_default=128, divides=False)
    layers = f.layers("num_hidden_layers", default=48)
    interval = f.count("no_rope_layer_interval", default=4, noted=False)
    rope = f.numbers("no_rope_layers", default=None) or tuple(int((i + 1) % interval != 0) for i in range(layers))
    if len(rope) != layers:
        raise f.wrong_length("no_rope_layers", len(rope), layers)
    step = f.count("interleave_moe_layer_step", default=1, noted=False)
    given = f.numbers("moe_layers", default=None) if f.given("moe_layers") else tuple(range(step - 1, layers, step))
    f.ignore("moe_layers")
    kinds = windows(f, layers, derived=tuple("chunked" if rotate else "full" for rotate in rope))
    chunk = f.nullable_count("attention_chunk_size", default=8192)
    ffn, bias, dropout = f.count("intermediate_size", default=8192), f.flag("attention_bias", default=False), f.dropout("attention_dropout")
    experts = Experts(
        experts=f.count("num_local_experts", default=16), topk=f.count("num_experts_per_tok", default=1), ffn=ffn, shared_ffn=ffn,
    )
    mlp = Mlp(ffn=f.count("intermediate_size_mlp", default=16384))
    qk_norm = Norm(affine=False) if f.flag("use_qk_norm", default=True) else None
    layer_types = tuple(
        kind + ("" if rotate else "-nope") + ("+moe" if i in set(given) else "")
        for i, (kind, rotate) in enumerate(zip(kinds, rope, strict=True))
    )

    def layer(kind: str) -> Layer:
        rotates = "-nope" not in kind
        attention = Attention(
            heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=h.rope_dim if rotates else 0, qkv_bias=bias, out_bias=bias,
            window=chunk if kind.startswith("chunked") else None, chunked=kind.startswith("chunked"), dropout=dropout,
            qk_norm=qk_norm if rotates else None,
        )
        return Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp)

    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=202048), max_positions=131072, tied=f.flag("tie_word_embeddings", default=False)
    )
    return build(f, facts, layer_types, layer)


FAMILIES = {
    "mixtral": mixtral, "phimoe": phimoe, "olmoe": olmoe, "granitemoe": granitemoe, "gpt_oss": gpt_oss, "llama4_text": llama4_text,
    "minimax_m2": minimax_m2,
}
