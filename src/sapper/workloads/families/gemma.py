"""Gemma 1 to 3."""

from __future__ import annotations

from sapper.workloads.decoder import Norm
from sapper.workloads.families.llama import Defaults, Shape, dense
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.readers import ACTIVATIONS, alternating, windows

_GEMMA = Defaults(
    vocab_size=256000, hidden_size=3072, intermediate_size=24576, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=16,
    head_dim=256, max_position_embeddings=8192, tie_word_embeddings=True,
)
_GEMMA2 = Defaults(
    vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8, num_key_value_heads=4,
    head_dim=256, max_position_embeddings=8192, tie_word_embeddings=True,
)
_GEMMA3 = Defaults(
    vocab_size=262208, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8, num_key_value_heads=4,
    head_dim=256, max_position_embeddings=131072, tie_word_embeddings=True,
)


def _shared(f: Fields) -> bool:
    """Reads what all Gemmas have; returns whether projections have a bias."""
    f.text("hidden_activation", default="gelu_pytorch_tanh", choices=ACTIVATIONS, noted=False)
    f.ignore("query_pre_attn_scalar", "final_logit_softcapping", "attn_logit_softcapping", "cache_implementation", "rope_local_base_freq")
    if f.given("use_bidirectional_attention"):
        f.only("use_bidirectional_attention", False)
    f.ignore("use_bidirectional_attention")
    return f.flag("attention_bias", default=False)


def gemma(f: Fields) -> Model:
    """Gemma 1."""
    bias = _shared(f)
    return dense(f, _GEMMA, Shape(divides=False), qkv_bias=bias, out_bias=bias)


def gemma2(f: Fields) -> Model:
    """Gemma 2 (arXiv:2408.00118): sliding and full layers in turn, norms before and on the outputs."""
    bias = _shared(f)
    layers = f.layers("num_hidden_layers", default=_GEMMA2.num_hidden_layers)
    kinds = windows(f, layers, derived=alternating(layers, 2))
    window = f.nullable_count("sliding_window", default=4096)
    return dense(f, _GEMMA2, Shape(order="sandwich", divides=False), qkv_bias=bias, out_bias=bias, layer_types=kinds, window=window)


def gemma3_text(f: Fields) -> Model:
    """Gemma 3 (arXiv:2503.19786), language model: five sliding layers to one full, norms of q and k."""
    bias = _shared(f)
    layers = f.layers("num_hidden_layers", default=_GEMMA3.num_hidden_layers)
    period = f.count("sliding_window_pattern", "_sliding_window_pattern", default=6, noted=False)
    kinds = windows(f, layers, derived=alternating(layers, period))
    shape = Shape(order="sandwich", divides=False, qk_norm=Norm())
    window = f.nullable_count("sliding_window", default=4096)
    return dense(f, _GEMMA3, shape, qkv_bias=bias, out_bias=bias, layer_types=kinds, window=window)


FAMILIES = {"gemma": gemma, "gemma2": gemma2, "gemma3_text": gemma3_text}
