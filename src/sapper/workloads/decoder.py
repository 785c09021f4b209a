"""Decoder-only language models from parts: attention, feed-forward, layer, and the model around them.

A family (:mod:`sapper.workloads.families`) reads its config into these parts; the arithmetic is written here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from sapper.workloads.fields import Fields
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model, stack
from sapper.workloads.op import AttentionShape, Block, Op

Order = Literal["pre", "post", "after", "sandwich", "parallel", "parallel-2"]
"""Where a layer's norms stand.

pre: before attention and feed-forward (arXiv:2002.04745). post: on their outputs, before the residual (OLMo 2,
arXiv:2501.00656, section 3). after: on the sum after the residual (arXiv:1706.03762). sandwich: before and on the outputs
(Gemma 2, arXiv:2408.00118, section 2). parallel: attention and feed-forward side by side on one norm (arXiv:2204.02311,
section 2); parallel-2: on a norm each.
"""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A norm over the hidden size (or a head)."""

    style: Literal["rms", "layer"] = "rms"
    bias: bool | None = None
    affine: bool = True

    def op(self, kit: Kit, name: str, size: int, *, keep_input: bool = True) -> Op:
        """The norm over ``size`` of the residual stream."""
        return kit.norm(name, size, style=self.style, bias=self.bias, affine=self.affine, keep_input=keep_input)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention with grouped key and value heads (arXiv:2305.13245)."""

    heads: int
    kv_heads: int
    head_dim: int
    rope_dim: int = 0
    """Rotated dims of a head."""
    window: int | None = None
    chunked: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    fused: str | None = None
    """Name of the matrix where q, k and v are one."""
    out: str = "o_proj"
    qk_norm: Norm | None = None
    qk_norm_over: Literal["head", "all", "each"] = "head"
    """head: one weight vector for all heads; all: over all heads together; each: a weight vector per head."""
    dropout: float = 0.0
    sinks: bool = False

    def ops(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        """Projections, norms of q and k, rotary embedding, core, output projection."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.fused:
            first = [kit.linear(f"attn.{self.fused}", q + 2 * kv, hidden, bias=self.qkv_bias, lora=True)]
        else:
            first = [
                kit.linear(f"attn.{name}", n, hidden, bias=self.qkv_bias, lora=True, keep_input=name == "q_proj")
                for name, n in (("q_proj", q), ("k_proj", kv), ("v_proj", kv))
            ]
        core = kit.attention(
            "attn", heads=self.heads, kv_heads=self.kv_heads, qk_dim=self.head_dim, v_dim=self.head_dim, rope_dim=self.rope_dim,
            window=self.window, chunked=self.chunked, dropout=self.dropout, sinks=self.heads if self.sinks else 0,
        )
        last = kit.linear(f"attn.{self.out}", hidden, q, bias=self.out_bias, shard="row", lora=True)
        return (*first, *self._norms(kit), *core, last)

    def _norms(self, kit: Kit) -> tuple[Op, ...]:
        norm = self.qk_norm
        if norm is None:
            return ()
        made = []
        for name, heads in (("q_norm", self.heads), ("k_norm", self.kv_heads)):
            size, count = (heads * self.head_dim, 1) if self.qk_norm_over == "all" else (self.head_dim, heads)
            op = kit.norm(f"attn.{name}", size, style=norm.style, bias=norm.bias, affine=norm.affine, heads=count, shard="heads")
            if self.qk_norm_over == "each":
                op = msgspec.structs.replace(op, params=op.params * heads, weight_bytes=op.weight_bytes * heads)
            made.append(op)
        return tuple(made)


