"""Zamba2: state-space layers with transformer blocks that several layers share."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.workloads.decoder import Attention
from sapper.workloads.families.encoder import idle_weights, shared
from sapper.workloads.families.hybrid import MAMBA2, Mixer
from sapper.workloads.fields import Fields
from sapper.workloads.hybrid_parts import HYBRID, LINEAR, around, attention, causal_class, causal_lm, pattern
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model
from sapper.workloads.op import Block, Op
from sapper.workloads.readers import heads

USUAL = (6, 12, 18, 24, 30, 36, 42, 47, 51)
"""Layers with a shared block where the config lists none: Zamba2-2.7B's."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the arithmetic of a Zamba2 needs."""

    hidden: int
    attention: Attention
    mixer: Mixer
    ffn: int
    bias: bool
    blocks: int
    """Shared blocks, used in turn."""
    rank: int
    """Of the low-rank adapters, which each use has for itself."""
    attention_adapters: bool
    tied: bool
    kinds: tuple[str, ...]

    def layers(self, kit: Kit) -> tuple[Block, ...]:
        """All layers; the first use of a shared block owns its weights.

        An untied output head unties the blocks as well in the library: then each use has a block of its own, with the
        adapters of every use of the one that it copies.
        """
        plain = around(kit, "mamba", self.hidden, self.mixer.ops(kit))
        block, adapters = self._block(kit), self._adapters(kit)
        size = kit.tokens * self.hidden
        own = (
            *adapters, kit.linear("linear", self.hidden, self.hidden),
            kit.elementwise("shared.add", reads=2 * size, writes=size, flops=size), *plain,
        )
        total, use, found = self.kinds.count(HYBRID), 0, []
        for index, kind in enumerate(self.kinds):
            ops = plain
            if kind == HYBRID:
                ops = (*(shared(block) if self.tied and use >= self.blocks else block), *own)
                others = len(range(use % self.blocks, total, self.blocks)) - 1
                if others and not self.tied:
                    ops = (*ops, idle_weights(kit, others * sum(op.params for op in adapters)))
                use += 1
            found.append(Block(name=f"layers.{index}", role="layer", ops=ops, hidden_size=self.hidden))
        return tuple(found)

    def _block(self, kit: Kit) -> tuple[Op, ...]:
        # The block sees the hidden state beside the embedding.
        return (
            kit.norm("shared.attn.norm", 2 * self.hidden), *attention(kit, self.attention, self.hidden, width=2 * self.hidden),
            kit.norm("shared.mlp.norm", self.hidden), *kit.mlp("mlp", self.hidden, self.ffn, fused=True, bias=self.bias),
        )

    def _adapters(self, kit: Kit) -> tuple[Op, ...]:
        wide = 2 * self.hidden
        pairs = [
            (f"attn.{part}_adapter", wide, wide) for part in "qkv" if self.attention_adapters
        ] + [("mlp.adapter", 2 * self.ffn, self.hidden)]
        return tuple(
            op for name, n, k in pairs
            for op in (
                kit.linear(f"{name}.down", self.rank, k, shard="replicated", keep_input=False), kit.linear(f"{name}.up", n, self.rank),
            )
        )


def zamba2(fields: Fields) -> Model:
    """Zamba2 (arXiv:2411.15242): Mamba-2 layers, some of them behind a shared transformer block of width 2h."""
    causal_class(fields, "Zamba2ForCausalLM")
    fields.ignore(
        "use_mem_eff_path", "use_long_context", "kv_channels", "num_query_groups", "hybrid_layer_ids", "use_conv_bias",
    )
    fields.only("use_shared_mlp_adapter", True)
    hidden = fields.count("hidden_size", default=2560)
    h = heads(fields, 2 * hidden, default=32, dim=False, rope=fields.flag("use_mem_rope", default=False))
    fields.only("attention_hidden_size", 2 * hidden)
    fields.only("attention_head_dim", h.head_dim)
    inner = fields.count("mamba_expand", default=2) * hidden
    mamba_heads = fields.count("n_mamba_heads", default=8)
    groups = fields.count("mamba_ngroups", default=1)
    fields.divides("n_mamba_heads", mamba_heads, "mamba_ngroups", groups)
    mamba_head_dim = fields.divides("mamba_expand * hidden_size", inner, "n_mamba_heads", mamba_heads)
    fields.only("mamba_headdim", mamba_head_dim)
    bias = fields.flag("add_bias_linear", default=False)
    layers = fields.layers("num_hidden_layers", default=54)
    s = Sizes(
        hidden=hidden, bias=bias, ffn=fields.optional_count("intermediate_size", "ffn_hidden_size") or 4 * hidden,
        attention=Attention(
            heads=h.heads, kv_heads=h.kv_heads, head_dim=h.head_dim, rope_dim=h.rope_dim, dropout=fields.dropout("attention_dropout"),
        ),
        mixer=Mixer(
            hidden=hidden, heads=mamba_heads, head_dim=mamba_head_dim,
            groups=groups, state=fields.count("mamba_d_state", default=64), kernel=fields.count("mamba_d_conv", default=4),
            chunk=fields.count("chunk_size", default=256), bias=bias, conv_bias=True,
        ),
        blocks=fields.count("num_mem_blocks", default=1), rank=fields.count("adapter_rank", default=128),
        attention_adapters=fields.flag("use_shared_attention_adapter", default=False),
        tied=fields.flag("tie_word_embeddings", default=True),
        kinds=pattern(
            fields, "layers_block_type", layers=layers, kinds=(LINEAR, HYBRID), default=lambda index: HYBRID if index in USUAL else LINEAR,
        ),
    )
    return causal_lm(
        fields, kinds=s.kinds, make=lambda kit, kind: (), hidden=hidden, vocab=fields.count("vocab_size", default=32000), tied=s.tied,
        attention=s.attention, layers=s.layers, paper=MAMBA2,
    )


FAMILIES = {"zamba2": zamba2}
