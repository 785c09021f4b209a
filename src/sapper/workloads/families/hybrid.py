"""Hybrids of attention and state-space layers: jamba, bamba, falcon_h1, granitemoehybrid, nemotron_h."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sapper.workloads import scans
from sapper.workloads.families.mamba import time_step_rank
from sapper.workloads.fields import Fields
from sapper.workloads.hybrid_parts import FULL, HYBRID, LINEAR, around, attention, causal_class, causal_lm, chosen, pattern, read_attention
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.op import Op

MAMBA2 = "arXiv:2405.21060"


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """Shape of a Mamba-2 mixer."""

    hidden: int
    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    chunk: int
    bias: bool
    conv_bias: bool
    out_bias: bool | None = None
    norm: bool = True

    def ops(self, kit: Kit) -> tuple[Op, ...]:
        """The mixer."""
        return scans.mamba2(kit, "mamba", **{name: getattr(self, name) for name in self.__dataclass_fields__})


def read_mixer(fields: Fields, *, hidden: int, inner: int, state: int = 256) -> Mixer:
    """A Mamba-2 mixer of a config with Bamba's field names; heads times head dim must be the inner width."""
    heads = fields.count("mamba_n_heads", default=128)
    whole = fields.divides("mamba inner width", inner, "mamba_n_heads", heads)
    if fields.raw.get("mamba_d_head", "auto") == "auto":
        fields.ignore("mamba_d_head")
    elif fields.count("mamba_d_head") != whole:
        raise fields.bad("mamba_d_head", fields.raw["mamba_d_head"], f"inner width / mamba_n_heads = {inner} / {heads} = {whole}")
    groups = fields.count("mamba_n_groups", default=1)
    fields.divides("mamba_n_heads", heads, "mamba_n_groups", groups)
    return Mixer(
        hidden=hidden, heads=heads, head_dim=whole, groups=groups, state=fields.count("mamba_d_state", default=state),
        kernel=fields.count("mamba_d_conv", default=4), chunk=fields.count("mamba_chunk_size", default=256),
        bias=fields.flag("mamba_proj_bias", default=False), conv_bias=fields.flag("mamba_conv_bias", default=True),
    )


def jamba(fields: Fields) -> Model:
    """Jamba (arXiv:2403.19887): Mamba with one attention layer a period, experts in some of the layers."""
    causal_class(fields, "JambaForCausalLM")
    fields.ignore("sliding_window", "mamba_inner_layernorms", "layers_block_type")
    hidden, ffn = fields.count("hidden_size", default=4096), fields.count("intermediate_size", default=14336)
    layers = fields.layers("num_hidden_layers", default=32)
    a = read_attention(fields, hidden, default=32, kv_default=8, dim=False, rope=False, bias=False)
    every, offset = (
        fields.count(f"attn_layer_{part}", default=value, minimum=low) for part, value, low in (("period", 8, 1), ("offset", 4, 0))
    )
    moe_every, moe_offset = (
        fields.count(f"expert_layer_{part}", default=value, minimum=low) for part, value, low in (("period", 2, 1), ("offset", 1, 0))
    )
    routed = fields.count("num_experts", "num_local_experts", default=16)
    topk = chosen(fields, routed, "num_experts_per_tok", default=2) if routed > 1 else fields.count("num_experts_per_tok", default=2)
    mixer = {
        "hidden": hidden, "inner": fields.count("mamba_expand", default=2) * hidden, "state": fields.count("mamba_d_state", default=16),
        "rank": time_step_rank(fields, "mamba_dt_rank", hidden), "kernel": fields.count("mamba_d_conv", default=4),
    }
    bias, conv_bias = fields.flag("mamba_proj_bias", default=False), fields.flag("mamba_conv_bias", default=True)
    kinds = tuple(
        f"{FULL if index % every == offset else LINEAR}+{'moe' if routed > 1 and index % moe_every == moe_offset else 'dense'}"
        for index in range(layers)
    )

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden) if kind.startswith(FULL) else scans.mamba1(
            kit, "mamba", **mixer, bias=bias, conv_bias=conv_bias, norms=True,
        )
        second = kit.experts("moe", hidden, ffn, experts=routed, topk=topk) if kind.endswith("moe") else kit.mlp("mlp", hidden, ffn)
        return (*around(kit, "mixer", hidden, first), *around(kit, "ffn", hidden, second))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=65536),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a,
        experts=lambda kind: (routed, topk) if kind.endswith("moe") else (0, 0), paper="arXiv:2312.00752",
    )


