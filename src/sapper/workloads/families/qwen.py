"""Qwen 1 to 3, dense and mixture of experts."""

from __future__ import annotations

from sapper.workloads.decoder import Attention, Decoder, Experts, Layer, Mlp, Norm
from sapper.workloads.families.llama import Defaults, Shape, dense
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import Heads, common, heads, positions, windows


def qwen2(f: Fields) -> Model:
    """Qwen1.5, Qwen2, Qwen2.5: biases on q, k and v."""
    d = Defaults(vocab_size=151936, intermediate_size=22016, num_key_value_heads=32, max_position_embeddings=32768)
    return _dense(f, d, Shape(), qkv_bias=True)


def qwen3(f: Fields) -> Model:
    """Qwen3 dense: norms of q and k over a head, no biases."""
    d = Defaults(vocab_size=151936, intermediate_size=22016, num_key_value_heads=32, head_dim=128, max_position_embeddings=32768)
    bias = f.flag("attention_bias", default=False)
    return _dense(f, d, Shape(qk_norm=Norm(), divides=False), qkv_bias=bias, out_bias=bias)


def _dense(f: Fields, d: Defaults, shape: Shape, *, qkv_bias: bool, out_bias: bool = False) -> Model:
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    window, first = _window(f)
    derived = tuple("sliding" if window and i >= first else "full" for i in range(layers))
    kinds = windows(f, layers, derived=derived)
    return dense(f, d, shape, qkv_bias=qkv_bias, out_bias=out_bias, layer_types=kinds, window=window)


def _window(f: Fields) -> tuple[int | None, int]:
    """The sliding window, and the layer from which it is in use."""
    size = f.nullable_count("sliding_window", default=4096, minimum=0, noted=False) or None  # the library writes 0 for none
    first = f.count("max_window_layers", default=28, minimum=0, noted=False)
    return (size if f.flag("use_sliding_window", default=False) else None), first


def qwen2_moe(f: Fields) -> Model:
    """Qwen1.5-MoE and Qwen2-MoE: a gated shared expert beside the routed ones."""
    layers = f.layers("num_hidden_layers", default=24)
    window, first = _window(f)
    derived = tuple("sliding" if window and (i + 1) % 2 and i < first else "full" for i in range(layers))
    h = heads(f, f.count("hidden_size", default=2048), default=16, kv_default=16)
    experts = Experts(
        experts=f.count("num_experts", "num_local_experts", default=60),
        topk=f.count("num_experts_per_tok", default=4),
        ffn=f.count("moe_intermediate_size", default=1408),
        shared_ffn=f.count("shared_expert_intermediate_size", default=5632),
        shared_gate=True,
    )
    bias = f.flag("qkv_bias", default=True)
    return _sparse(f, h, experts, windows(f, layers, derived=derived), window=window, qkv_bias=bias, hidden=2048, ffn=5632)


def qwen3_moe(f: Fields) -> Model:
    """Qwen3-MoE: no shared expert, norms of q and k."""
    f.only("qkv_bias", False)
    f.only("use_qk_norm", True)
    f.only("shared_expert_intermediate_size", 0)
    layers = f.layers("num_hidden_layers", default=24)
    window, _ = _window(f)
    h = heads(f, f.count("hidden_size", default=2048), default=32, kv_default=4, divides=False)
    experts = Experts(
        experts=f.count("num_experts", "num_local_experts", default=128), topk=f.count("num_experts_per_tok", default=8),
        ffn=f.count("moe_intermediate_size", default=768),
    )
    bias = f.flag("attention_bias", default=False)
    kinds = ("sliding" if window else "full",) * layers
    return _sparse(f, h, experts, kinds, window=window, qkv_bias=bias, out_bias=bias, qk_norm=Norm(), hidden=2048, ffn=6144)


def _sparse(
    f: Fields, h: Heads, experts: Experts, kinds: tuple[str, ...], *, window: int | None, hidden: int, ffn: int, qkv_bias: bool,
    out_bias: bool = False, qk_norm: Norm | None = None,
) -> Model:
    common(f)
    _topk_fits(f, experts)
    size = f.count("hidden_size", default=hidden)
    mlp = Mlp(ffn=f.count("intermediate_size", default=ffn))
    step = f.count("decoder_sparse_step", default=1, noted=False)
    dense_layers = set(f.numbers("mlp_only_layers", default=None))
    sparse = tuple(i not in dense_layers and (i + 1) % step == 0 for i in range(len(kinds)))
    layer_types = tuple(f"{kind}+moe" if moe else kind for kind, moe in zip(kinds, sparse, strict=True))
    dropout = f.dropout("attention_dropout")

    def layer(kind: str) -> Layer:
        attention = Attention(
            heads=h.heads,
            kv_heads=h.kv_heads,
            head_dim=h.head_dim,
            rope_dim=h.rope_dim,
            window=window if kind.startswith("sliding") else None,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            qk_norm=qk_norm,
            dropout=dropout,
        )
        return Layer(attention=attention, ffn=experts if kind.endswith("+moe") else mlp)

    decoder = Decoder(
        hidden=size, vocab=f.count("vocab_size", default=151936), layers={kind: layer(kind) for kind in dict.fromkeys(layer_types)},
        layer_types=layer_types, tied=f.flag("tie_word_embeddings", default=False),
    )
    return decoder.model(f, max_positions=positions(f, 32768))


def _topk_fits(f: Fields, experts: Experts) -> None:
    if experts.topk > experts.experts:
        raise f.bad("num_experts_per_tok", experts.topk, f"1 - {experts.experts}")


def qwen(f: Fields) -> Model:
    """Qwen 1 (code published with the model): one matrix for q, k and v with biases; the feed-forward's two inner matrices
    have half of ``intermediate_size`` each."""
    f.ignore(
        "bf16", "fp16", "fp32", "use_flash_attn", "use_dynamic_ntk", "use_logn_attn", "softmax_in_fp32", "rotary_emb_base", "seq_length"
    )
    f.ignore("use_cache_quantization", "use_cache_kernel", "onnx_safe", "emb_dropout_prob", "attn_dropout_prob")
    common(f)
    hidden, count = f.count("hidden_size"), f.count("num_attention_heads")
    channels = f.count("kv_channels", default=128)
    layers = f.layers("num_hidden_layers")
    ffn = f.divides("intermediate_size", f.count("intermediate_size"), "2", 2)
    f.only("no_bias", True)
    f.divides("kv_channels * num_attention_heads", channels * count, "hidden_size", hidden)
    attention = Attention(
        heads=count,
        kv_heads=count,
        head_dim=channels,
        rope_dim=int(channels * f.number("rotary_pct", default=1.0, maximum=1.0, noted=False)),
        qkv_bias=True,
        fused="c_attn",
        out="c_proj",
    )
    decoder = Decoder(
        hidden=hidden, vocab=f.count("vocab_size"), layer_types=("full",) * layers, tied=f.flag("tie_word_embeddings", default=False),
        layers={"full": Layer(attention=attention, ffn=Mlp(ffn=ffn, names=("w2", "w1", "c_proj")))},
    )
    return decoder.model(f, max_positions=positions(f, None))


FAMILIES = {"qwen": qwen, "qwen2": qwen2, "qwen2_moe": qwen2_moe, "qwen3": qwen3, "qwen3_moe": qwen3_moe}
