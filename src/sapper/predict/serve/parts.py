"""What a model is to a server: its linear layers, its caches, its states, counted once and cut by any plan.

Everything is read from the model's own workloads: one new token that sees :data:`CONTEXT` tokens (purpose decode, so that
latent attention is in its absorbed form) and a prompt (purpose prefill, whose attention cores give the query-key pairs).
Shape legend: L = distinct linear layers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Bools, Floats
from sapper.workloads.model import Model
from sapper.workloads.op import AttentionShape, Block, Op, Workload

CONTEXT = 2**20
"""Longer than any window, so that a shape without one attends to all of it."""
LINEAR_KINDS = ("matmul", "router")
COLUMN = ("column", "vocab")


@dataclass(frozen=True)
class Linears:
    """The distinct linear layers of a model; arrays of length L."""

    rows: Floats
    """Rows of the matmul for each token (1 for all but unusual layers); of one expert's matmul: topk."""
    n: Floats
    k: Floats
    groups: Floats
    """Independent matmuls of that shape; of experts all of them."""
    layers: Floats
    """How often the layer occurs in the model."""
    topk: Floats
    """Experts that a token takes; 0 where dense."""
    column: Bools
    """Cut along n by tensor parallelism."""
    row: Bools
    """Cut along k."""
    most_cut: Floats
    """Greatest degree that the cut can have: key and value heads cannot be cut further (they are copied)."""
    quantised: Bools
    """Stored in the job's weight dtype; the others stay in its activation dtype."""
    head: Bools
    """Computed for sequences, not for tokens of a prompt."""
    bias: Floats
    """Values of the bias of one group."""

    @property
    def expert(self) -> Bools:
        """Layers of routed experts."""
        return self.topk > 0


@dataclass(frozen=True)
class Cache:
    """All layers of one cache type."""

    layers: int
    window: int | None
    heads: int
    kv_heads: int
    """1 for the latent cache of MLA, which tensor parallelism copies to every chip."""
    key_dim: int
    value_dim: int
    """Values cached beside the keys; 0 for MLA, whose values are a part of its keys."""
    token_flops: float
    """FLOPs of one new token for each cached token that it reads, all heads of one layer."""
    pair_flops: float
    """FLOPs of one query-key pair of a prompt, all heads of one layer."""

    def sharing(self, tp: int) -> float:
        """Query heads of a chip that share one cached head; 1 for MLA, whose kernels are built around the sharing."""
        return max(self.heads / tp, 1.0) / max(self.kv_heads / tp, 1.0) if self.value_dim else 1.0

    def token_values(self, tp: int) -> float:
        """Cached values of one token on one chip, all layers (GQA, arXiv:2305.13245: heads beyond ``kv_heads`` are copies)."""
        return self.layers * (self.key_dim + self.value_dim) * max(self.kv_heads / tp, 1.0)


@dataclass(frozen=True)
class Parts:
    """A model as a server sees it."""

    linears: Linears
    caches: tuple[Cache, ...]
    state_values: float
    """Recurrent state of one sequence in fp32 values, all layers."""
    vector_whole: float
    """Activation values that element-wise kernels move for each token, on every chip of a tensor-parallel group."""
    vector_cut: float
    """The same for what the group shares."""
    kernels: float
    """Launched in one iteration, projections of one input and residual adds fused as engines do."""
    reductions: float
    """Tensor-parallel reductions of one iteration, each of ``hidden`` values a token."""
    routed_layers: float
    """Layers of routed experts."""
    hidden: int
    layers: int
    loose_params: float
    """Weights that are no linear layer: embeddings, norms, convolutions."""
    vocab_params: float
    """Of them, rows of embedding tables, which tensor parallelism cuts."""
    untied: bool
    """Whether the head has weights of its own."""
    ops: int
    """Ops of one iteration, for the coverage."""
    unpriced: tuple[str, ...]


@functools.lru_cache(maxsize=256)
def parts_of(model: Model) -> Parts:
    """The parts of a model that generates.

    Raises:
        BadValue: The model does not generate (``SP-MODEL-012``).
    """
    decode = model.workload(CONTEXT, purpose="decode")
    prompt = model.workload(1, purpose="train")
    found = _Found()
    for block, alike in zip(decode.blocks, prompt.blocks, strict=True):
        found.take(block, alike)
    return Parts(
        linears=_linears(found.linears), caches=_caches(found.attentions), state_values=found.state, vector_whole=found.whole,
        vector_cut=found.cut, kernels=found.kernels, reductions=found.reductions, routed_layers=found.routed, hidden=model.hidden,
        layers=sum(b.count for b in decode.blocks if b.role == "layer"), loose_params=_loose(prompt), vocab_params=_vocab(prompt),
        untied=any(op.kind in LINEAR_KINDS and op.params >= op.n * op.k for b in prompt.blocks if b.role == "head" for op in b.ops),
        ops=sum(b.count * len(b.ops) for b in decode.blocks), unpriced=decode.unpriced,
    )