def bamba(fields: Fields) -> Model:
    """Bamba: Mamba-2 layers, attention at the listed indices, a gated feed-forward in each."""
    causal_class(fields, "BambaForCausalLM")
    fields.ignore("layers_block_type", "attn_rotary_emb")
    hidden, ffn = fields.count("hidden_size", default=4096), fields.count("intermediate_size", default=14336)
    layers = fields.layers("num_hidden_layers", default=32)
    a = read_attention(fields, hidden, default=32, kv_default=8, partial=0.5)
    mixer = read_mixer(fields, hidden=hidden, inner=fields.count("mamba_expand", default=2) * hidden)
    mlp_bias = fields.flag("mlp_bias", default=False)
    at = fields.numbers("attn_layer_indices", default=()) if fields.given("attn_layer_indices") else ()
    fields.ignore("attn_layer_indices")
    kinds = tuple(FULL if index in at else LINEAR for index in range(layers))

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden) if kind == FULL else mixer.ops(kit)
        return (*around(kit, "mixer", hidden, first), *around(kit, "ffn", hidden, kit.mlp("mlp", hidden, ffn, bias=mlp_bias)))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=128000),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a, paper=MAMBA2,
    )


def falcon_h1(fields: Fields) -> Model:
    """Falcon-H1 (arXiv:2507.22448): attention and a Mamba-2 mixer side by side in every layer."""
    causal_class(fields, "FalconH1ForCausalLM")
    fields.ignore(
        "mamba_norm_before_gate", "lm_head_multiplier", "embedding_multiplier", "mlp_multipliers", "key_multiplier",
        "attention_out_multiplier",
        "attention_in_multiplier", "ssm_multipliers", "ssm_in_multiplier", "ssm_out_multiplier", "mamba_use_mlp", "mlp_expansion_factor",
        "layers_block_type", "attn_layer_indices",
    )
    hidden, ffn = fields.count("hidden_size", default=4096), fields.count("intermediate_size", default=14336)
    a = read_attention(fields, hidden, default=32, kv_default=8)
    expand = fields.count("mamba_expand", default=2)
    width = fields.nullable_count("mamba_d_ssm", default=1024) or expand * hidden
    mixer = replace(
        read_mixer(fields, hidden=hidden, inner=width), norm=fields.flag("mamba_rms_norm", default=False),
        out_bias=fields.flag("projectors_bias", default=False),
    )
    mlp_bias = fields.flag("mlp_bias", default=False)

    def make(kit: Kit, _: str) -> tuple[Op, ...]:
        size = kit.tokens * hidden
        both = kit.elementwise("mixer_sum", reads=2 * size, writes=size, flops=3 * size)
        first = (*mixer.ops(kit), *attention(kit, a, hidden), both)
        return (*around(kit, "mixer", hidden, first), *around(kit, "ffn", hidden, kit.mlp("mlp", hidden, ffn, bias=mlp_bias)))

    return causal_lm(
        fields, kinds=(HYBRID,) * fields.layers("num_hidden_layers", default=32), make=make, hidden=hidden,
        vocab=fields.count("vocab_size", default=128000), tied=fields.flag("tie_word_embeddings", default=False), attention=a, paper=MAMBA2,
    )


def granitemoehybrid(fields: Fields) -> Model:
    """Granite 4.0: Mamba-2 or attention, then routed experts (or none) beside a shared feed-forward."""
    causal_class(fields, "GraniteMoeHybridForCausalLM")
    fields.ignore(
        "embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier", "init_method", "normalization_function",
    )
    hidden, ffn = fields.count("hidden_size", default=4096), fields.count("intermediate_size", default=11008)
    layers = fields.layers("num_hidden_layers", default=32)
    fields.ignore("position_embedding_type")
    a = read_attention(fields, hidden, default=32, rope=fields.raw.get("position_embedding_type") == "rope")
    mixer = read_mixer(fields, hidden=hidden, inner=fields.count("mamba_expand", default=2) * hidden)
    routed = fields.count("num_local_experts", default=8, minimum=0)
    topk = chosen(fields, routed, "num_experts_per_tok", default=2)
    shared_ffn = fields.count("shared_intermediate_size", default=1024)
    kinds = pattern(fields, "layer_types", layers=layers, kinds=(LINEAR, FULL), default=lambda _: LINEAR)

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        first = attention(kit, a, hidden) if kind == FULL else mixer.ops(kit)
        second = kit.mlp("shared_mlp", hidden, shared_ffn, fused=True)
        if routed:
            second = (*kit.experts("moe", hidden, ffn, experts=routed, topk=topk), *second, kit.residual("moe_sum", hidden))
        return (*around(kit, "mixer", hidden, first), *around(kit, "ffn", hidden, second))

    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=32000),
        tied=fields.flag("tie_word_embeddings", default=False), attention=a, experts=(lambda _: (routed, topk)) if routed else None,
        paper=MAMBA2,
    )


