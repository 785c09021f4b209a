"""GPT-2 and its line: learned positions or rotation, layer norms, plain feed-forward, biases."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.workloads.decoder import Attention, Decoder, Layer, Mlp, Norm, Order
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import common, positions, rotated

_LAYER = Norm(style="layer")
_GPT2_IGNORED = (
    "n_ctx",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_proj_to_labels",
    "summary_first_dropout",
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    "inference_runner",
    "pre_allocate_kv_cache",
    "max_sequence_length",
    "max_batch_size",
    "pad_key_length",
    "validate_runner_input",
    "n_embed",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model of this line."""

    hidden: int
    layers: int
    heads: int
    vocab: int
    head_dim: int


def _sizes(f: Fields, *, hidden: int, layers: int, heads: int, vocab: int) -> Sizes:
    h = f.count("n_embd", "hidden_size", default=hidden)
    a = f.count("n_head", "num_attention_heads", default=heads)
    return Sizes(
        hidden=h, heads=a, layers=f.layers("n_layer", "num_hidden_layers", default=layers), vocab=f.count("vocab_size", default=vocab),
        head_dim=f.divides("n_embd", h, "n_head", a),
    )


def _model(
    f: Fields, s: Sizes, layer: Layer, *, tied: bool, learned: int = 0, embed_dropout: float = 0.0, head_bias: bool = False,
    embed_norm: Norm | None = None, max_positions: int | None,
) -> Model:
    decoder = Decoder(
        hidden=s.hidden,
        vocab=s.vocab,
        layers={"full": layer},
        layer_types=("full",) * s.layers,
        final_norm=_LAYER,
        tied=tied,
        head_bias=head_bias,
        positions=learned,
        embed_dropout=embed_dropout,
        embed_norm=embed_norm,
    )
    return decoder.model(f, max_positions=max_positions)


def gpt2(f: Fields) -> Model:
    """GPT-2, GPT-3 and Megatron's GPT: learned positions, one matrix for q, k and v."""
    return _gpt2(f, kv_heads=None)


def gpt_bigcode(f: Fields) -> Model:
    """SantaCoder and StarCoder: GPT-2 with one key-value head."""
    heads = f.count("n_head", "num_attention_heads", default=12)
    kv_heads = 1 if f.flag("multi_query", default=True) else heads
    if (f.optional_count("num_key_value_heads") or kv_heads) != kv_heads:
        raise f.bad("num_key_value_heads", f.raw["num_key_value_heads"], str(kv_heads))
    return _gpt2(f, kv_heads=kv_heads)


def _gpt2(f: Fields, *, kv_heads: int | None) -> Model:
    common(f, act="activation_function")
    f.ignore(*_GPT2_IGNORED)
    f.only("add_cross_attention", False)
    s = _sizes(f, hidden=768, layers=12, heads=12, vocab=50257)
    length = f.count("n_positions", "max_position_embeddings", default=1024)
    residual = f.dropout("resid_pdrop", default=0.1)
    attention = Attention(
        heads=s.heads, kv_heads=kv_heads or s.heads, head_dim=s.head_dim, qkv_bias=True, out_bias=True, fused="c_attn", out="c_proj",
        dropout=f.dropout("attn_pdrop", default=0.1),
    )
    mlp = Mlp(ffn=f.optional_count("n_inner") or 4 * s.hidden, gated=False, bias=True, names=("-", "c_fc", "c_proj"))
    layer = Layer(attention=attention, ffn=mlp, norm=_LAYER, dropout=residual)
    return _model(
        f, s, layer, tied=f.flag("tie_word_embeddings", default=True), learned=length, embed_dropout=f.dropout("embd_pdrop", default=0.1),
        max_positions=length,
    )


