"""The kit: small functions that make the :class:`~sapper.workloads.op.Op` objects of a layer.

A :class:`Kit` holds what every op of one sequence shares (tokens, width of an activation, purpose, attention
implementation); its methods make ops. Letters: T = tokens, h = hidden, a = heads, N,K = matmul dims, w = bytes of an
activation, E = experts.

What is kept for the backward pass follows arXiv:2205.05198, section 4.1: each linear layer keeps its input once, each
norm its input, an activation function its input, dropout its mask (1 byte an element), the loss its fp32 logits, the
attention core q, k and v. A dense GPT layer with dropout then keeps ``34*T*h`` bytes in 16 bit and the unfused core
``5*a*T**2`` more. The fused (flash) core keeps its log-sum-exp (arXiv:2205.14135, algorithm 2) instead, and its output
is the input that the output projection keeps anyway. q, k and v are kept by the op before the core (rotary embedding,
or a view that costs nothing), because selective recomputation frees what the core keeps and not them (section 5).

FLOPs of norms, element-wise ops, dispatch and loss are those of the vector unit; ``Workload.flops`` leaves them out, as
every published model-FLOP count does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from sapper.workloads.op import DTYPE_BYTES, AttentionShape, Op, Shard

Purpose = Literal["train", "prefill", "decode"]
AttentionImpl = Literal["flash", "unfused"]
ATTENTION_IMPLS: tuple[AttentionImpl, ...] = ("flash", "unfused")
PURPOSES: tuple[Purpose, ...] = ("train", "prefill", "decode")

TOKEN_ID_BYTES = 8
"""PyTorch's indices are int64."""
FP32_BYTES = 4
MASK_BYTES = 1
"""A dropout mask keeps one byte an element (arXiv:2205.05198, section 4.1)."""

_NORM_FLOPS = {"rms": 4, "layer": 7}
"""Vector FLOPs an element: square, sum, scale, weight; a layer norm also sums, subtracts and adds."""
_ACTIVATION_FLOPS = 8
"""Vector FLOPs of one GELU or SiLU: exponential or tanh, and the polynomial around it."""


def causal_pairs(q_len: int, kv_len: int, *, window: int | None = None, chunked: bool = False) -> int:
    """Query-key pairs that a causal mask leaves, exact.

    The last query sees all ``kv_len`` keys; a sliding window of ``window`` tokens cuts what each query sees to that many;
    a chunked one lets it see the keys of its own chunk.
    """
    past = kv_len - q_len
    if window is None or window >= kv_len:
        return q_len * past + q_len * (q_len + 1) // 2
    if chunked:
        return _chunk_pairs(kv_len, window) - _chunk_pairs(past, window)
    return _window_pairs(kv_len, window) - _window_pairs(past, window)


