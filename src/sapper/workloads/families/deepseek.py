"""DeepSeek MoE, V2 and V3, and the families of their pattern: leading dense layers, shared and routed experts."""

from __future__ import annotations

from sapper.workloads.decoder import Attention, Experts, Indexer, LatentAttention, Layer, Mlp, Norm, Order
from sapper.workloads.families.llama import Defaults
from sapper.workloads.families.mixture import Facts, build
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import common, heads, windows

_ROUTING = (
    "n_group", "topk_group", "topk_method", "scoring_func", "routed_scaling_factor", "norm_topk_prob", "aux_loss_alpha", "seq_aux",
    "rope_interleave", "ep_size", "first_k_dense_replace", "use_grouped_mm",
)


def _latent(
    f: Fields, *, q_rank: int | None, kv_rank: int = 512, nope: int = 128, rope: int = 64, value: int = 128, heads_default: int,
    index: Indexer | None = None,
) -> LatentAttention:
    count = f.count("num_attention_heads", default=heads_default)
    if (f.optional_count("num_key_value_heads") or count) != count:
        raise f.bad("num_key_value_heads", f.raw["num_key_value_heads"], str(count))
    f.ignore("head_dim", "qk_head_dim")
    return LatentAttention(
        heads=count, q_rank=f.nullable_count("q_lora_rank", default=q_rank), kv_rank=f.count("kv_lora_rank", default=kv_rank),
        nope_dim=f.count("qk_nope_head_dim", default=nope), rope_dim=f.count("qk_rope_head_dim", default=rope),
        v_dim=f.count("v_head_dim", default=value), bias=f.flag("attention_bias", default=False), dropout=f.dropout("attention_dropout"),
        index=index,
    )


def _experts(f: Fields, *, experts: int, shared: int | None, topk: int | None, ffn: int, shared_bias: bool = False) -> Experts:
    width = f.count("moe_intermediate_size", default=ffn)
    count = f.nullable_count("n_shared_experts", default=shared, minimum=0) or 0
    chosen = f.count("num_experts_per_tok") if topk is None else f.count("num_experts_per_tok", default=topk)
    return Experts(
        experts=f.count("n_routed_experts", "num_local_experts", default=experts), topk=chosen, ffn=width, shared_ffn=width * count,
        shared_bias=shared_bias,
    )


def _predicts_further(f: Fields) -> None:
    """Multi-token prediction modules (arXiv:2412.19437, section 2.2), which the library does not build."""
    if f.optional_count("num_nextn_predict_layers", "num_mtp_layers", minimum=0):
        f.note("mtp")


def _kinds(f: Fields, attention: str, layers: int, first_dense: int) -> tuple[str, ...]:
    frequency = f.count("moe_layer_freq", default=1, noted=False)
    dense = f.count("first_k_dense_replace", default=first_dense, minimum=0)
    return tuple(f"{attention}+moe" if i >= dense and i % frequency == 0 else attention for i in range(layers))


def deepseek_v2(f: Fields) -> Model:
    """DeepSeek-V2 and V2-Lite (arXiv:2405.04434)."""
    common(f)
    f.ignore(*_ROUTING)
    hidden = f.count("hidden_size", default=4096)
    bias = f.flag("mlp_bias", default=False)
    attention = _latent(f, q_rank=1536, heads_default=32)
    mlp = Mlp(ffn=f.count("intermediate_size", default=11008), bias=bias)
    experts = _experts(f, experts=64, shared=2, topk=None, ffn=1407, shared_bias=bias)
    kinds = _kinds(f, "mla", f.layers("num_hidden_layers", default=32), 0)
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=102400), max_positions=2048, tied=f.flag("tie_word_embeddings", default=False)
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp))


def deepseek_v3(f: Fields) -> Model:
    """DeepSeek-V3 and R1, Kimi K2 (arXiv:2412.19437)."""
    common(f)
    f.ignore(*_ROUTING)
    _predicts_further(f)
    hidden = f.count("hidden_size", default=7168)
    attention = _latent(f, q_rank=1536, heads_default=128)
    mlp = Mlp(ffn=f.count("intermediate_size", default=18432))
    experts = _experts(f, experts=256, shared=1, topk=8, ffn=2048)
    kinds = _kinds(f, "mla", f.layers("num_hidden_layers", default=61), 3)
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=129280), max_positions=4096, tied=f.flag("tie_word_embeddings", default=False)
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp))