def gpt_neo(f: Fields) -> Model:
    """GPT-Neo: global and local attention in turn."""
    common(f, act="activation_function")
    f.ignore("num_labels", "gradient_checkpointing", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    f.ignore("summary_first_dropout", "attention_layers")
    hidden, heads = f.count("hidden_size", default=2048), f.count("num_heads", "num_attention_heads", default=16)
    layers = f.layers("num_layers", "num_hidden_layers", default=24)
    kinds = _neo_types(f, layers)
    dropout, residual = f.dropout("attention_dropout"), f.dropout("resid_dropout")
    window, length = f.count("window_size", default=256), f.count("max_position_embeddings", default=2048)
    mlp = Mlp(ffn=f.optional_count("intermediate_size") or 4 * hidden, gated=False, bias=True, names=("-", "c_fc", "c_proj"))
    size = f.divides("hidden_size", hidden, "num_heads", heads)

    def layer(kind: str) -> Layer:
        attention = Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=size,
            out_bias=True,
            out="out_proj",
            dropout=dropout,
            window=window if kind == "sliding" else None,
        )
        return Layer(attention=attention, ffn=mlp, norm=_LAYER, dropout=residual)

    decoder = Decoder(
        hidden=hidden,
        vocab=f.count("vocab_size", default=50257),
        layers={kind: layer(kind) for kind in dict.fromkeys(kinds)},
        layer_types=kinds,
        final_norm=_LAYER,
        tied=f.flag("tie_word_embeddings", default=True),
        positions=length,
        embed_dropout=f.dropout("embed_dropout"),
    )
    return decoder.model(f, max_positions=length)


def _neo_types(f: Fields, layers: int) -> tuple[str, ...]:
    """``attention_types`` is a list of [[type, ...], repeats]."""
    f.ignore("attention_types")
    given = f.raw.get("attention_types")
    if given is None:
        given = [[["global", "local"], 12]]
    kinds: list[str] = []
    for entry in given if isinstance(given, list) else [None]:
        names, repeats = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if (
            not isinstance(names, list) or not names or any(name not in ("global", "local") for name in names)
            or isinstance(repeats, bool) or not isinstance(repeats, int) or not 0 < repeats <= layers
        ):
            raise f.bad("attention_types", given, '[[["global", "local"], 12]]')
        kinds += names * repeats
    if len(kinds) != layers:
        raise f.wrong_length("attention_types", len(kinds), layers)
    return tuple("sliding" if kind == "local" else "full" for kind in kinds)


def gpt_neox(f: Fields) -> Model:
    """GPT-NeoX-20B and Pythia: attention and feed-forward in parallel on a norm each, a quarter of a head rotated."""
    common(f)
    f.ignore("rotary_emb_base", "rotary_pct", "multiple_of", "attention_probs_dropout_prob", "hidden_dropout_prob")
    hidden, heads = f.count("hidden_size", default=6144), f.count("num_attention_heads", default=64)
    size = f.divides("hidden_size", hidden, "num_attention_heads", heads)
    bias = f.flag("attention_bias", default=True)
    share = f.number("rotary_pct", default=0.25, maximum=1.0, noted=False)
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=size, rope_dim=rotated(f, size, share), qkv_bias=bias, out_bias=bias, fused="query_key_value",
        out="dense", dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(
        ffn=f.count("intermediate_size", default=24576), gated=False, bias=True, names=("-", "dense_h_to_4h", "dense_4h_to_h"),
    )
    order: Order = "parallel-2" if f.flag("use_parallel_residual", default=True) else "pre"
    layer = Layer(attention=attention, ffn=mlp, norm=_LAYER, order=order, dropout=f.dropout("hidden_dropout"))
    s = Sizes(
        hidden=hidden,
        heads=heads,
        head_dim=size,
        layers=f.layers("num_hidden_layers", default=44),
        vocab=f.count("vocab_size", default=50432),
    )
    return _model(f, s, layer, tied=f.flag("tie_word_embeddings", default=False), max_positions=positions(f, 2048))


def gptj(f: Fields) -> Model:
    """GPT-J: parallel on one norm, 64 dims of a head rotated, a bias on the head."""
    return _gptj(f, fused=None)


def codegen(f: Fields) -> Model:
    """CodeGen: GPT-J with one matrix for q, k and v."""
    return _gptj(f, fused="qkv_proj")


