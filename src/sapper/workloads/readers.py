"""Readers: the parts of a config that many decoder families share."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.workloads.fields import Fields

ACTIVATIONS = (
    "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_10", "quick_gelu", "gelu_accurate", "relu",
    "relu2", "relu6", "mish", "tanh", "sigmoid", "linear", "leaky_relu",
)
"""Pointwise functions; a gated form is the family's, never the activation's."""

EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
WINDOWED = {"full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "chunked"}


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Heads of an attention layer."""

    heads: int
    kv_heads: int
    head_dim: int
    rope_dim: int


def common(fields: Fields, *, act: str = "hidden_act") -> None:
    """Fields that decoders share and that change nothing that we count."""
    fields.ignore(*EPSILONS)
    fields.text(act, default="silu", choices=ACTIVATIONS, noted=False)
    fields.ignore("router_aux_loss_coef", "output_router_logits", "router_jitter_noise", "input_jitter_noise", "norm_topk_prob")


def heads(
    fields: Fields, hidden: int, *, default: int, kv_default: int | None = None, dim_default: int | None = None, dim: bool = True,
    partial: float = 1.0, rope: bool = True, divides: bool = True, floor: bool = False,
) -> Heads:
    """Query heads, key-value heads, head dim and rotated dims.

    Args:
        fields: The config.
        hidden: Hidden size.
        default: The library's default of ``num_attention_heads``.
        kv_default: The library's default of ``num_key_value_heads``; None: as many as query heads.
        dim_default: The library's default of ``head_dim``; None: hidden / heads.
        dim: Whether the family has a ``head_dim``.
        partial: The library's default of ``partial_rotary_factor``.
        rope: Whether there is a rotary embedding.
        divides: Whether the library insists on heads dividing the hidden size.
        floor: Whether it rounds hidden / heads down where no ``head_dim`` is given.
    """
    count = fields.count("num_attention_heads", default=default)
    kv = fields.nullable_count("num_key_value_heads", default=kv_default) or count
    size = fields.nullable_count("head_dim", default=dim_default) if dim else None
    if size is None and floor and count <= hidden:
        size = hidden // count
    elif divides or size is None:
        derived = fields.divides("hidden_size", hidden, "num_attention_heads", count)
        size = derived if size is None else size
    fields.divides("num_attention_heads", count, "num_key_value_heads", kv)
    return Heads(heads=count, kv_heads=kv, head_dim=size, rope_dim=rotated(fields, size, partial) if rope else 0)


def rotated(fields: Fields, head_dim: int, default: float = 1.0, *, key: str = "partial_rotary_factor") -> int:
    """Rotated dims of a head from ``partial_rotary_factor``, at the top or in ``rope_parameters`` / ``rope_scaling``."""
    fields.ignore(key)
    factor = fields.raw.get(key)
    for table in ("rope_parameters", "rope_scaling"):
        inner = fields.raw.get(table)
        if inner is not None and not isinstance(inner, dict):
            raise fields.wrong_type(table, "object", inner)
        if inner is not None and factor is None:
            factor = inner.get("partial_rotary_factor")
    factor = default if factor is None else factor
    if isinstance(factor, bool) or not isinstance(factor, (int, float)):
        raise fields.wrong_type(key, "number", factor)
    if not 0 <= factor <= 1:
        raise fields.bad(key, factor, "0 - 1")
    return int(head_dim * factor)


def windows(fields: Fields, layers: int, *, derived: tuple[str, ...]) -> tuple[str, ...]:
    """The attention of each layer (full, sliding, chunked): ``layer_types`` where given, else ``derived``."""
    given = fields.texts("layer_types", choices=WINDOWED, length=layers)
    return tuple(WINDOWED[kind] for kind in given) if given is not None else derived


def alternating(layers: int, period: int) -> tuple[str, ...]:
    """Sliding layers with a full one at each ``period``-th; period 0: all full."""
    return tuple("sliding" if period and (i + 1) % period else "full" for i in range(layers))


def positions(fields: Fields, default: int | None, *keys: str) -> int | None:
    """``max_position_embeddings``: told to the reader, and priced only where positions are learned."""
    value = fields.optional_count(*(keys or ("max_position_embeddings",)))
    return default if value is None else value
