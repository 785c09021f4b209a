"""Llama and the dense families that are read like it.

Each family differs from Llama (arXiv:2302.13971, section 2.2) by a few facts, which its reader states: where its norms
stand, which projections have a bias, whether the feed-forward is gated. Defaults are those of the Transformers library's
config classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sapper.workloads.decoder import Attention, Decoder, Layer, Mlp, Norm, Order
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import alternating, common, heads, positions, windows


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a config class of the library takes for a field that is absent."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    partial_rotary_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Facts of a family that its configs do not carry."""

    norm: Norm = field(default_factory=Norm)
    order: Order = "pre"
    gated: bool = True
    head_dim: bool = True
    """Whether its configs have a ``head_dim``."""
    divides: bool = True
    qk_norm: Norm | None = None
    qk_norm_over: str = "head"
    scaled: bool = False
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


def dense(
    f: Fields,
    d: Defaults,
    shape: Shape,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    head_bias: bool = False,
    layer_types: tuple[str, ...] | None = None,
    window: int | None = None,
    no_rope: frozenset[str] = frozenset(),
    dropout: float = 0.0,
    embed_dropout: float = 0.0,
    fused_mlp: bool = False,
    fused_qkv: str | None = None,
) -> Model:
    """The model of a dense family; ``layer_types`` of ``sliding`` and ``full`` layers, ``no_rope`` those without rotation."""
    common(f)
    hidden = f.count("hidden_size", default=d.hidden_size)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    h = heads(
        f, hidden, default=d.num_attention_heads, kv_default=d.num_key_value_heads, dim_default=d.head_dim, dim=shape.head_dim,
        partial=d.partial_rotary_factor, divides=shape.divides,
    )
    mlp = Mlp(
        ffn=f.count("intermediate_size", default=d.intermediate_size), gated=shape.gated, bias=mlp_bias, fused=fused_mlp, names=shape.names
    )
    kinds = layer_types or ("full",) * layers
    attention_dropout = f.dropout("attention_dropout")

    def layer(kind: str) -> Layer:
        attention = Attention(
            heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=0 if kind in no_rope else h.rope_dim,
            window=window if kind.startswith("sliding") else None, qkv_bias=qkv_bias, out_bias=out_bias, dropout=attention_dropout,
            qk_norm=shape.qk_norm, qk_norm_over=shape.qk_norm_over, fused=fused_qkv,  # type: ignore[arg-type]
        )
        return Layer(attention=attention, ffn=mlp, norm=shape.norm, order=shape.order, dropout=dropout, scaled=shape.scaled)

    decoder = Decoder(
        hidden=hidden, vocab=f.count("vocab_size", default=d.vocab_size), layers={kind: layer(kind) for kind in dict.fromkeys(kinds)},
        layer_types=kinds, final_norm=shape.norm, tied=f.flag("tie_word_embeddings", default=d.tie_word_embeddings), head_bias=head_bias,
        embed_dropout=embed_dropout,
    )
    return decoder.model(f, max_positions=positions(f, d.max_position_embeddings))