def _chunk_pairs(length: int, chunk: int) -> int:
    whole, rest = divmod(length, chunk)
    return whole * (chunk * (chunk + 1) // 2) + rest * (rest + 1) // 2


def _window_pairs(length: int, window: int) -> int:
    ramp = min(length, window)
    return ramp * (ramp + 1) // 2 + max(0, length - window) * window


@dataclass(frozen=True, kw_only=True)
class Kit:
    """Makes the ops of one sequence."""

    tokens: int
    """T: rows that the layer computes (1 in decode)."""
    kv_tokens: int
    """Tokens that attention sees (the context in decode; T else)."""
    width: float = 2.0
    """w: bytes of an activation and of a compute weight."""
    purpose: Purpose = "train"
    attention_impl: AttentionImpl = "flash"

    @classmethod
    def of(cls, seq_len: int, *, purpose: Purpose = "train", dtype: str = "bf16", attention_impl: AttentionImpl = "flash") -> Kit:
        """The kit of a sequence of ``seq_len`` tokens; in decode one new token that sees ``seq_len``."""
        tokens = 1 if purpose == "decode" else seq_len
        return cls(tokens=tokens, kv_tokens=seq_len, width=DTYPE_BYTES[dtype], purpose=purpose, attention_impl=attention_impl)

    def with_tokens(self, tokens: int, kv_tokens: int | None = None) -> Kit:
        """The same kit for another number of rows (encoder beside decoder, patches)."""
        return replace(self, tokens=tokens, kv_tokens=tokens if kv_tokens is None else kv_tokens)

    def _kept(self, size_bytes: float) -> float:
        return size_bytes if self.purpose == "train" else 0.0

    # ---- linear layers -------------------------------------------------------------------------------------------

    def linear(
        self, name: str, n: int, k: int, *,
        bias: bool = False, shard: Shard = "column", rows: int | None = None, groups: int = 1, keep_input: bool = True,
        owns: bool = True, lora: bool = False, low_precision: bool = True, reduces: bool | None = None,
    ) -> Op:
        """A dense layer ``[rows, k] x [k, n]`` (+ bias).

        Args:
            name: Name inside the block.
            n: Output width of one group.
            k: Input width of one group.
            bias: Whether it has one.
            shard: ``column`` or ``row`` under tensor parallelism, ``vocab`` for a head, ``replicated``.
            rows: Rows (default T).
            groups: Independent matmuls of this shape with weights of their own (block-diagonal layers).
            keep_input: False where another op has kept the input already (k and v beside q, up beside gate).
            owns: False for a tied weight.
            lora: LoRA adapts it by default.
            low_precision: fp8 recipes compute it in the low precision.
            reduces: Ends a tensor-parallel region; default: row-cut layers do.
        """
        rows = self.tokens if rows is None else rows
        weights = groups * n * k
        return Op(
            name=name, kind="matmul", flops=2.0 * rows * weights, input_bytes=rows * groups * k * self.width,
            weight_bytes=(weights + (groups * n if bias else 0)) * self.width, output_bytes=rows * groups * n * self.width,
            params=(weights + (groups * n if bias else 0)) if owns else 0, m=rows, n=n, k=k, groups=groups, shard=shard,
            saved_bytes=self._kept(rows * groups * k * self.width) if keep_input else 0.0,
            saved_shard="row" if shard == "row" else "sequence",
            low_precision=low_precision, trainable_lora=lora, reduces=shard == "row" if reduces is None else reduces,
        )

    def conv(self, name: str, *, rows: int, n: int, k: int, groups: int = 1, bias: bool = True, shard: Shard = "replicated") -> Op:
        """A convolution as its implicit GEMM: ``rows`` output positions, ``n`` output channels, ``k`` = kernel size x input
        channels, all of one group."""
        op = self.linear(name, n, k, bias=bias, shard=shard, rows=rows, groups=groups, low_precision=False, reduces=False)
        return _as_kind(op, "conv")

    # ---- attention -----------------------------------------------------------------------------------------------

    def attention(
        self, prefix: str, *, heads: int, kv_heads: int, qk_dim: int, v_dim: int, rope_dim: int = 0, causal: bool = True,
        window: int | None = None, chunked: bool = False, dropout: float = 0.0, sinks: int = 0, kv_len: int | None = None,
        bias_params: int = 0, shard: Shard = "heads",
    ) -> tuple[Op, ...]:
        """Rotary embedding (or a view) and the attention core.

        Args:
            prefix: Names are ``<prefix>.rope`` or ``<prefix>.heads``, and ``<prefix>.core``.
            heads: Query heads.
            kv_heads: Key and value heads.
            qk_dim: Head dim of q and k.
            v_dim: Head dim of v.
            rope_dim: Rotated dims of a head; 0: no rotary embedding.
            causal: Whether a query sees only its past.
            window: Sliding (or chunked) window in tokens.
            chunked: The window is the query's own chunk.
            dropout: Probability of dropping a score; only whether it is 0 matters.
            sinks: Learned sink logits (params).
            kv_len: Keys (default: the kit's).
            bias_params: Params of a learned score bias (relative positions).
            shard: How tensor parallelism cuts it.
        """
        kv_len = self.kv_tokens if kv_len is None else kv_len
        own_kv = self.tokens if self.purpose == "decode" and causal else kv_len
        q_size, k_size, v_size = self.tokens * heads * qk_dim, own_kv * kv_heads * qk_dim, own_kv * kv_heads * v_dim
        qkv_bytes = (q_size + k_size + v_size) * self.width
        rotated = (self.tokens * heads + own_kv * kv_heads) * rope_dim
        before = Op(
            name=f"{prefix}.rope" if rope_dim else f"{prefix}.heads", kind="elementwise", flops=3.0 * rotated,
            input_bytes=(q_size + k_size) * self.width if rope_dim else 0.0,
            output_bytes=(q_size + k_size) * self.width if rope_dim else 0.0,
            shard=shard, saved_bytes=self._kept(qkv_bytes), saved_shard=shard,
        )
        core = self.attention_core(
            f"{prefix}.core",
            AttentionShape(
                heads=heads, kv_heads=kv_heads, qk_dim=qk_dim, v_dim=v_dim, q_len=self.tokens, kv_len=kv_len, causal=causal,
                window=window if window is not None and window < kv_len else None, fused=self.attention_impl == "flash",
            ),
            chunked=chunked, dropout=dropout, params=sinks + bias_params, shard=shard,
        )
        return before, core

    def attention_core(
        self, name: str, shape: AttentionShape, *, chunked: bool = False, dropout: float = 0.0, params: int = 0, shard: Shard = "heads",
    ) -> Op:
        """Scores, softmax and weighted sum; each query-key pair of a head costs ``2*(qk_dim + v_dim)`` FLOPs.

        Flash reads q, k, v and writes the output and the fp32 log-sum-exp. Unfused computes the full square and moves the
        score matrix: written by the score matmul, read and written by softmax, read and written by dropout (with a mask),
        read by the second matmul; it keeps the softmax output, the mask and the dropout output (5 bytes a score in 16 bit).
        """
        pairs = shape.q_len * shape.kv_len
        full = 2.0 * shape.heads * (shape.qk_dim + shape.v_dim) * pairs
        seen = causal_pairs(shape.q_len, shape.kv_len, window=shape.window, chunked=chunked) if shape.causal else self._banded(shape)
        fused = full * seen / pairs
        kv_read = shape.kv_len if shape.window is None else min(shape.kv_len, shape.window + shape.q_len - 1)
        reads = shape.q_len * shape.heads * shape.qk_dim + kv_read * shape.kv_heads * (shape.qk_dim + shape.v_dim)
        writes = shape.q_len * shape.heads * shape.v_dim
        if self.attention_impl == "flash":
            lse_bytes = FP32_BYTES * shape.q_len * shape.heads
            return Op(
                name=name, kind="attention", flops=fused, flops_full=full if fused != full else None,
                input_bytes=reads * self.width, output_bytes=writes * self.width + self._kept(lse_bytes), weight_bytes=params * self.width,
                params=params, attention=shape, shard=shard, saved_bytes=self._kept(lse_bytes), saved_shard=shard, core=True,
            )
        scores = shape.heads * pairs
        drops = dropout > 0 and self.purpose == "train"
        reads_of_scores = (3 if drops else 2) * self.width
        writes_of_scores = (3 * self.width + MASK_BYTES) if drops else 2 * self.width
        kept = (2 * self.width + MASK_BYTES) if drops else self.width
        return Op(
            name=name, kind="attention", flops=full, input_bytes=reads * self.width + scores * reads_of_scores,
            output_bytes=writes * self.width + scores * writes_of_scores, weight_bytes=params * self.width, params=params,
            attention=shape, shard=shard, saved_bytes=self._kept(scores * kept), saved_shard=shard, core=True,
        )

    @staticmethod
    def _banded(shape: AttentionShape) -> int:
        if shape.window is None:
            return shape.q_len * shape.kv_len
        # A two-sided window of w tokens sees w//2 on each side and itself.
        half = shape.window // 2
        return sum(min(shape.kv_len, i + half + 1) - max(0, i - half) for i in range(shape.q_len))

    # ---- norms and element-wise ops ------------------------------------------------------------------------------

    def norm(
        self, name: str, size: int, *, style: Literal["rms", "layer"] = "rms", bias: bool | None = None, affine: bool = True,
        rows: int | None = None, heads: int = 1, params: int | None = None, shard: Shard = "sequence", keep_input: bool = True,
    ) -> Op:
        """RMSNorm or LayerNorm over ``size`` values.

        Args:
            name: Name inside the block.
            size: Values normalised together.
            style: ``rms`` or ``layer``.
            bias: Default: a layer norm has one, an RMS norm has none.
            affine: Whether it has weights at all.
            rows: Rows (default T).
            heads: Norms over heads: rows times heads, one weight vector shared by all.
            params: Overrides the count (one weight vector per head).
            shard: ``sequence`` in the residual stream, ``heads`` on cut activations.
            keep_input: Its input is kept in the activation's dtype; an fp32 upcast is recomputed.
        """
        elements = (self.tokens if rows is None else rows) * heads * size
        with_bias = style == "layer" if bias is None else bias
        owned = (size * (2 if with_bias else 1) if affine else 0) if params is None else params
        return Op(
            name=name, kind="norm", flops=float(_NORM_FLOPS[style] * elements), input_bytes=elements * self.width,
            weight_bytes=owned * self.width, output_bytes=elements * self.width, params=owned, shard=shard,
            saved_bytes=self._kept(elements * self.width) if keep_input else 0.0, saved_shard=shard,
        )

    def elementwise(
        self, name: str, *, reads: float, writes: float, flops: float, kept: float = 0.0, mask: float = 0.0, params: int = 0,
        shard: Shard = "sequence", expert: bool = False,
    ) -> Op:
        """Any pointwise op.

        Args:
            name: Name inside the block.
            reads: Elements read.
            writes: Elements written.
            flops: Vector FLOPs of the whole op.
            kept: Elements kept for the backward pass in the activation's dtype.
            mask: Elements of a dropout mask.
            params: Weights that it owns.
            shard: How tensor parallelism cuts it.
            expert: Inside a routed expert.
        """
        return Op(
            name=name, kind="elementwise", flops=float(flops), input_bytes=reads * self.width, weight_bytes=params * self.width,
            output_bytes=writes * self.width + self._kept(mask * MASK_BYTES), params=params, shard=shard,
            saved_bytes=self._kept(kept * self.width + mask * MASK_BYTES), saved_shard=shard, expert=expert,
        )

    def residual(self, name: str, hidden: int, *, dropout: float = 0.0, terms: int = 2, scaled: bool = False) -> Op:
        """The residual add of ``terms`` activations, with dropout of a branch where there is one; fused into one kernel."""
        size = self.tokens * hidden
        flops = (terms - 1 + (2 if dropout > 0 else 0) + (1 if scaled else 0)) * size
        return self.elementwise(name, reads=terms * size, writes=size, flops=flops, mask=size if dropout > 0 else 0.0)

    def activation(
        self, name: str, ffn: int, *, gated: bool = True, rows: int | None = None, shard: Shard = "column", expert: bool = False
    ) -> Op:
        """GELU, SiLU and their like, or the gated form ``act(gate) * up`` as one kernel, which keeps gate and up."""
        size = (self.tokens if rows is None else rows) * ffn
        inputs = 2 * size if gated else size
        flops = (_ACTIVATION_FLOPS + (1 if gated else 0)) * size
        return self.elementwise(name, reads=inputs, writes=size, flops=flops, kept=inputs, shard=shard, expert=expert)

    # ---- embedding, head, loss -----------------------------------------------------------------------------------

    def embedding(
        self, name: str, rows: int, size: int, *, dropout: float = 0.0, tokens: int | None = None, owns: bool = True, shard: Shard = "vocab"
    ) -> Op:
        """A table look-up: T rows of ``size`` out of ``rows``; the whole table is owned, only what is looked up is read."""
        taken = (self.tokens if tokens is None else tokens) * size
        tokens = self.tokens if tokens is None else tokens
        mask = self._kept(taken * MASK_BYTES) if dropout > 0 else 0.0
        return Op(
            name=name, kind="embedding", flops=0.0, input_bytes=taken * self.width + tokens * TOKEN_ID_BYTES,
            output_bytes=taken * self.width + mask, params=rows * size if owns else 0, n=rows, k=size, m=tokens, shard=shard,
            saved_bytes=self._kept(tokens * TOKEN_ID_BYTES) + mask, saved_shard="sequence",
            reduces=shard == "vocab",
        )

    def lm_head(self, vocab: int, hidden: int, *, tied: bool = False, bias: bool = False, name: str = "lm_head") -> Op:
        """The output head; prefill computes the last token's logits only. ``tied``: the embedding owns the weight."""
        rows = 1 if self.purpose == "prefill" else self.tokens
        op = self.linear(name, vocab, hidden, bias=bias, shard="vocab", rows=rows, low_precision=False)
        if not tied:
            return op
        return _with_params(op, vocab if bias else 0)

    def loss(self, vocab: int, *, name: str = "loss") -> tuple[Op, ...]:
        """Cross entropy in fp32, whose logits are kept in fp32 (arXiv:2205.05198, section 4.3); nothing outside training."""
        if self.purpose != "train":
            return ()
        logits = self.tokens * vocab
        return (
            Op(
                name=name, kind="loss", flops=5.0 * logits, input_bytes=logits * self.width, output_bytes=float(logits * FP32_BYTES),
                shard="vocab", saved_bytes=float(logits * FP32_BYTES), saved_shard="vocab",
            ),
        )

    # ---- feed-forward --------------------------------------------------------------------------------------------

    def mlp(
        self,
        prefix: str,
        hidden: int,
        ffn: int,
        *,
        gated: bool = True,
        bias: bool = False,
        down_bias: bool | None = None,
        fused: bool = False,
        rows: int | None = None,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> tuple[Op, ...]:
        """A feed-forward layer, gated (three matrices) or plain (two).

        Args:
            prefix: Names are ``<prefix>.gate_proj`` and so on.
            hidden: h.
            ffn: Inner width.
            gated: ``act(gate) * up`` or ``act(up)``.
            bias: Of gate and up.
            down_bias: Of down; default as ``bias``.
            fused: gate and up are one matrix of width ``2*ffn``, named ``names[0]``.
            rows: Rows (default T).
            names: Names of gate, up and down.
        """
        gate, up, down = (f"{prefix}.{name}" for name in names)
        if gated and fused:
            first = [self.linear(gate, 2 * ffn, hidden, bias=bias, rows=rows, lora=True)]
        elif gated:
            first = [
                self.linear(gate, ffn, hidden, bias=bias, rows=rows, lora=True),
                self.linear(up, ffn, hidden, bias=bias, rows=rows, lora=True, keep_input=False),
            ]
        else:
            first = [self.linear(up, ffn, hidden, bias=bias, rows=rows, lora=True)]
        act = self.activation(f"{prefix}.act", ffn, gated=gated, rows=rows)
        last = self.linear(down, hidden, ffn, bias=bias if down_bias is None else down_bias, rows=rows, shard="row", lora=True)
        return (*first, act, last)

    # ---- mixture of experts --------------------------------------------------------------------------------------

    def router(self, name: str, experts: int, hidden: int, topk: int, *, bias: bool = False, extra_params: int = 0) -> Op:
        """Scores of all experts, softmax (or sigmoid) and top-k; keeps the layer's input, its scores, weights and indices.

        ``extra_params``: a correction bias that is not a matmul's.
        """
        op = self.linear(name, experts, hidden, bias=bias, shard="replicated", low_precision=False)
        kept = op.saved_bytes + self._kept(self.tokens * (experts * FP32_BYTES + topk * (FP32_BYTES + TOKEN_ID_BYTES)))
        return _as_router(op, op.params + extra_params, kept)

    def dispatch(self, name: str, hidden: int, topk: int) -> Op:
        """Copies each token to the rows of its experts; under expert parallelism what it writes crosses the group."""
        size = self.tokens * hidden
        return Op(
            name=name,
            kind="dispatch",
            flops=0.0,
            input_bytes=size * self.width,
            output_bytes=topk * size * self.width,
            m=self.tokens * topk,
            n=hidden,
            shard="sequence",
            saved_bytes=self._kept(self.tokens * topk * TOKEN_ID_BYTES),
            saved_shard="sequence",
            expert=True,
        )

    def combine(self, name: str, hidden: int, topk: int) -> Op:
        """Brings the experts' rows back and sums them by their weights (applied in the experts' activation, so nothing
        more is kept)."""
        size = self.tokens * hidden
        return Op(
            name=name, kind="dispatch", flops=float(topk * size), input_bytes=topk * size * self.width, output_bytes=size * self.width,
            m=self.tokens * topk, n=hidden, shard="sequence", expert=True,
        )

    def expert_linear(
        self, name: str, n: int, k: int, *, experts: int, topk: int, bias: bool = False, shard: Shard = "column", keep_input: bool = True,
    ) -> Op:
        """A grouped matmul over the experts: ``T*topk`` rows in ``experts`` groups, FLOPs of the rows that are routed.

        ``m`` is the average rows of a group, rounded up; the weights read are those of the groups that a sequence can
        reach; the params are all experts'.
        """
        rows = self.tokens * topk
        reached = min(experts, rows)
        owned = n * k + (n if bias else 0)
        return Op(
            name=name,
            kind="matmul",
            flops=2.0 * rows * n * k,
            input_bytes=rows * k * self.width,
            weight_bytes=reached * owned * self.width,
            output_bytes=rows * n * self.width,
            params=experts * owned,
            m=math.ceil(rows / reached),
            n=n,
            k=k,
            groups=reached,
            shard=shard,
            saved_bytes=self._kept(rows * k * self.width) if keep_input else 0.0,
            saved_shard="row" if shard == "row" else "sequence",
            expert=True,
            low_precision=True,
            reduces=shard == "row",
        )

    def experts(
        self,
        prefix: str,
        hidden: int,
        ffn: int,
        *,
        experts: int,
        topk: int,
        gated: bool = True,
        bias: bool = False,
        router_bias: bool = False,
        router_extra_params: int = 0,
        router: str = "router",
    ) -> tuple[Op, ...]:
        """Router, dispatch, the routed experts (gate and up as one grouped matmul) and combine."""
        rows = self.tokens * topk
        return (
            self.router(f"{prefix}.{router}", experts, hidden, topk, bias=router_bias, extra_params=router_extra_params),
            self.dispatch(f"{prefix}.dispatch", hidden, topk),
            self.expert_linear(
                f"{prefix}.experts.{'gate_up' if gated else 'up'}_proj",
                (2 if gated else 1) * ffn,
                hidden,
                experts=experts,
                topk=topk,
                bias=bias,
            ),
            self.activation(f"{prefix}.experts.act", ffn, gated=gated, rows=rows, expert=True),
            self.expert_linear(f"{prefix}.experts.down_proj", hidden, ffn, experts=experts, topk=topk, bias=bias, shard="row"),
            self.combine(f"{prefix}.combine", hidden, topk),
        )


def _as_kind(op: Op, kind: Literal["conv", "scan"]) -> Op:
    return msgspec.structs.replace(op, kind=kind)


def _with_params(op: Op, params: int) -> Op:
    return msgspec.structs.replace(op, params=params)


def _as_router(op: Op, params: int, saved_bytes: float) -> Op:
    return msgspec.structs.replace(op, kind="router", params=params, saved_bytes=saved_bytes, saved_shard="sequence")