@dataclass(frozen=True, kw_only=True)
class Indexer:
    """Chooses the tokens that attention reads (DeepSeek sparse attention, arXiv:2512.02556, section 2.1): a small query per
    index head and one shared key score every past token, and attention sees the best ``topk``."""

    heads: int
    head_dim: int
    topk: int

    def ops(self, kit: Kit, hidden: int, q_rank: int) -> tuple[Op, ...]:
        """Projections, the norm of the key, and the scores, whose cached keys have one head and no values."""
        score = AttentionShape(
            heads=self.heads, kv_heads=1, qk_dim=self.head_dim, v_dim=0, q_len=kit.tokens, kv_len=kit.kv_tokens, causal=True,
            window=None, fused=kit.attention_impl == "flash",
        )
        return (
            kit.linear("attn.indexer.wq_b", self.heads * self.head_dim, q_rank, shard="replicated", keep_input=False),
            kit.linear("attn.indexer.wk", self.head_dim, hidden, shard="replicated", keep_input=False),
            kit.norm("attn.indexer.k_norm", self.head_dim, style="layer", shard="replicated"),
            kit.linear("attn.indexer.weights_proj", self.heads, hidden, shard="replicated", keep_input=False, low_precision=False),
            self._scores(kit.attention_core("attn.indexer.core", score, shard="replicated")),
        )

    def _scores(self, core: Op) -> Op:
        """With the weighted sum over the index heads: one more product for each head and pair."""
        more = 1.0 + 1.0 / self.head_dim
        full = None if core.flops_full is None else core.flops_full * more
        return msgspec.structs.replace(core, flops=core.flops * more, flops_full=full)


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1)."""

    heads: int
    q_rank: int | None
    """Rank of the query's down-projection; None: queries are projected directly."""
    kv_rank: int
    nope_dim: int
    """Head dims without position."""
    rope_dim: int
    """Head dims with position, whose key all heads share."""
    v_dim: int
    bias: bool = False
    """Of the down-projections and of the output."""
    norm: Norm = Norm()
    dropout: float = 0.0
    index: Indexer | None = None
    """Set where attention is sparse: it reads no more than ``index.topk`` tokens."""

    def ops(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        """Down- and up-projections, rotary embedding, core, output projection.

        Decode takes the absorbed form (arXiv:2405.04434, section 2.1.2): the up-projections of keys and values act on the
        query and on the output, so that the core reads the latent cache alone, one key-value head of ``kv_rank + rope_dim``.
        """
        a, qk = self.heads, self.nope_dim + self.rope_dim
        up = kit.linear("attn.kv_b_proj", a * (self.nope_dim + self.v_dim), self.kv_rank, lora=True)
        down = (
            kit.linear(
                "attn.kv_a_proj", self.kv_rank + self.rope_dim, hidden, bias=self.bias, shard="replicated", keep_input=False, lora=True
            ),
            kit.norm("attn.kv_a_norm", self.kv_rank, style=self.norm.style, shard="replicated"),
        )
        last = kit.linear("attn.o_proj", hidden, a * self.v_dim, bias=self.bias, shard="row", lora=True)
        index = self.index.ops(kit, hidden, self.q_rank or hidden) if self.index else ()
        if kit.purpose == "decode":
            return (*self._queries(kit, hidden), *down, up, *index, *self._absorbed(kit), last)
        core = kit.attention(
            "attn", heads=a, kv_heads=a, qk_dim=qk, v_dim=self.v_dim, rope_dim=self.rope_dim, window=self._seen, dropout=self.dropout,
        )
        return (*self._queries(kit, hidden), *down, up, *index, *core, last)

    @property
    def _seen(self) -> int | None:
        """Tokens that a query reads at most; the chosen ones cost what as many neighbours would."""
        return self.index.topk if self.index else None

    def _queries(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        width = self.heads * (self.nope_dim + self.rope_dim)
        if self.q_rank is None:
            return (kit.linear("attn.q_proj", width, hidden, lora=True),)
        return (
            kit.linear("attn.q_a_proj", self.q_rank, hidden, bias=self.bias, shard="replicated", lora=True),
            kit.norm("attn.q_a_norm", self.q_rank, style=self.norm.style, shard="replicated"),
            kit.linear("attn.q_b_proj", width, self.q_rank, lora=True),
        )

    def _absorbed(self, kit: Kit) -> tuple[Op, ...]:
        rope, core = kit.attention(
            "attn", heads=self.heads, kv_heads=1, qk_dim=self.kv_rank + self.rope_dim, v_dim=self.kv_rank, rope_dim=self.rope_dim,
            window=self._seen,
        )
        shape = core.attention
        assert isinstance(shape, AttentionShape)
        # Values are the first kv_rank dims of the cached keys: read once.
        read = shape.kv_len if shape.window is None else min(shape.kv_len, shape.window + shape.q_len - 1)
        twice = read * self.kv_rank * kit.width
        return rope, msgspec.structs.replace(core, input_bytes=core.input_bytes - twice)


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """A dense feed-forward layer."""

    ffn: int
    gated: bool = True
    bias: bool = False
    fused: bool = False
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")

    def ops(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        """Projections and activation."""
        return kit.mlp("mlp", hidden, self.ffn, gated=self.gated, bias=self.bias, fused=self.fused, names=self.names)


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of routed experts, with shared ones beside them where the family has them."""

    experts: int
    topk: int
    ffn: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    router_extra_params: int = 0
    """A learned correction of the router's scores that the library holds as a parameter."""
    shared_ffn: int = 0
    """Width of all shared experts together; 0: none."""
    shared_bias: bool = False
    shared_gate: bool = False
    """A learned scalar gate on the shared expert (Qwen2-MoE)."""

    def ops(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        """Router, dispatch, experts, combine, shared expert."""
        shared: tuple[Op, ...] = ()
        if self.shared_ffn:
            first, *rest = kit.mlp("mlp.shared", hidden, self.shared_ffn, gated=self.gated, bias=self.shared_bias)
            shared = (msgspec.structs.replace(first, saved_bytes=0.0), *rest)  # the router keeps the same input
        if self.shared_gate:
            shared += (kit.linear("mlp.shared.gate", 1, hidden, shard="replicated", keep_input=False, low_precision=False),)
        routed = kit.experts(
            "mlp", hidden, self.ffn, experts=self.experts, topk=self.topk, gated=self.gated, bias=self.bias, router_bias=self.router_bias,
            router_extra_params=self.router_extra_params,
        )
        return (*routed, *shared)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer."""

    attention: Attention | LatentAttention
    ffn: Mlp | Experts
    norm: Norm = Norm()
    order: Order = "pre"
    dropout: float = 0.0
    """Of the branches, before the residual."""
    scaled: bool = False
    """Branches are multiplied by a constant before the residual (Granite, MiniCPM)."""

    @property
    def routed(self) -> tuple[int, int]:
        """Routed experts and experts per token; 0, 0 where dense."""
        return (self.ffn.experts, self.ffn.topk) if isinstance(self.ffn, Experts) else (0, 0)

    def ops(self, kit: Kit, hidden: int) -> tuple[Op, ...]:
        """All ops of the layer in order."""
        attention, ffn = self.attention.ops(kit, hidden), self.ffn.ops(kit, hidden)
        if self.order in ("parallel", "parallel-2"):
            return self._parallel(kit, hidden, attention, ffn)
        made: list[Op] = []
        for name, branch in (("attn", attention), ("mlp", ffn)):
            add = kit.residual(f"{name}.residual", hidden, dropout=self.dropout, scaled=self.scaled)
            if self.order in ("pre", "sandwich"):
                made.append(self.norm.op(kit, f"{name}.norm", hidden))
            made += branch
            if self.order in ("post", "sandwich"):
                made.append(self.norm.op(kit, f"{name}.post_norm", hidden))
            made.append(add)
            if self.order == "after":
                made.append(self.norm.op(kit, f"{name}.norm", hidden))
        return tuple(made)

    def _parallel(self, kit: Kit, hidden: int, attention: tuple[Op, ...], ffn: tuple[Op, ...]) -> tuple[Op, ...]:
        # Both branches end in one sum, so one reduction serves both (arXiv:2204.02311, section 2).
        attention = (*attention[:-1], msgspec.structs.replace(attention[-1], reduces=False))
        add = kit.residual("residual", hidden, dropout=self.dropout, terms=3)
        if self.order == "parallel-2":
            norms = (self.norm.op(kit, "attn.norm", hidden), self.norm.op(kit, "mlp.norm", hidden, keep_input=False))
            return (*norms, *attention, *ffn, add)
        shared_input = msgspec.structs.replace(ffn[0], saved_bytes=0.0) if isinstance(self.ffn, Mlp) else ffn[0]
        return (self.norm.op(kit, "norm", hidden), *attention, shared_input, *ffn[1:], add)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder-only language model."""

    hidden: int
    vocab: int
    layers: Mapping[str, Layer]
    """Layer by type."""
    layer_types: tuple[str, ...]
    final_norm: Norm | None = Norm()
    tied: bool
    head_bias: bool = False
    positions: int = 0
    """Rows of a learned position table."""
    embed_norm: Norm | None = None
    embed_dropout: float = 0.0
    embed_size: int | None = None
    """Width of the token embedding where it is not the hidden size (OPT-350M); None: it is."""

    def blocks(self, kit: Kit) -> tuple[Block, ...]:
        """Embedding, runs of layers, head."""
        runs = stack(
            self.layer_types, lambda kind: self.layers[kind].ops(kit, self.hidden), hidden=self.hidden,
            experts=lambda kind: self.layers[kind].routed,
        )
        return (
            Block(name="embedding", role="embedding", ops=self._embedding(kit), hidden_size=self.hidden), *runs,
            Block(name="head", role="head", ops=self._head(kit), hidden_size=self.hidden),
        )

    def _embedding(self, kit: Kit) -> tuple[Op, ...]:
        size = self.embed_size or self.hidden
        ops = [kit.embedding("embed_tokens", self.vocab, size, dropout=0.0 if self.positions else self.embed_dropout)]
        if self.embed_size:
            ops.append(kit.linear("project_in", self.hidden, size, shard="replicated"))
        if self.positions:
            whole = kit.tokens * self.hidden
            ops.append(kit.embedding("embed_positions", self.positions, self.hidden, shard="replicated"))
            ops.append(
                kit.elementwise("embed_sum", reads=2 * whole, writes=whole, flops=whole, mask=whole if self.embed_dropout > 0 else 0)
            )
        if self.embed_norm:
            ops.append(self.embed_norm.op(kit, "embed_norm", self.hidden))
        return tuple(ops)

    def _head(self, kit: Kit) -> tuple[Op, ...]:
        ops = [self.final_norm.op(kit, "norm", self.hidden)] if self.final_norm else []
        if self.embed_size:
            ops.append(kit.linear("project_out", self.embed_size, self.hidden, shard="replicated"))
        ops.append(kit.lm_head(self.vocab, self.embed_size or self.hidden, tied=self.tied, bias=self.head_bias))
        return (*ops, *kit.loss(self.vocab))

    def model(self, fields: Fields, *, max_positions: int | None, family: str | None = None, unpriced: tuple[str, ...] = ()) -> Model:
        """The model with the name and notes of ``fields``."""
        attention = self.layers[self.layer_types[0]].attention
        return Model(
            name=fields.name, family=family or fields.family, layers=len(self.layer_types), hidden=self.hidden, heads=attention.heads,
            kv_heads=attention.heads if isinstance(attention, LatentAttention) else attention.kv_heads,
            head_dim=attention.nope_dim + attention.rope_dim if isinstance(attention, LatentAttention) else attention.head_dim,
            vocab=self.vocab, blocks=self.blocks, layer_types=self.layer_types, max_positions=max_positions, unpriced=unpriced,
            notes=tuple(fields.notes),
        )