def deepseek_v32(f: Fields) -> Model:
    """DeepSeek-V3.2 (arXiv:2512.02556): V3 with sparse attention, whose indexer chooses the tokens that are read."""
    return _indexed(f, hidden=7168, layers=61, heads=128, q_rank=1536, nope=128, value=128, ffn=18432, index_heads=64, vocab=129280,
                    max_positions=163840)


def glm_moe_dsa(f: Fields) -> Model:
    """GLM-5: the same layers in other sizes."""
    return _indexed(f, hidden=6144, layers=78, heads=64, q_rank=2048, nope=192, value=256, ffn=12288, index_heads=32, vocab=154880,
                    max_positions=202752)


def _indexed(
    f: Fields, *, hidden: int, layers: int, heads: int, q_rank: int, nope: int, value: int, ffn: int, index_heads: int, vocab: int,
    max_positions: int,
) -> Model:
    common(f)
    f.ignore(*_ROUTING, "indexer_rope_interleave", "indexer_types", "output_router_logits")
    _predicts_further(f)
    width, count = f.count("hidden_size", default=hidden), f.layers("num_hidden_layers", default=layers)
    index = Indexer(
        heads=f.count("index_n_heads", default=index_heads), head_dim=f.count("index_head_dim", default=128),
        topk=f.count("index_topk", default=2048),
    )
    attention = _latent(f, q_rank=q_rank, nope=nope, value=value, heads_default=heads, index=index)
    mlp = Mlp(ffn=f.count("intermediate_size", default=ffn), bias=f.flag("mlp_bias", default=False))
    experts = _experts(f, experts=256, shared=1, topk=8, ffn=2048)
    derived = _kinds(f, "indexed", count, 3)
    given = f.texts("mlp_layer_types", choices=("dense", "sparse"), length=count)
    kinds = derived if given is None else tuple("indexed+moe" if kind == "sparse" else "indexed" for kind in given)
    f.texts("layer_types", choices=("indexed_attention",), length=count)
    facts = Facts(
        hidden=width, vocab=f.count("vocab_size", default=vocab), max_positions=max_positions,
        tied=f.flag("tie_word_embeddings", default=False),
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp))


def pangu_ultra_moe(f: Fields) -> Model:
    """Pangu Ultra MoE (arXiv:2505.04519): DeepSeek-V3's layers under other field names, norms before and on the outputs."""
    common(f)
    f.ignore("routed_scaling_factor", "rope_theta")
    if f.optional_count("num_mtp_layers", minimum=0):
        f.note("mtp")
    hidden, count = f.count("hidden_size"), f.count("num_attention_heads")
    if (f.optional_count("num_key_value_heads") or count) != count:
        raise f.bad("num_key_value_heads", f.raw["num_key_value_heads"], str(count))
    attention = LatentAttention(
        heads=count, q_rank=f.optional_count("attention_q_lora_dim"), kv_rank=f.count("attention_kv_lora_dim"),
        nope_dim=f.count("attention_qk_dim"), rope_dim=f.count("attention_qk_rope_dim"), v_dim=f.count("attention_v_dim"),
        dropout=f.dropout("attention_dropout"),
    )
    width = f.count("moe_intermediate_size")
    experts = Experts(
        experts=f.count("num_routed_experts"), topk=f.count("num_experts_per_tok"), ffn=width,
        shared_ffn=width * (f.optional_count("num_shared_experts", minimum=0) or 0),
    )
    mlp, dense = Mlp(ffn=f.count("intermediate_size")), f.count("num_dense_layers", minimum=0)
    order: Order = "sandwich" if f.flag("sandwich_norm", default=False) else "pre"
    kinds = tuple("mla+moe" if i >= dense else "mla" for i in range(f.layers("num_hidden_layers")))
    facts = Facts(hidden=hidden, vocab=f.count("vocab_size"), max_positions=131072, tied=f.flag("tie_word_embeddings", default=False))
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp, order=order))


def minicpm3(f: Fields) -> Model:
    """MiniCPM3: latent attention, dense feed-forward."""
    common(f)
    f.ignore("scale_emb", "scale_depth", "dim_model_base", "mup_denominator")
    hidden = f.count("hidden_size", default=2560)
    value = f.optional_count("v_head_dim")
    count = f.count("num_attention_heads", default=40)
    size = value or f.divides("hidden_size", hidden, "num_attention_heads", count)
    attention = _latent(f, q_rank=768, kv_rank=256, nope=64, rope=32, value=size, heads_default=40)
    mlp = Mlp(ffn=f.count("intermediate_size", default=6400), bias=f.flag("mlp_bias", default=False))
    kinds = ("mla",) * f.layers("num_hidden_layers", default=62)
    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=73448), max_positions=32768, tied=f.flag("tie_word_embeddings", default=True)
    )
    return build(f, facts, kinds, lambda kind: Layer(attention=attention, ffn=mlp, scaled=True))


