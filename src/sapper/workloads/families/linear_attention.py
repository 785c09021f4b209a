"""Hybrids of attention and linear attention: qwen3_next, qwen3_5 (language model), minimax, olmo_hybrid, kimi_linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sapper.workloads import scans
from sapper.workloads.decoder import Experts, LatentAttention, Mlp, Norm
from sapper.workloads.fields import Fields
from sapper.workloads.hybrid_parts import (
    FULL,
    LINEAR,
    around,
    attention,
    causal_class,
    causal_lm,
    chosen,
    pattern,
    periodic,
    read_attention,
)
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.op import Op

GATED_DELTA = "arXiv:2412.06464"
Mixer = Callable[[Kit], tuple[Op, ...]]


def read_delta_net(fields: Fields, hidden: int, *, packed: bool, name: str = "linear_attn") -> Mixer:
    """The Gated DeltaNet mixer of Qwen3-Next (``packed`` projections) or Qwen3.5."""
    key_heads, value_heads = fields.count("linear_num_key_heads", default=16), fields.count("linear_num_value_heads", default=32)
    fields.divides("linear_num_value_heads", value_heads, "linear_num_key_heads", key_heads)
    key_dim, value_dim = (fields.count(f"linear_{part}_head_dim", default=128) for part in ("key", "value"))
    kernel = fields.count("linear_conv_kernel_dim", default=4)
    keys, values = key_heads * key_dim, value_heads * value_dim
    projections = (("in_proj_qkvz", 2 * keys + 2 * values), ("in_proj_ba", 2 * value_heads)) if packed else (
        ("in_proj_qkv", 2 * keys + values), ("in_proj_z", values), ("in_proj_b", value_heads), ("in_proj_a", value_heads),
    )
    return lambda kit: scans.delta_net(
        kit, name, hidden=hidden, key_heads=key_heads, value_heads=value_heads, key_dim=key_dim, value_dim=value_dim, kernel=kernel,
        projections=projections,
    )


def read_experts(fields: Fields, *, experts: int, topk: int) -> Experts:
    """Routed experts beside one gated shared expert."""
    routed = fields.count("num_experts", "num_local_experts", default=experts)
    return Experts(
        experts=routed, topk=chosen(fields, routed, "num_experts_per_tok", default=topk),
        ffn=fields.count("moe_intermediate_size", default=512), shared_ffn=fields.count("shared_expert_intermediate_size", default=512),
        shared_gate=True,
    )


def qwen(
    fields: Fields, *, architecture: str, packed: bool, moe: Experts | None, mlp: Mlp | None, sparse: Callable[[int], bool], layers: int,
    hidden: int, vocab: int, heads: tuple[int, int],
) -> Model:
    """Three Gated DeltaNet layers to one of gated attention with normed q and k; experts where ``sparse`` of the index."""
    causal_class(fields, architecture)
    fields.ignore(
        "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "attn_output_gate", "mamba_ssm_dtype", "use_sliding_window",
        "sliding_window",
    )
    hidden = fields.count("hidden_size", default=hidden)
    count = fields.layers("num_hidden_layers", default=layers)
    a = replace(read_attention(fields, hidden, default=heads[0], kv_default=heads[1], dim_default=256, partial=0.25), qk_norm=Norm())
    mixer = read_delta_net(fields, hidden, packed=packed)
    mixers = periodic(fields, count, kinds=(LINEAR, FULL), every=4)
    kinds = tuple(f"{kind}+{'moe' if moe and sparse(index) else 'dense'}" for index, kind in enumerate(mixers))

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden, gated=True) if kind.startswith(FULL) else mixer(kit)
        second = moe if kind.endswith("moe") else mlp
        assert second is not None
        return (*around(kit, "mixer", hidden, first), *around(kit, "mlp", hidden, second.ops(kit, hidden)))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=vocab),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a,
        experts=lambda kind: (moe.experts, moe.topk) if moe and kind.endswith("moe") else (0, 0), paper=GATED_DELTA,
    )


def qwen3_next(fields: Fields) -> Model:
    """Qwen3-Next: experts in every layer but those of ``mlp_only_layers`` and ``decoder_sparse_step``."""
    moe = read_experts(fields, experts=512, topk=10)
    mlp = Mlp(ffn=fields.count("intermediate_size", default=5632))
    step = fields.count("decoder_sparse_step", default=1)
    dense = fields.numbers("mlp_only_layers", default=()) if fields.given("mlp_only_layers") else ()
    fields.ignore("mlp_only_layers")
    return qwen(
        fields, architecture="Qwen3NextForCausalLM", packed=True, moe=moe, mlp=mlp,
        sparse=lambda index: index not in dense and (index + 1) % step == 0, layers=48, hidden=2048, vocab=151936, heads=(16, 2),
    )


def qwen3_5_text(fields: Fields) -> Model:
    """The language model of Qwen3.5, dense."""
    mlp = Mlp(ffn=fields.count("intermediate_size", default=12288))
    return qwen(
        fields, architecture="Qwen3_5ForCausalLM", packed=False, moe=None, mlp=mlp, sparse=lambda _: False, layers=32, hidden=4096,
        vocab=248320,
        heads=(16, 4),
    )


def qwen3_5_moe_text(fields: Fields) -> Model:
    """The language model of Qwen3.5 with experts in every layer."""
    moe = read_experts(fields, experts=256, topk=8)
    return qwen(
        fields, architecture="Qwen3_5MoeForCausalLM", packed=False, moe=moe, mlp=None, sparse=lambda _: True, layers=40, hidden=2048,
        vocab=248320, heads=(16, 2),
    )


def minimax(fields: Fields) -> Model:
    """MiniMax-Text-01 (arXiv:2501.08313): lightning attention with full attention at times, experts in every layer."""
    causal_class(fields, "MiniMaxForCausalLM")
    fields.ignore(*(f"{part}_{which}_factor" for part in ("full_attn", "linear_attn", "mlp") for which in ("alpha", "beta")))
    fields.only("sliding_window", None)
    hidden = fields.count("hidden_size", default=4096)
    layers = fields.layers("num_hidden_layers", default=32)
    a = read_attention(fields, hidden, default=32, kv_default=8, bias=False)
    block = fields.count("block_size", default=256)
    routed = fields.count("num_local_experts", "num_experts", default=8)
    moe = Experts(
        experts=routed, topk=chosen(fields, routed, "num_experts_per_tok", default=2), ffn=fields.count("intermediate_size", default=14336),
    )
    kinds = pattern(fields, "layer_types", layers=layers, kinds=(LINEAR, FULL), default=lambda index: LINEAR if index % 2 else FULL)

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        lightning = scans.lightning(kit, "attn", hidden=hidden, heads=a.heads, head_dim=a.head_dim, block=block)
        first = attention(kit, a, hidden) if kind == FULL else lightning
        return (*around(kit, "attn", hidden, first), *around(kit, "mlp", hidden, moe.ops(kit, hidden)))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=32000),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a, experts=lambda _: (moe.experts, moe.topk),
        paper="arXiv:2401.04658",
    )


def olmo_hybrid(fields: Fields) -> Model:
    """OLMo Hybrid: Gated DeltaNet with norms before, attention with norms on its outputs and over whole q and k."""
    causal_class(fields, "OlmoHybridForCausalLM")
    fields.ignore(*(f"linear_{name}" for name in ("a_log_min", "a_log_max", "dt_min", "dt_max", "dt_init_floor", "allow_neg_eigval")))
    hidden = fields.count("hidden_size", default=3840)
    layers = fields.layers("num_hidden_layers", default=32)
    mlp = Mlp(ffn=fields.count("intermediate_size", default=11008))
    a = read_attention(fields, hidden, default=30, rope=fields.raw.get("rope_parameters", {}) is not None)
    a = replace(a, qk_norm=Norm(), qk_norm_over="all")
    key_heads = fields.optional_count("linear_num_key_heads") or a.heads
    value_heads = fields.optional_count("linear_num_value_heads") or a.heads
    key_dim = fields.optional_count("linear_key_head_dim") or max(1, int(0.75 * hidden / key_heads))
    value_dim = fields.optional_count("linear_value_head_dim") or 2 * key_dim
    kernel = fields.count("linear_conv_kernel_dim", default=4)
    keys, values = key_heads * key_dim, value_heads * value_dim
    projections = (
        ("q_proj", keys), ("k_proj", keys), ("v_proj", values), ("a_proj", value_heads), ("b_proj", value_heads), ("g_proj", values),
    )
    kinds = pattern(
        fields, "layer_types", layers=layers, kinds=(LINEAR, FULL),
        default=lambda index: FULL if index % 4 == 3 or (layers < 4 and index == layers - 1) else LINEAR,
    )

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        if kind == FULL:
            return (
                *around(kit, "attn", hidden, attention(kit, a, hidden), norm="after"),
                *around(kit, "mlp", hidden, mlp.ops(kit, hidden), norm="after"),
            )
        mixer = scans.delta_net(
            kit, "linear_attn", hidden=hidden, key_heads=key_heads, value_heads=value_heads, key_dim=key_dim, value_dim=value_dim,
            kernel=kernel,
            projections=projections,
        )
        return (*around(kit, "linear_attn", hidden, mixer), *around(kit, "mlp", hidden, mlp.ops(kit, hidden)))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=100352),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a, paper=GATED_DELTA,
    )


def kimi_linear(fields: Fields) -> Model:
    """Kimi Linear (arXiv:2510.26692): Kimi Delta Attention with latent attention without positions at times, and experts."""
    causal_class(fields, "KimiLinearForCausalLM")
    fields.ignore(
        "moe_renormalize", "num_expert_group", "moe_router_activation_func", "moe_layer_freq", "use_grouped_topk", "mla_use_nope",
        "head_dim",
        "qk_head_dim", "num_key_value_heads", "num_nextn_predict_layers", "tie_word_embeddings",
    )
    hidden = fields.count("hidden_size", default=2304)
    layers = fields.layers("num_hidden_layers", default=27)
    latent = LatentAttention(
        heads=fields.count("num_attention_heads", default=32), q_rank=fields.optional_count("q_lora_rank"),
        kv_rank=fields.count("kv_lora_rank", default=512), nope_dim=fields.count("qk_nope_head_dim", default=128),
        rope_dim=fields.count("qk_rope_head_dim", default=64), v_dim=fields.count("v_head_dim", default=128),
        bias=fields.flag("attention_bias", default=False), dropout=fields.dropout("attention_dropout"),
    )
    expert_ffn = fields.count("moe_intermediate_size", default=1024)
    routed = fields.count("num_local_experts", "num_experts", default=256)
    moe = Experts(
        experts=routed, topk=chosen(fields, routed, "num_experts_per_tok", "num_experts_per_token", default=8),
        ffn=expert_ffn, shared_ffn=expert_ffn * fields.count("n_shared_experts", "num_shared_experts", default=1),
    )
    mlp = Mlp(ffn=fields.count("intermediate_size", default=9216))
    kinds = _kimi_kinds(fields, layers)
    table = fields.table("linear_attn_config")
    source, prefix = (table, "") if table else (fields, "linear_")
    heads = source.count(f"{prefix}num_heads", default=32)
    head_dim = source.count(f"{prefix}head_dim", default=128)
    kernel = source.count("short_conv_kernel_size" if table else "linear_conv_kernel_dim", default=4)
    if table:
        fields.ignore("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim")
        table.ignore("full_attn_layers", "kda_layers")
        table.finish()

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        delta = scans.kimi_delta(kit, "linear_attn", hidden=hidden, heads=heads, head_dim=head_dim, kernel=kernel)
        first = latent.ops(kit, hidden) if kind.startswith(FULL) else delta
        second = moe if kind.endswith("moe") else mlp
        return (*around(kit, "attn", hidden, first), *around(kit, "mlp", hidden, second.ops(kit, hidden)))

    # The library ties nothing here, whatever tie_word_embeddings says.
    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=163840), tied=False, attention=latent,
        experts=lambda kind: (moe.experts, moe.topk) if kind.endswith("moe") else (0, 0), paper="arXiv:2510.26692",
    )


def _kimi_kinds(fields: Fields, layers: int) -> tuple[str, ...]:
    """Attention and feed-forward of each layer; the checkpoint's own lists count layers from 1."""
    table = fields.table("linear_attn_config")
    listed = table.numbers("full_attn_layers", default=()) if table and table.given("full_attn_layers") else None
    default = (lambda i: FULL if i + 1 in listed else LINEAR) if listed is not None else (lambda i: FULL if i and i % 4 == 0 else LINEAR)
    mixers = pattern(fields, "layer_types", layers=layers, kinds=(LINEAR, FULL), default=default)
    first_dense = fields.count("first_k_dense_replace", default=1, minimum=0, noted=False)
    ffns = pattern(
        fields, "mlp_layer_types", layers=layers, kinds=("dense", "sparse"), default=lambda i: "dense" if i < first_dense else "sparse",
    )
    return tuple(f"{mixer}+{'moe' if ffn == 'sparse' else 'dense'}" for mixer, ffn in zip(mixers, ffns, strict=True))


FAMILIES = {
    "qwen3_next": qwen3_next, "qwen3_5_text": qwen3_5_text, "qwen3_5_moe_text": qwen3_5_moe_text, "minimax": minimax,
    "olmo_hybrid": olmo_hybrid,
    "kimi_linear": kimi_linear,
}