def llama(f: Fields) -> Model:
    """Llama 1-3, CodeLlama, Yi, DeepSeek LLM, SmolLM, ..."""
    bias = f.flag("attention_bias", default=False)
    return dense(f, Defaults(), Shape(), qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias", default=False))


def mistral(f: Fields) -> Model:
    """Mistral 7B and later: a sliding window on every layer where the config gives one."""
    d = Defaults(intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=131072)
    return _windowed(f, d, f.nullable_count("sliding_window", default=4096))


def ministral(f: Fields) -> Model:
    """Ministral 8B: sliding and full layers in the order of ``layer_types``."""
    f.count("head_dim")  # the library has no default that runs
    d = Defaults(intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=131072)
    return _windowed(f, d, f.nullable_count("sliding_window", default=4096))


def ministral3(f: Fields) -> Model:
    """Ministral 3 (language model)."""
    d = Defaults(
        vocab_size=131072,
        intermediate_size=14336,
        num_hidden_layers=34,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=262144,
    )
    return _windowed(f, d, f.nullable_count("sliding_window", default=None), divides=False)


def _windowed(f: Fields, d: Defaults, window: int | None, *, divides: bool = False) -> Model:
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    kinds = windows(f, layers, derived=("sliding" if window else "full",) * layers)
    return dense(f, d, Shape(divides=divides), layer_types=kinds, window=window)


def granite(f: Fields) -> Model:
    """IBM Granite 3: Llama with constant multipliers."""
    f.ignore("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier")
    bias = f.flag("attention_bias", default=False)
    shape = Shape(scaled=True)
    return dense(f, Defaults(), shape, qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias", default=False))


def smollm3(f: Fields) -> Model:
    """SmolLM3: every fourth layer without rotary embedding."""
    d = Defaults(
        vocab_size=128256,
        hidden_size=2048,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    interval = f.count("no_rope_layer_interval", default=4, noted=False)
    rope = f.numbers("no_rope_layers", default=None) or tuple(int((i + 1) % interval != 0) for i in range(layers))
    if len(rope) != layers:
        raise f.wrong_length("no_rope_layers", len(rope), layers)
    window = f.optional_count("sliding_window") if f.flag("use_sliding_window", default=False) else None
    f.ignore("sliding_window")
    derived = tuple("sliding" if window and not rotate else "full" for rotate in rope)
    kinds = tuple(kind if rotate else f"{kind}-nope" for kind, rotate in zip(windows(f, layers, derived=derived), rope, strict=True))
    bias = f.flag("attention_bias", default=False)
    return dense(
        f, d, Shape(), qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias", default=False), layer_types=kinds, window=window,
        no_rope=frozenset({"full-nope", "sliding-nope"}),
    )


def olmo(f: Fields) -> Model:
    """OLMo 1: layer norms without weights (arXiv:2402.00838, section 2)."""
    f.ignore("clip_qkv")
    bias = f.flag("attention_bias", default=False)
    shape = Shape(norm=Norm(style="layer", affine=False))
    return dense(f, Defaults(vocab_size=50304), shape, qkv_bias=bias, out_bias=bias)


_OLMO2 = Shape(order="post", qk_norm=Norm(), qk_norm_over="all")


def olmo2(f: Fields) -> Model:
    """OLMo 2: norms on the outputs of attention and feed-forward, and on all of q and k (arXiv:2501.00656)."""
    bias = f.flag("attention_bias", default=False)
    return dense(f, Defaults(vocab_size=50304), _OLMO2, qkv_bias=bias, out_bias=bias)


def olmo3(f: Fields) -> Model:
    """OLMo 3: three sliding layers, then a full one."""
    d = Defaults(vocab_size=50304)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    kinds = windows(f, layers, derived=alternating(layers, 4))
    bias = f.flag("attention_bias", default=False)
    return dense(
        f, d, _OLMO2, qkv_bias=bias, out_bias=bias, layer_types=kinds, window=f.nullable_count("sliding_window", default=4096),
    )


def stablelm(f: Fields) -> Model:
    """StableLM 2 and 3B."""
    d = Defaults(
        vocab_size=50304, hidden_size=2560, intermediate_size=6912, num_key_value_heads=32, max_position_embeddings=4096,
        partial_rotary_factor=0.25,
    )
    shape = Shape(
        norm=Norm(style="layer"), order="parallel" if f.flag("use_parallel_residual", default=False) else "pre", head_dim=False,
        qk_norm=Norm(style="layer", bias=False) if f.flag("qk_layernorm", default=False) else None, qk_norm_over="each",
    )
    return dense(f, d, shape, qkv_bias=f.flag("use_qkv_bias", default=False), dropout=f.dropout("hidden_dropout"))


def starcoder2(f: Fields) -> Model:
    """StarCoder2: layer norms, plain feed-forward, biases."""
    d = Defaults(
        vocab_size=49152, hidden_size=3072, intermediate_size=12288, num_hidden_layers=30, num_attention_heads=24, num_key_value_heads=2,
        max_position_embeddings=4096, tie_word_embeddings=True,
    )
    window = f.nullable_count("sliding_window", default=None)
    bias = f.flag("use_bias", default=True)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    return dense(
        f, d, Shape(norm=Norm(style="layer"), gated=False, names=("-", "c_fc", "c_proj")), qkv_bias=bias, out_bias=bias,
        mlp_bias=bias, layer_types=("sliding" if window else "full",) * layers, window=window, dropout=f.dropout("residual_dropout"),
        embed_dropout=f.dropout("embedding_dropout"),
    )


_COHERE = Defaults(
    vocab_size=256000,
    hidden_size=8192,
    intermediate_size=22528,
    num_hidden_layers=40,
    num_attention_heads=64,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)


def cohere(f: Fields) -> Model:
    """Command R: attention and feed-forward in parallel on one layer norm without bias."""
    f.ignore("logit_scale")
    norm = Norm(style="layer", bias=False)
    qk_norm = norm if f.flag("use_qk_norm", default=False) else None
    bias = f.flag("attention_bias", default=False)
    return dense(f, _COHERE, Shape(norm=norm, order="parallel", qk_norm=qk_norm, qk_norm_over="each"), qkv_bias=bias, out_bias=bias)


def cohere2(f: Fields) -> Model:
    """Command R7B and A: three sliding layers with rotary embedding, then a full one without."""
    f.ignore("logit_scale", "order_of_interleaved_layers", "position_embedding_type", "rotary_pct", "use_embedding_sharing")
    f.only("use_gated_activation", True)
    f.only("use_parallel_block", True)
    f.only("use_parallel_embedding", False)
    f.only("use_qk_norm", False)
    layers = f.layers("num_hidden_layers", default=_COHERE.num_hidden_layers)
    period = f.count("sliding_window_pattern", default=4, noted=False)
    kinds = windows(f, layers, derived=alternating(layers, period))
    bias = f.flag("attention_bias", default=False)
    return dense(
        f, _COHERE, Shape(norm=Norm(style="layer", bias=False), order="parallel"), qkv_bias=bias, out_bias=bias, layer_types=kinds,
        window=f.count("sliding_window", default=4096), no_rope=frozenset({"full"}),
    )


def arcee(f: Fields) -> Model:
    """Arcee AFM: Llama with a plain feed-forward and squared ReLU."""
    d = Defaults(hidden_size=2560, intermediate_size=18432, max_position_embeddings=4096)
    bias = f.flag("attention_bias", default=False)
    return dense(f, d, Shape(gated=False), qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias", default=False))


def nemotron(f: Fields) -> Model:
    """Nemotron 3 and 4, Minitron: plain feed-forward with squared ReLU, layer norm with weight and bias."""
    d = Defaults(
        vocab_size=256000, hidden_size=6144, intermediate_size=24576, num_attention_heads=48, max_position_embeddings=4096,
        partial_rotary_factor=0.5,
    )
    bias = f.flag("attention_bias", default=False)
    shape = Shape(norm=Norm(style="layer"), gated=False, divides=False)
    return dense(f, d, shape, qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias", default=False))


def seed_oss(f: Fields) -> Model:
    """ByteDance Seed-OSS."""
    d = Defaults(
        vocab_size=155136, intermediate_size=27648, num_hidden_layers=64, num_attention_heads=80, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=524288,
    )
    return dense(
        f, d, Shape(divides=False), qkv_bias=f.flag("attention_bias", default=True), out_bias=f.flag("attention_out_bias", default=False),
        mlp_bias=f.flag("mlp_bias", default=False), dropout=f.dropout("residual_dropout", default=0.1),
    )


def exaone4(f: Fields) -> Model:
    """EXAONE 4: norms on the outputs, norms of q and k over a head; full layers have no rotary embedding."""
    d = Defaults(vocab_size=102400, intermediate_size=16384, num_key_value_heads=32)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    window = f.nullable_count("sliding_window", default=4096)
    period = f.count("sliding_window_pattern", default=4, minimum=0, noted=False)
    kinds = windows(f, layers, derived=alternating(layers, period if window else 0))
    no_rope = frozenset({"full"}) if window else frozenset()
    return dense(f, d, Shape(order="post", qk_norm=Norm(), divides=False), layer_types=kinds, window=window, no_rope=no_rope)


def hunyuan_dense(f: Fields) -> Model:
    """Hunyuan dense (0.5B-7B): norms of q and k over a head."""
    f.count("head_dim")  # the library has no default that runs
    f.ignore("eod_token_id", "im_end_id", "im_newline_id", "im_start_id", "text_start_id", "text_end_id")
    bias = f.flag("attention_bias", default=False)
    return dense(f, Defaults(vocab_size=290943), Shape(qk_norm=Norm(), divides=False), qkv_bias=bias, out_bias=bias)


def ernie(f: Fields) -> Model:
    """ERNIE 4.5 dense."""
    d = Defaults(
        vocab_size=103424, hidden_size=1024, intermediate_size=3072, num_hidden_layers=18, num_attention_heads=16, num_key_value_heads=2,
        head_dim=128, max_position_embeddings=131072, tie_word_embeddings=True,
    )
    bias = f.flag("use_bias", default=False)
    return dense(f, d, Shape(divides=False), qkv_bias=bias, out_bias=bias, mlp_bias=bias)


FAMILIES = {
    "llama": llama,
    "mistral": mistral,
    "ministral": ministral,
    "ministral3": ministral3,
    "granite": granite,
    "smollm3": smollm3,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "cohere": cohere,
    "cohere2": cohere2,
    "arcee": arcee,
    "nemotron": nemotron,
    "seed_oss": seed_oss,
    "exaone4": exaone4,
    "hunyuan_v1_dense": hunyuan_dense,
    "ernie4_5": ernie,
}
