"""ChatGLM 2 and 3, GLM-4, GLM-4-0414."""

from __future__ import annotations

from sapper.workloads.decoder import Attention, Decoder, Layer, Mlp, Norm
from sapper.workloads.families.llama import Defaults, Shape, dense
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import positions

_GLM = Defaults(
    vocab_size=151552, intermediate_size=13696, num_hidden_layers=40, num_key_value_heads=2, head_dim=128, max_position_embeddings=131072,
    partial_rotary_factor=0.5,
)


def glm(f: Fields) -> Model:
    """GLM-4-9B as the library has it."""
    return _dense(f, Shape(divides=False, names=("gate_up_proj", "-", "down_proj")), bias=True)


def glm4(f: Fields) -> Model:
    """GLM-4-0414 (9B, 32B): norms before and on the outputs."""
    return _dense(f, Shape(order="sandwich", divides=False, names=("gate_up_proj", "-", "down_proj")), bias=True)


def _dense(f: Fields, shape: Shape, *, bias: bool) -> Model:
    return dense(f, _GLM, shape, qkv_bias=f.flag("attention_bias", default=bias), fused_mlp=True)


def chatglm(f: Fields) -> Model:
    """ChatGLM2, ChatGLM3 and GLM-4 in the code published with them: grouped heads, one matrix for q, k and v."""
    f.ignore(
        "apply_query_key_layer_scaling", "attention_softmax_in_fp32", "bias_dropout_fusion", "fp32_residual_connection", "layernorm_epsilon"
    )
    f.ignore(
        "quantization_bit", "pre_seq_len", "prefix_projection", "rope_ratio", "apply_residual_connection_post_layernorm", "interleaved_qkv"
    )
    f.ignore("classifier_dropout", "kv_channels", "multi_query_group_num", "original_rope", "_attn_implementation")
    f.only("post_layer_norm", True)
    f.only("rmsnorm", True)
    hidden, layers = f.count("hidden_size"), f.layers("num_layers", "num_hidden_layers")
    count, size = f.count("num_attention_heads"), f.count("kv_channels")
    kv = f.count("multi_query_group_num") if f.flag("multi_query_attention", default=False) else count
    f.divides("num_attention_heads", count, "multi_query_group_num", kv)
    bias = f.flag("add_bias_linear", default=False)
    attention = Attention(
        heads=count, kv_heads=kv, head_dim=size, rope_dim=size // 2, qkv_bias=f.flag("add_qkv_bias", default=False) or bias, out_bias=bias,
        fused="query_key_value", out="dense", dropout=f.dropout("attention_dropout"),
    )
    mlp = Mlp(ffn=f.count("ffn_hidden_size"), bias=bias, fused=True, names=("dense_h_to_4h", "-", "dense_4h_to_h"))
    decoder = Decoder(
        hidden=hidden, vocab=f.count("padded_vocab_size", "vocab_size"), layer_types=("full",) * layers, final_norm=Norm(),
        layers={"full": Layer(attention=attention, ffn=mlp, dropout=f.dropout("hidden_dropout"))},
        tied=f.flag("tie_word_embeddings", default=False),
    )
    return decoder.model(f, max_positions=positions(f, None, "seq_length", "max_position_embeddings"))


FAMILIES = {"chatglm": chatglm, "glm": glm, "glm4": glm4}
