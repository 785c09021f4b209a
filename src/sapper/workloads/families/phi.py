"""Phi 1 to 4."""

from __future__ import annotations

from sapper.workloads.decoder import Attention, Decoder, Layer, Mlp, Norm
from sapper.workloads.families.llama import Defaults, Shape, dense
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import common, heads, positions


def phi(f: Fields) -> Model:
    """Phi-1, 1.5 and 2: attention and feed-forward in parallel on one layer norm, biases everywhere."""
    common(f)
    hidden = f.count("hidden_size", default=2048)
    h = heads(f, hidden, default=32, partial=0.5)
    norm = Norm(style="layer")
    attention = Attention(
        heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=h.rope_dim, qkv_bias=True, out_bias=True, out="dense",
        qk_norm=norm if f.flag("qk_layernorm", default=False) else None, dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(ffn=f.count("intermediate_size", default=8192), gated=False, bias=True, names=("-", "fc1", "fc2"))
    decoder = Decoder(
        hidden=hidden, vocab=f.count("vocab_size", default=51200), layer_types=("full",) * f.layers("num_hidden_layers", default=24),
        layers={"full": Layer(attention=attention, ffn=mlp, norm=norm, order="parallel", dropout=f.dropout("resid_pdrop"))},
        final_norm=norm, tied=f.flag("tie_word_embeddings", default=False), head_bias=True, embed_dropout=f.dropout("embd_pdrop"),
    )
    return decoder.model(f, max_positions=positions(f, 2048))


def phi3(f: Fields) -> Model:
    """Phi-3, Phi-4: one matrix for q, k and v, one for gate and up."""
    f.ignore("original_max_position_embeddings", "full_attn_mod", "interpolate_factor")
    f.only("attention_bias", False)
    f.only("mlp_bias", False)
    f.only("lm_head_bias", False)
    d = Defaults(vocab_size=32064, hidden_size=3072, intermediate_size=8192, max_position_embeddings=4096)
    window = f.nullable_count("sliding_window", default=None)
    layers = f.layers("num_hidden_layers", default=d.num_hidden_layers)
    return dense(
        f, d, Shape(names=("gate_up_proj", "-", "down_proj")), layer_types=("sliding" if window else "full",) * layers, window=window,
        dropout=f.dropout("resid_pdrop"), embed_dropout=f.dropout("embd_pdrop"), fused_qkv="qkv_proj", fused_mlp=True,
    )


FAMILIES = {"phi": phi, "phi3": phi3}