def nemotron_h(fields: Fields) -> Model:
    """Nemotron-H (arXiv:2504.03624): each layer is one of Mamba-2, attention, feed-forward or experts, by a pattern."""
    causal_class(fields, "NemotronHForCausalLM")
    fields.ignore(
        "mamba_hidden_act", "mlp_hidden_act", "mamba_ssm_cache_dtype", "moe_shared_expert_overlap", "mtp_layers_block_type",
        "sliding_window",
        "mtp_hybrid_override_pattern", "time_step_rank", "num_query_groups", "num_hidden_layers", "n_shared_experts", "mamba_proj_bias",
        "mamba_dt_min", "mamba_dt_max",
        "mamba_dt_limit", "mamba_dt_init_floor", "attention_bias", "expand", "mamba_expand", "use_mem_eff_path", "tie_word_embeddings",
    )
    if fields.optional_count("num_nextn_predict_layers", minimum=0):
        fields.note("mtp")
    hidden = fields.count("hidden_size", default=4096)
    kinds = _nemotron_pattern(fields)
    a = read_attention(fields, hidden, default=32, kv_default=8, dim_default=128, rope=False, bias=False)
    fields.only("attention_head_dim", a.head_dim)
    bias, mlp_bias = fields.flag("use_bias", default=False), fields.flag("mlp_bias", default=False)
    mixer = Mixer(
        hidden=hidden, heads=fields.count("mamba_num_heads", default=128), head_dim=fields.count("mamba_head_dim", default=64),
        groups=fields.count("n_groups", "mamba_n_groups", default=8), state=fields.count("ssm_state_size", default=128),
        kernel=fields.count("conv_kernel", "mamba_d_conv", default=4), chunk=fields.count("chunk_size", "mamba_chunk_size", default=128),
        bias=bias,
        conv_bias=fields.flag("use_conv_bias", "mamba_conv_bias", default=True),
    )
    fields.divides("mamba_num_heads", mixer.heads, "n_groups", mixer.groups)
    ffn = fields.count("intermediate_size", default=21504)
    routed = fields.count("n_routed_experts", "num_local_experts", default=8)
    topk = chosen(fields, routed, "num_experts_per_tok", default=2)
    expert_ffn = fields.count("moe_intermediate_size", default=7688)
    shared_ffn = fields.count("moe_shared_expert_intermediate_size", default=7688)
    latent = fields.optional_count("moe_latent_size")

    def moe(kit: Kit) -> tuple[Op, ...]:
        width = latent or hidden
        router, *rest = kit.experts("moe", width, expert_ffn, experts=routed, topk=topk, gated=False)
        router = kit.router("moe.router", routed, hidden, topk)
        if latent:
            down = kit.linear("moe.fc1_latent_proj", latent, hidden, bias=mlp_bias, shard="replicated", keep_input=False)
            rest = [down, *rest, kit.linear("moe.fc2_latent_proj", hidden, latent, bias=mlp_bias, shard="replicated")]
        return (router, *rest, *kit.mlp("shared", hidden, shared_ffn, gated=False, bias=mlp_bias), kit.residual("moe_sum", hidden))

    def make(kit: Kit, kind: str) -> tuple[Op, ...]:
        made = {
            LINEAR: mixer.ops, FULL: lambda k: attention(k, a, hidden),
            "mlp": lambda k: kit.mlp("mlp", hidden, ffn, gated=False, bias=mlp_bias), "moe": moe,
        }
        return around(kit, "mixer", hidden, made[kind](kit))

    # The library ties nothing here, whatever tie_word_embeddings says.
    return causal_lm(
        fields, kinds=kinds, make=make, hidden=hidden, vocab=fields.count("vocab_size", default=131072), tied=False, attention=a,
        experts=lambda kind: (routed, topk) if kind == "moe" else (0, 0), paper=MAMBA2,
    )


def _nemotron_pattern(fields: Fields) -> tuple[str, ...]:
    letters = {"M": LINEAR, "E": "moe", "*": FULL, "-": "mlp"}
    listed = fields.raw.get("layers_block_type") or fields.raw.get("layer_types")
    if listed is not None:
        fields.ignore("hybrid_override_pattern")
        return pattern(
            fields, "layers_block_type", layers=len(listed) if isinstance(listed, list) else 1, kinds=(LINEAR, FULL, "moe", "mlp"),
            default=lambda _: LINEAR,
        )
    text = fields.text("hybrid_override_pattern", default="ME*-")
    if not text or set(text) - set(letters):
        raise fields.bad("hybrid_override_pattern", text, "M, E, *, -")
    return tuple(letters[letter] for letter in text)


FAMILIES = {
    "jamba": jamba, "bamba": bamba, "falcon_h1": falcon_h1, "granitemoehybrid": granitemoehybrid, "nemotron_h": nemotron_h,
}