def deepseek(f: Fields) -> Model:
    """DeepSeekMoE 16B (arXiv:2401.06066; code published with the model): grouped heads and this pattern of experts."""
    d = Defaults(vocab_size=102400)
    return _grouped(f, d, experts=None, shared=None, topk=None, ffn=None, first_dense=0)


def glm4_moe(f: Fields) -> Model:
    """GLM-4.5 and 4.6: grouped heads, half of a head rotated."""
    _predicts_further(f)
    d = Defaults(
        vocab_size=151552, intermediate_size=10944, num_hidden_layers=46, num_attention_heads=96, num_key_value_heads=8,
        max_position_embeddings=131072, partial_rotary_factor=0.5,
    )
    qk_norm = Norm() if f.flag("use_qk_norm", default=False) else None
    return _grouped(f, d, experts=128, shared=1, topk=8, ffn=1408, first_dense=1, qk_norm=qk_norm)


def dots1(f: Fields) -> Model:
    """dots.llm1: grouped heads, norms of q and k."""
    d = Defaults(vocab_size=152064, hidden_size=4608, intermediate_size=10944, num_hidden_layers=62, num_key_value_heads=32)
    return _grouped(f, d, experts=None, shared=None, topk=None, ffn=1408, first_dense=0, qk_norm=Norm(), out_bias=True)


def _grouped(
    f: Fields, d: Defaults, *, experts: int | None, shared: int | None, topk: int | None, ffn: int | None, first_dense: int,
    qk_norm: Norm | None = None, out_bias: bool = False,
) -> Model:
    common(f)
    f.ignore(*_ROUTING)
    hidden = f.count("hidden_size", default=d.hidden_size)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    h = heads(
        f,
        hidden,
        default=d.num_attention_heads,
        kv_default=d.num_key_value_heads,
        partial=d.partial_rotary_factor,
        divides=False,
        floor=True,
    )
    bias = f.flag("attention_bias", default=False)
    width = f.count("moe_intermediate_size") if ffn is None else f.count("moe_intermediate_size", default=ffn)
    routed = Experts(
        experts=f.count("n_routed_experts", "num_local_experts")
        if experts is None
        else f.count("n_routed_experts", "num_local_experts", default=experts),
        topk=f.count("num_experts_per_tok") if topk is None else f.count("num_experts_per_tok", default=topk),
        ffn=width,
        shared_ffn=width * (f.nullable_count("n_shared_experts", default=shared, minimum=0) or 0),
    )
    mlp = Mlp(ffn=f.count("intermediate_size", default=d.intermediate_size))
    window = f.optional_count("sliding_window")
    first = f.count("max_window_layers", default=layers, minimum=0, noted=False)
    spans = windows(f, layers, derived=tuple("sliding" if window and i >= first else "full" for i in range(layers)))
    sparse = _kinds(f, "", layers, first_dense)
    dropout = f.dropout("attention_dropout")

    def layer(kind: str) -> Layer:
        attention = Attention(
            heads=h.heads,
            kv_heads=h.kv_heads,
            head_dim=h.head_dim,
            rope_dim=h.rope_dim,
            window=window if kind.startswith("sliding") else None,
            qkv_bias=bias,
            out_bias=bias and out_bias,
            qk_norm=qk_norm,
            dropout=dropout,
        )
        return Layer(attention=attention, ffn=routed if kind.endswith("+moe") else mlp)

    facts = Facts(
        hidden=hidden, vocab=f.count("vocab_size", default=d.vocab_size), max_positions=d.max_position_embeddings,
        tied=f.flag("tie_word_embeddings", default=False),
    )
    return build(f, facts, tuple(span + moe for span, moe in zip(spans, sparse, strict=True)), layer)


FAMILIES = {
    "deepseek": deepseek,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "kimi_k2": deepseek_v3,
    "minicpm3": minicpm3,
    "glm4_moe": glm4_moe,
    "deepseek_v32": deepseek_v32,
    "glm_moe_dsa": glm_moe_dsa,
    "dots1": dots1,
    "pangu_ultra_moe": pangu_ultra_moe,
}
