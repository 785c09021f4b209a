"""State-space models without attention: mamba, falcon_mamba, mamba2."""

from __future__ import annotations

from sapper.workloads import scans
from sapper.workloads.fields import Fields
from sapper.workloads.hybrid_parts import LINEAR, around, causal_class, causal_lm
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.op import Op


def time_step_rank(fields: Fields, key: str, hidden: int) -> int:
    """The width of the projection that makes the time step; ``auto`` is hidden/16 rounded up."""
    if fields.raw.get(key, "auto") == "auto":
        fields.ignore(key)
        return -(-hidden // 16)
    return fields.count(key)


def mamba(fields: Fields, *, name: str = "MambaForCausalLM") -> Model:
    """Mamba (arXiv:2312.00752)."""
    causal_class(fields, name)
    hidden = fields.count("hidden_size", default=768)
    fields.ignore("d_model", "d_inner", "n_layer", "ssm_cfg", "rms_norm", "fused_add_norm", "pad_vocab_size_multiple")
    expanded = int(fields.number("expand", default=2, maximum=1024) * hidden)
    # A width that the config gives stands, whatever expand says: so does the library.
    inner = fields.optional_count("intermediate_size") or expanded
    state = fields.count("state_size", default=16)
    rank = time_step_rank(fields, "time_step_rank", hidden)
    kernel = fields.count("conv_kernel", default=4)
    bias, conv_bias = fields.flag("use_bias", default=False), fields.flag("use_conv_bias", default=True)

    def make(kit: Kit, _: str) -> tuple[Op, ...]:
        mixer = scans.mamba1(
            kit, "mixer", hidden=hidden, inner=inner, state=state, rank=rank, kernel=kernel, bias=bias, conv_bias=conv_bias,
        )
        return around(kit, "mixer", hidden, mixer)

    return causal_lm(
        fields, kinds=(LINEAR,) * fields.layers("num_hidden_layers", default=32), make=make, hidden=hidden,
        vocab=fields.count("vocab_size", default=50280), tied=fields.flag("tie_word_embeddings", default=True), paper="arXiv:2312.00752",
    )


def falcon_mamba(fields: Fields) -> Model:
    """Falcon Mamba (arXiv:2410.05355): Mamba with RMS norms without weights over time step, B and C."""
    fields.ignore("mixer_rms_eps")
    return mamba(fields, name="FalconMambaForCausalLM")


def mamba2(fields: Fields) -> Model:
    """Mamba-2 (arXiv:2405.21060)."""
    causal_class(fields, "Mamba2ForCausalLM")
    fields.ignore("time_step_rank", "rms_norm", "norm_before_gate")
    hidden = fields.count("hidden_size", default=4096)
    heads, head_dim = fields.count("num_heads", default=128), fields.count("head_dim", default=64)
    inner = int(fields.number("expand", default=2, maximum=1024) * hidden)
    if inner != heads * head_dim:
        raise fields.bad("num_heads", heads, f"expand * hidden_size / head_dim = {inner} / {head_dim}")
    groups = fields.count("n_groups", default=8)
    fields.divides("num_heads", heads, "n_groups", groups)
    state, chunk = fields.count("state_size", default=128), fields.count("chunk_size", default=256)
    kernel = fields.count("conv_kernel", default=4)
    bias, conv_bias = fields.flag("use_bias", default=False), fields.flag("use_conv_bias", default=True)

    def make(kit: Kit, _: str) -> tuple[Op, ...]:
        mixer = scans.mamba2(
            kit, "mixer", hidden=hidden, heads=heads, head_dim=head_dim, groups=groups, state=state, kernel=kernel, chunk=chunk, bias=bias,
            conv_bias=conv_bias,
        )
        return around(kit, "mixer", hidden, mixer)

    return causal_lm(
        fields, kinds=(LINEAR,) * fields.layers("num_hidden_layers", default=64), make=make, hidden=hidden,
        vocab=fields.count("vocab_size", default=32768), tied=fields.flag("tie_word_embeddings", default=False), paper="arXiv:2405.21060",
    )


FAMILIES = {"mamba": mamba, "falcon_mamba": falcon_mamba, "mamba2": mamba2}