def _gptj(f: Fields, *, fused: str | None) -> Model:
    common(f, act="activation_function")
    f.ignore(*_GPT2_IGNORED, "rotary", "scale_attn_weights")
    s = _sizes(f, hidden=4096, layers=28, heads=16, vocab=50400)
    attention = Attention(
        heads=s.heads, kv_heads=s.heads, head_dim=s.head_dim, rope_dim=f.optional_count("rotary_dim") or 64, fused=fused, out="out_proj",
        dropout=f.dropout("attn_pdrop"),
    )
    mlp = Mlp(ffn=f.optional_count("n_inner") or 4 * s.hidden, gated=False, bias=True, names=("-", "fc_in", "fc_out"))
    layer = Layer(attention=attention, ffn=mlp, norm=_LAYER, order="parallel", dropout=f.dropout("resid_pdrop"))
    return _model(
        f, s, layer, tied=f.flag("tie_word_embeddings", default=False), head_bias=True, embed_dropout=f.dropout("embd_pdrop"),
        max_positions=positions(f, 2048, "n_positions", "max_position_embeddings"),
    )


_OPT_OFFSET = 2
"""OPT's position table has two rows more than positions (a relic of fairseq that the library keeps)."""


def opt(f: Fields) -> Model:
    """OPT (arXiv:2205.01068); 350M has its norms after the residual and a narrower embedding."""
    common(f, act="activation_function")
    f.ignore("layerdrop", "attention_window", "activation_dropout", "use_bias", "fused_layer_norm", "ffn_dropout", "init_device")
    hidden, heads = f.count("hidden_size", default=768), f.count("num_attention_heads", default=12)
    size = f.divides("hidden_size", hidden, "num_attention_heads", heads)
    bias, before = f.flag("enable_bias", default=True), f.flag("do_layer_norm_before", default=True)
    norm = Norm(style="layer", affine=f.flag("layer_norm_elementwise_affine", default=True))
    last_norm = not f.flag("_remove_final_layer_norm", default=False) and before
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=size, qkv_bias=bias, out_bias=bias, out="out_proj", dropout=f.dropout("attention_dropout"),
    )
    dropout, length = f.dropout("dropout", default=0.1), f.count("max_position_embeddings", default=2048)
    mlp = Mlp(ffn=f.count("ffn_dim", default=3072), gated=False, bias=bias, names=("-", "fc1", "fc2"))
    embed = f.optional_count("word_embed_proj_dim")
    decoder = Decoder(
        hidden=hidden, vocab=f.count("vocab_size", default=50272), layer_types=("full",) * f.layers("num_hidden_layers", default=12),
        layers={"full": Layer(attention=attention, ffn=mlp, norm=norm, order="pre" if before else "after", dropout=dropout)},
        final_norm=norm if last_norm else None,
        tied=f.flag("tie_word_embeddings", default=True), positions=length + _OPT_OFFSET, embed_size=embed if embed != hidden else None,
    )
    return decoder.model(f, max_positions=length)


def bloom(f: Fields) -> Model:
    """BLOOM (arXiv:2211.05100): ALiBi, a norm on the embedding."""
    common(f)
    f.ignore(
        "apply_residual_connection_post_layernorm", "slow_but_exact", "skip_bias_add", "skip_bias_add_qkv", "attention_softmax_in_fp32"
    )
    f.ignore("bias_dropout_fusion", "masked_softmax_fusion", "seq_length", "n_inner", "offset_alibi", "unk_token_id", "hidden_act")
    hidden = f.count("hidden_size", "n_embed", default=64)
    heads = f.count("n_head", "num_attention_heads", default=8)
    size = f.divides("hidden_size", hidden, "n_head", heads)
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=size, qkv_bias=True, out_bias=True, fused="query_key_value", out="dense",
        dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(ffn=4 * hidden, gated=False, bias=True, names=("-", "dense_h_to_4h", "dense_4h_to_h"))
    layer = Layer(attention=attention, ffn=mlp, norm=_LAYER, dropout=f.dropout("hidden_dropout"))
    s = Sizes(
        hidden=hidden, heads=heads, head_dim=size, layers=f.layers("n_layer", "num_hidden_layers", default=2),
        vocab=f.count("vocab_size", default=250880),
    )
    return _model(f, s, layer, tied=f.flag("tie_word_embeddings", default=True), embed_norm=_LAYER, max_positions=None)


