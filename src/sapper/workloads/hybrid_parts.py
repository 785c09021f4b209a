"""Parts that hybrids share: reading a layer pattern, attention between unlike widths, and the frame of a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from sapper.workloads.decoder import Attention, LatentAttention
from sapper.workloads.fields import Fields
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model, stack
from sapper.workloads.op import Block, Op
from sapper.workloads.readers import common
from sapper.workloads.readers import heads as read_heads

LINEAR = "linear_attention"
FULL = "full_attention"
HYBRID = "hybrid"
CONV = "conv"
LEGACY = {"mamba": LINEAR, "attention": FULL}
"""Names of layer types in configs written before Transformers 5."""

UNUSED = (
    "partial_rotary_factor", "rope_interleave", "residual_in_fp32", "num_logits_to_keep", "calc_logits_for_entire_prompt",
    "use_mamba_kernels", "use_mambapy", "use_falcon_mambapy", "use_associative_scan", "time_step_min", "time_step_max", "time_step_floor",
    "time_step_limit", "time_step_scale", "time_step_init_scheme", "rescale_prenorm_residual", "z_loss_coefficient",
    "routed_scaling_factor", "n_group", "topk_group", "hidden_dropout", "hidden_dropout_prob",
)
"""Fields of state-space models and hybrids that change no shape, FLOP or byte."""


def pattern(fields: Fields, key: str, *, layers: int, kinds: tuple[str, ...], default: Callable[[int], str]) -> tuple[str, ...]:
    """The type of each layer under its present name: as the config lists them, else by ``default`` of the index.

    Args:
        fields: The config.
        key: Where the list stands; ``layers_block_type`` and ``layer_types`` mean the same and either is read.
        layers: Number of layers.
        kinds: The types that the family has.
        default: The type of layer ``i`` where none are listed.
    """
    other = {"layer_types": "layers_block_type", "layers_block_type": "layer_types"}.get(key)
    if other is not None:
        key = other if fields.given(other) and not fields.given(key) else key
        fields.ignore("layer_types", "layers_block_type")
    names = {name: name for name in kinds} | {old: new for old, new in LEGACY.items() if new in kinds}
    listed = fields.texts(key, choices=names, length=layers)
    return tuple(names[name] for name in listed) if listed else tuple(default(index) for index in range(layers))


def periodic(fields: Fields, layers: int, *, kinds: tuple[str, str], every: int) -> tuple[str, ...]:
    """Types of the layers where each ``every``-th one (``full_attention_interval``) is the second of ``kinds``."""
    every = fields.count("full_attention_interval", default=every, noted=False)
    return pattern(fields, "layer_types", layers=layers, kinds=kinds, default=lambda index: kinds[0] if (index + 1) % every else kinds[1])


def chosen(fields: Fields, experts: int, *keys: str, default: int) -> int:
    """Experts per token, which cannot be more than there are; read but without meaning where there are none."""
    topk = fields.count(*keys, default=default, minimum=1 if experts else 0)
    if topk > experts > 0:
        raise fields.bad(keys[0], topk, f"1 - {experts}")
    return topk


def read_attention(
    fields: Fields, hidden: int, *, default: int, kv_default: int | None = None, dim_default: int | None = None, dim: bool = True,
    partial: float = 1.0, rope: bool = True, bias: bool | None = None, out_bias: bool | None = None,
) -> Attention:
    """Grouped-query attention of a config with the usual field names; arguments as those of :func:`readers.heads`.

    ``bias`` None reads ``attention_bias`` (false by default); ``out_bias`` None is as ``bias``.
    """
    h = read_heads(
        fields, hidden, default=default, kv_default=kv_default, dim_default=dim_default, dim=dim, partial=partial, rope=rope, divides=False,
    )
    with_bias = fields.flag("attention_bias", default=False) if bias is None else bias
    return Attention(
        heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=h.rope_dim, qkv_bias=with_bias,
        out_bias=with_bias if out_bias is None else out_bias, dropout=fields.dropout("attention_dropout"),
    )


def attention(kit: Kit, a: Attention, hidden: int, *, width: int | None = None, gated: bool = False) -> tuple[Op, ...]:
    """Attention whose input may be wider than its output, and whose query projection may carry a gate of the output.

    Args:
        kit: The sequence.
        a: The attention.
        hidden: Width of the output.
        width: Width of the input; None: h.
        gated: The query projection is twice as wide; its other half gates the output (Qwen3-Next).
    """
    inner = a.heads * a.head_dim
    *ops, _ = a.ops(kit, width or hidden)
    if gated:
        ops[0] = kit.linear("attn.q_proj", 2 * inner, width or hidden, bias=a.qkv_bias, lora=True)
        ops.append(kit.activation("attn.gate", inner))
    return (*ops, kit.linear(f"attn.{a.out}", hidden, inner, bias=a.out_bias, shard="row", lora=True))


def around(kit: Kit, name: str, hidden: int, ops: Iterable[Op], *, norm: Literal["before", "after"] = "before") -> tuple[Op, ...]:
    """A sublayer with its RMS norm and its residual."""
    one = kit.norm(f"{name}.norm", hidden)
    inner = (one, *ops) if norm == "before" else (*ops, one)
    return (*inner, kit.residual(f"{name}.residual", hidden))


def causal_lm(
    fields: Fields, *, kinds: tuple[str, ...], make: Callable[[Kit, str], tuple[Op, ...]], hidden: int, vocab: int, tied: bool,
    attention: Attention | LatentAttention | None = None, experts: Callable[[str], tuple[int, int]] | None = None,
    layers: Callable[[Kit], tuple[Block, ...]] | None = None, act: str = "hidden_act", paper: str = "",
) -> Model:
    """A Model of embedding, layers, final RMS norm and output head.

    Args:
        fields: The config.
        kinds: The type of each layer.
        make: Makes the ops of a layer of a type.
        hidden: h.
        vocab: Rows of the embedding.
        tied: Whether the output head is the embedding.
        attention: The attention, where there is one.
        experts: Routed experts and experts per token of a type.
        layers: Makes the layers where ``make`` does not suffice (shared weights).
        act: Field of the activation function.
        paper: What the scan's formula is from; noted.
    """
    common(fields, act=act)
    fields.ignore(*UNUSED)
    positions = fields.optional_count("max_position_embeddings", "model_max_length")
    if paper:
        fields.note("scan", paper=paper)

    def blocks(kit: Kit) -> tuple[Block, ...]:
        middle = layers(kit) if layers else stack(kinds, lambda kind: make(kit, kind), hidden=hidden, experts=experts)
        last = (kit.norm("norm", hidden), kit.lm_head(vocab, hidden, tied=tied), *kit.loss(vocab))
        return (
            Block(name="embedding", role="embedding", ops=(kit.embedding("embed_tokens", vocab, hidden),), hidden_size=hidden), *middle,
            Block(name="head", role="head", ops=last, hidden_size=hidden),
        )

    heads, kv_heads, head_dim = _shape(attention)
    return Model(
        name=fields.name, family=fields.family, layers=len(kinds), hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        vocab=vocab, blocks=blocks, layer_types=kinds, max_positions=positions, notes=tuple(fields.notes), source=fields.where,
    )


def _shape(attention: Attention | LatentAttention | None) -> tuple[int, int, int]:
    """Heads, key-value heads and head dim of queries and keys; zeros where no layer has attention."""
    if attention is None:
        return 0, 0, 0
    if isinstance(attention, LatentAttention):
        return attention.heads, attention.heads, attention.nope_dim + attention.rope_dim
    return attention.heads, attention.kv_heads, attention.head_dim


def causal_class(fields: Fields, name: str) -> None:
    """Refuse a head other than that of the causal language model ``name``."""
    fields.ignore("architectures")
    named = fields.raw.get("architectures")
    if named is None:
        return
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise fields.wrong_type("architectures", f"list ({name})", named)
    if named[0] != name:
        raise fields.bad("architectures", named[0], name)