class _Found:
    """What the walk over the blocks gathers."""

    def __init__(self) -> None:
        self.linears: dict[tuple[object, ...], float] = {}
        self.attentions: dict[tuple[object, ...], int] = {}
        self.state = self.whole = self.cut = self.kernels = self.reductions = self.routed = 0.0

    def take(self, block: Block, alike: Block) -> None:
        """Add a run of layers; ``alike`` is the same run in a workload of one prompt token."""
        prompt = {op.name: op for op in alike.ops}
        shapes = [op.attention for op in block.ops if op.attention is not None]
        self.routed += block.count if block.experts else 0
        self.kernels += block.count * _kernels(block)
        for op in block.ops:
            self.reductions += block.count if op.reduces and op.kind != "embedding" else 0
            if op.kind in LINEAR_KINDS and op.k > 0:
                key = _linear_key(op, block, shapes)
                self.linears[key] = self.linears.get(key, 0.0) + block.count
            elif op.kind == "attention" and op.attention is not None:
                key = _attention_key(op, prompt[op.name])
                self.attentions[key] = self.attentions.get(key, 0) + block.count
            else:
                self._vector(op, prompt.get(op.name), block.count)

    def _vector(self, op: Op, prompt: Op | None, count: int) -> None:
        width = 2.0
        state_bytes = max(op.output_bytes - prompt.output_bytes, 0.0) if op.kind == "scan" and prompt is not None else 0.0
        self.state += count * state_bytes / 4.0
        values = count * (op.input_bytes + op.output_bytes - 2.0 * state_bytes) / width
        if op.shard in ("column", "row", "heads"):
            self.cut += values
        else:
            self.whole += values


def _linear_key(op: Op, block: Block, shapes: list[AttentionShape]) -> tuple[object, ...]:
    column, row = op.shard in COLUMN, op.shard in ("row", "heads")
    groups = float(block.experts) if op.expert else float(max(op.groups, 1))
    rows = float(block.experts_per_token) if op.expert else float(max(op.m, 1))
    topk = float(block.experts_per_token) if op.expert else 0.0
    most = np.inf
    for shape in shapes:
        if column and op.n in (shape.kv_heads * shape.qk_dim, shape.kv_heads * shape.v_dim) and shape.kv_heads < shape.heads:
            most = float(shape.kv_heads)
    biases = op.weight_bytes / 2.0 / (min(block.experts, block.experts_per_token) if op.expert else 1.0)
    bias = max(biases - op.n * op.k * (1.0 if op.expert else groups), 0.0)
    head = block.role == "head"
    return rows, float(op.n), float(op.k), groups, topk, column, row, most, op.low_precision, head, bias


def _linears(found: dict[tuple[object, ...], float]) -> Linears:
    columns = list(zip(*found, strict=True)) if found else [()] * 11
    rows, n, k, groups, topk, column, row, most, quantised, head, bias = (np.array(values) for values in columns)
    return Linears(
        rows=rows.astype(float), n=n.astype(float), k=k.astype(float), groups=groups.astype(float),
        layers=np.array(list(found.values()), float),
        topk=topk.astype(float), column=column.astype(bool), row=row.astype(bool), most_cut=most.astype(float),
        quantised=quantised.astype(bool), head=head.astype(bool), bias=bias.astype(float),
    )


def _attention_key(op: Op, prompt: Op) -> tuple[object, ...]:
    shape, own = op.attention, prompt.attention
    assert shape is not None and own is not None
    window = shape.window if shape.kv_len == CONTEXT else shape.kv_len
    latent = shape.kv_heads == 1 and shape.v_dim < shape.qk_dim and own.kv_heads > 1
    value_dim = 0 if latent else shape.v_dim
    token = 2.0 * shape.heads * (shape.qk_dim + shape.v_dim)
    return window, shape.heads, shape.kv_heads, shape.qk_dim, value_dim, token, 2.0 * own.heads * (own.qk_dim + own.v_dim)


def _caches(found: dict[tuple[object, ...], int]) -> tuple[Cache, ...]:
    names = ("window", "heads", "kv_heads", "key_dim", "value_dim", "token_flops", "pair_flops")
    return tuple(Cache(layers=count, **dict(zip(names, key, strict=True))) for key, count in found.items())  # type: ignore[arg-type]


def _kernels(block: Block) -> float:
    """Kernels of one layer: engines fuse projections of one input, gate with up, and residual adds with the next norm."""
    count, before = 0.0, None
    for op in block.ops:
        if op.name.endswith("residual") or not (op.input_bytes or op.output_bytes):
            continue
        fused = (
            before is not None and op.kind == before.kind == "matmul" and op.shard == before.shard == "column" and op.k == before.k
            and not op.expert
        )
        count += 0.0 if fused else 1.0
        before = op
    return count


def _loose(workload: Workload) -> float:
    return float(sum(b.count * op.params for b in workload.blocks for op in b.ops if not (op.kind in LINEAR_KINDS and op.k > 0)))


def _vocab(workload: Workload) -> float:
    return float(sum(b.count * op.params for b in workload.blocks for op in b.ops if op.kind == "embedding" and op.shard == "vocab"))
