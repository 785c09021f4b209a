"""Workload, Block and Op: what is computed, in a form that any plan can cut.

A :class:`Workload` is written for **one sequence** of the batch on one chip, forward pass; predict scales it by the
micro-batch and cuts it by the plan. It is an ordered list of :class:`Block` (embedding, runs of like layers, head),
each a list of :class:`Op`.

FLOP conventions (one multiply-add is 2 FLOPs):

* ``Op.flops`` counts what a fused kernel executes: a causal mask halves attention, a sliding window cuts it.
* ``Op.flops_full`` counts the full square of scores, as most published MFU does (PaLM, arXiv:2204.02311, appendix B;
  Megatron-LM, arXiv:2104.04473, equation 3).
* The backward pass of a matmul or an attention is twice its forward pass; recomputation is not in either count.

Shapes: B = sequences, T = tokens of a sequence, M,N,K = matmul dims (M counts rows, that is tokens), G = groups.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["matmul", "attention", "norm", "elementwise", "embedding", "router", "loss", "scan", "conv", "dispatch"]
"""Op classes; efficiency priors are per class. ``conv`` carries the M,N,K of its implicit GEMM."""

Shard = Literal["column", "row", "heads", "vocab", "sequence", "replicated"]
"""How tensor parallelism of degree t cuts an op.

column: N/t. row: K/t, output needs a reduction over the group. heads: heads/t (attention, scan, elementwise over
column-cut activations). vocab: N/t of an embedding or output head. sequence: tokens/t with sequence parallelism
(norms, residuals), whole without. replicated: every rank does all of it.
"""

MATRIX_KINDS = frozenset({"matmul", "conv", "router"})
"""Kinds that the matrix unit computes where a shape is known."""

MODEL_FLOP_KINDS = frozenset({"matmul", "attention", "router", "scan", "conv"})
"""Kinds that count as model FLOPs, as in every published count; the rest keep the vector unit busy and are priced by bytes."""

DTYPE_BYTES: dict[str, float] = {
    "fp64": 8, "fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "fp4": 0.5, "int4": 0.5,
}


class AttentionShape(msgspec.Struct, frozen=True, kw_only=True):
    """Shape of one attention core (scores, softmax, weighted sum) of one sequence."""

    heads: int
    kv_heads: int
    qk_dim: int
    """Head dim of queries and keys."""
    v_dim: int
    q_len: int
    kv_len: int
    causal: bool
    window: int | None = None
    """Sliding or chunked window in tokens; None attends to all."""
    fused: bool = True
    """One kernel that never writes the scores to memory (flash); False: the score matrix is written, read and kept."""


class Op(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation of the forward pass on one sequence.

    Bytes and FLOPs are of the whole op (all groups, all heads), before any cut.
    """

    name: str
    """Unique inside its block, such as ``attn.q_proj``."""
    kind: Kind
    flops: float
    """Forward FLOPs as a fused kernel executes them (causal, windowed)."""
    flops_full: float | None = None
    """Forward FLOPs with the full score square, where it differs from ``flops``."""
    input_bytes: float
    """Activations read. For matmul M*K*groups*width."""
    weight_bytes: float = 0.0
    """Weights read, in the compute dtype; does not grow with the micro-batch."""
    output_bytes: float
    """Activations written."""
    params: int = 0
    """Weights that this op owns, bias included (0 when tied to another op's)."""
    m: int = 0
    """Rows (tokens, pixels) of a matmul or conv, per group."""
    n: int = 0
    k: int = 0
    groups: int = 1
    """Independent matmuls of the same shape: experts that a sequence may reach, heads of a batched product."""
    attention: AttentionShape | None = None
    shard: Shard = "replicated"
    saved_bytes: float = 0.0
    """Activations that the backward pass needs and no other op has already kept (arXiv:2205.05198, section 4.1)."""
    saved_shard: Shard = "sequence"
    """How the saved activations are cut."""
    core: bool = False
    """In the attention core that selective recomputation repeats (arXiv:2205.05198, section 5)."""
    expert: bool = False
    """Belongs to a routed expert: its weights are cut by expert parallelism."""
    low_precision: bool = False
    """A linear layer that fp8/int8 recipes compute in the low precision (not heads, routers or attention cores)."""
    trainable_lora: bool = False
    """A linear layer that LoRA adapts by default."""
    reduces: bool = False
    """Ends a tensor-parallel region: its output is all-reduced (or reduce-scattered with sequence parallelism)."""
    backward_flops: float | None = None
    """None: twice the forward."""

    @property
    def is_product(self) -> bool:
        """Whether the matrix unit computes it, by a shape that is known."""
        return self.kind in MATRIX_KINDS and self.k > 0

    @property
    def is_attention_core(self) -> bool:
        """Whether it is an attention kernel of a shape that is known. What is neither that nor a product is bound by memory."""
        return self.kind == "attention" and self.attention is not None

    @property
    def is_launched(self) -> bool:
        """Whether it is a kernel: a view is none."""
        return bool(self.input_bytes or self.output_bytes)

    @property
    def forward_bytes(self) -> float:
        """Bytes read and written by the forward pass."""
        return self.input_bytes + self.weight_bytes + self.output_bytes

    @property
    def full_flops(self) -> float:
        """Forward FLOPs under the full-square convention."""
        return self.flops if self.flops_full is None else self.flops_full


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A run of ``count`` equal layers (or the embedding, or the head)."""

    name: str
    role: Literal["embedding", "layer", "head"]
    count: int = 1
    ops: tuple[Op, ...]
    hidden_size: int = 0
    """Width of the activation that crosses the block's boundary (pipeline sends, residual stream)."""
    experts: int = 0
    """Routed experts of the block; 0 where dense."""
    experts_per_token: int = 0

    @property
    def params(self) -> int:
        """Weights of one layer of the run."""
        return sum(op.params for op in self.ops)

    @property
    def expert_params(self) -> int:
        """Weights of one layer that belong to routed experts."""
        return sum(op.params for op in self.ops if op.expert)


