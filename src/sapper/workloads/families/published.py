"""Families whose code is published with the model and not in the Transformers library: Baichuan, InternLM, Aquila, Yi, MiniCPM.

There is no config class of the library to take defaults from, so the sizes must be given.
"""

from __future__ import annotations

from sapper.workloads.decoder import Attention, Decoder, Layer, Mlp
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import common, positions


def _llama_like(
    f: Fields, *, qkv_bias: bool = False, out_bias: bool = False, fused: str | None = None, out: str = "o_proj", rope: bool = True,
    tied: bool = False, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"), scaled: bool = False,
) -> Model:
    common(f)
    hidden, count = f.count("hidden_size"), f.count("num_attention_heads")
    kv = f.optional_count("num_key_value_heads") or count
    size = f.optional_count("head_dim") or f.divides("hidden_size", hidden, "num_attention_heads", count)
    f.divides("num_attention_heads", count, "num_key_value_heads", kv)
    attention = Attention(
        heads=count, kv_heads=kv, head_dim=size, rope_dim=size if rope else 0, qkv_bias=qkv_bias, out_bias=out_bias, fused=fused, out=out,
        dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(ffn=f.count("intermediate_size"), names=names)
    decoder = Decoder(
        hidden=hidden, vocab=f.count("vocab_size"), layer_types=("full",) * f.layers("num_hidden_layers"),
        layers={"full": Layer(attention=attention, ffn=mlp, scaled=scaled)}, tied=f.flag("tie_word_embeddings", default=tied),
    )
    return decoder.model(f, max_positions=positions(f, f.optional_count("model_max_length")))


def baichuan(f: Fields) -> Model:
    """Baichuan and Baichuan 2: q, k and v in ``W_pack``; 7B rotates; 13B, whose configs have a
    ``model_max_length`` and no ``max_position_embeddings``, uses ALiBi."""
    f.ignore("z_loss_weight", "gradient_checkpointing", "user_token_id", "assistant_token_id", "hidden_dropout", "_from_model_config")
    return _llama_like(f, fused="W_pack", rope=f.given("max_position_embeddings"))


def internlm(f: Fields) -> Model:
    """InternLM 7B and 20B: biases on q, k, v and the output where ``bias`` says so."""
    f.ignore("rotary", "attn_implementation")
    bias = f.flag("bias", default=True)
    return _llama_like(f, qkv_bias=bias, out_bias=bias)


def internlm2(f: Fields) -> Model:
    """InternLM2: grouped heads in ``wqkv``."""
    f.ignore("attn_implementation", "rotary")
    bias = f.flag("bias", default=True)
    return _llama_like(f, qkv_bias=bias, out_bias=bias, fused="wqkv", out="wo", names=("w1", "w3", "w2"))


def internlm3(f: Fields) -> Model:
    """InternLM3: grouped heads with a head dim of its own."""
    qkv = f.flag("attention_bias", "qkv_bias", default=False)
    bias = f.flag("mlp_bias", "bias", default=False)
    if bias:
        f.only("bias", False)
        f.only("mlp_bias", False)
    return _llama_like(f, qkv_bias=qkv)


def plain(f: Fields) -> Model:
    """Aquila and Yi: Llama's arithmetic under a name of its own."""
    return _llama_like(f)


def minicpm(f: Fields) -> Model:
    """MiniCPM 1 and 2B: Llama with constant multipliers and tied embeddings."""
    f.ignore("scale_emb", "scale_depth", "dim_model_base")
    f.only("num_experts", 0)
    return _llama_like(f, tied=True, scaled=True)


FAMILIES = {
    "baichuan": baichuan,
    "internlm": internlm,
    "internlm2": internlm2,
    "internlm3": internlm3,
    "aquila": plain,
    "Yi": plain,
    "minicpm": minicpm,
}