def mpt(f: Fields) -> Model:
    """MPT: ALiBi, no biases, feed-forward of four times the width (the library fixes it)."""
    f.ignore("init_device", "logit_scale", "norm_type", "verbose", "embedding_fraction", "init_config", "use_pad_tok_in_ffn", "ffn_config")
    f.ignore("layer_norm_epsilon", "learned_pos_emb", "max_position_embeddings")
    f.only("expansion_ratio", 4)
    f.only("no_bias", True)
    hidden, heads = f.count("d_model", "hidden_size", default=2048), f.count("n_heads", "num_attention_heads", default=16)
    size = f.divides("d_model", hidden, "n_heads", heads)
    inner, dropout = f.table("attn_config"), 0.0
    if inner is not None:
        inner.ignore(
            "attn_impl", "clip_qkv", "softmax_scale", "attn_uses_sequence_id", "alibi_bias_max", "attn_pdrop", "rope", "rope_config"
        )
        inner.only("attn_type", "multihead_attention")
        inner.only("prefix_lm", False)
        inner.only("qk_ln", False)
        inner.only("alibi", True)
        dropout = inner.dropout("attn_pdrop")
        inner.finish()
    norm = Norm(style="layer", bias=False)
    attention = Attention(heads=heads, kv_heads=heads, head_dim=size, fused="Wqkv", out="out_proj", dropout=dropout)
    mlp = Mlp(ffn=4 * hidden, gated=False)
    f.dropout("resid_pdrop")
    f.dropout("emb_pdrop")
    decoder = Decoder(
        hidden=hidden,
        vocab=f.count("vocab_size", default=50368),
        layer_types=("full",) * f.layers("n_layers", "num_hidden_layers", default=24),
        layers={"full": Layer(attention=attention, ffn=mlp, norm=norm, dropout=dropout)},
        final_norm=norm,
        tied=f.flag("tie_word_embeddings", default=True),
    )
    return decoder.model(f, max_positions=positions(f, 2048, "max_seq_len"))


def falcon(f: Fields) -> Model:
    """Falcon in its three shapes: 7B (one key-value head, parallel on one norm), 40B and 180B (grouped heads, parallel on a
    norm each), RW (ALiBi, one after the other)."""
    common(f, act="activation")
    f.ignore("apply_residual_connection_post_layernorm", "hidden_act")
    hidden = f.count("hidden_size", "n_embed", default=4544)
    heads = f.count("num_attention_heads", "n_head", default=71)
    size = f.divides("hidden_size", hidden, "num_attention_heads", heads)
    new, multi = f.flag("new_decoder_architecture", default=False), f.flag("multi_query", default=True)
    given = f.optional_count("num_kv_heads", "n_head_kv")
    kv_heads = (given or heads) if new or not multi else 1
    if new:
        f.divides("num_attention_heads", heads, "num_kv_heads", kv_heads)
    elif kv_heads not in (1, heads):
        raise f.bad("num_kv_heads", kv_heads, str(heads))
    bias, parallel = f.flag("bias", default=False), f.flag("parallel_attn", default=True)
    norms = f.optional_count("num_ln_in_parallel_attn")
    norms = (2 if new else 1) if norms is None else norms
    order: Order = ("parallel-2" if norms == 2 else "parallel") if parallel else "pre"
    alibi = f.flag("alibi", default=False)
    attention = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=size, rope_dim=0 if alibi else rotated(f, size), qkv_bias=bias, out_bias=bias,
        fused="query_key_value", out="dense", dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(
        ffn=f.optional_count("ffn_hidden_size") or 4 * hidden, gated=False, bias=bias, names=("-", "dense_h_to_4h", "dense_4h_to_h"),
    )
    layer = Layer(attention=attention, ffn=mlp, norm=_LAYER, order=order, dropout=f.dropout("hidden_dropout"))
    s = Sizes(
        hidden=hidden, heads=heads, head_dim=size, layers=f.layers("num_hidden_layers", "n_layer", default=32),
        vocab=f.count("vocab_size", default=65024),
    )
    return _model(f, s, layer, tied=f.flag("tie_word_embeddings", default=True), max_positions=positions(f, 2048))


FAMILIES = {
    "gpt2": gpt2, "gpt_bigcode": gpt_bigcode, "gpt_neo": gpt_neo, "gpt_neox": gpt_neox, "gptj": gptj, "codegen": codegen, "opt": opt,
    "bloom": bloom, "mpt": mpt, "falcon": falcon, "RefinedWeb": falcon, "RefinedWebModel": falcon,
}