class Unfused(msgspec.Struct, frozen=True, kw_only=True):
    """What the memory-bound ops of a program cost where each runs as a kernel of its own, as in eager PyTorch; of one sequence.

    Index 0 is the forward pass, 1 the backward.
    """

    moved_bytes: tuple[float, float]
    """Read and written, in whichever dtype ``fused_bytes`` are: what counts is the one over the other."""
    calls: tuple[int, int]
    """Of a micro-batch, however many sequences it has."""
    fused_bytes: float
    """Read and written by the same ops in the forward pass as the blocks have them, losses apart."""
    fused_loss_bytes: float
    fused_kernels: int


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is computed for one sequence: an ordered list of blocks."""

    name: str
    family: str
    purpose: Literal["train", "prefill", "decode"] = "train"
    seq_len: int
    dtype: str = "bf16"
    """Dtype of activations and compute weights, which sets the bytes."""
    blocks: tuple[Block, ...]
    tokens_per_sequence: int
    """Tokens (patches for vision) that a sequence counts as in tokens/s."""
    unpriced: tuple[str, ...] = ()
    """Names of parts that the builder knows of but cannot price; their share is unknown, never zero."""
    unpriced_bytes_share: float | None = None
    """Share of the forward pass' bytes that the unpriced parts move; None: unknown."""
    trainable_share: float = 1.0
    """Share of the weights that have gradients and optimizer states; where a program freezes some, of each part alike."""
    unfused: Unfused | None = None
    """What an eager run adds to the ops, which are those of fused kernels; None: not known."""
    shards_known: bool = True
    """Whether the ops say how tensor and context parallelism cut them; else only plans without either are legal."""
    notes: tuple[str, ...] = ()
    """Conventions and departures that a reader must know."""

    @property
    def params(self) -> int:
        """All weights, tied ones once."""
        return sum(block.params * block.count for block in self.blocks)

    @property
    def active_params(self) -> int:
        """Weights that one token touches: routed experts count topk/experts of themselves."""
        total = 0.0
        for block in self.blocks:
            share = block.experts_per_token / block.experts if block.experts else 1.0
            total += block.count * (block.params - block.expert_params + share * block.expert_params)
        return round(total)

    def flops(self, *, convention: Literal["causal", "full"] = "causal") -> float:
        """Forward model FLOPs of one sequence (:data:`MODEL_FLOP_KINDS`) under the convention that the module states."""
        return sum(
            block.count
            * sum(op.flops if convention == "causal" else op.full_flops for op in block.ops if op.kind in MODEL_FLOP_KINDS)
            for block in self.blocks
        )
