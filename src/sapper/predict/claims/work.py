"""Work: the least that a model must compute and move, whatever the software.

Every figure is a lower bound: causal attention, nothing repeated, each weight read once a step, key and value cache in
the narrowest format in use (8 bits), nothing for what the model's builder cannot price.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Protocol

import msgspec

from sapper.errors import SapperError
from sapper.predict.rows.models import workload_of
from sapper.predict.rows.row import Model, Row, RowFault
from sapper.workloads.dims import from_dims
from sapper.workloads.model import Model as Built
from sapper.workloads.op import DTYPE_BYTES, Workload

KV_SHARE = 0.5
"""Bytes of an 8-bit cache over those of a 16-bit one."""
NAMED = 0.9
"""Of the params that a name or a row states: what is surely multiplied (embeddings are looked up)."""


class Work(Protocol):
    """What a model costs at the least."""

    @property
    def weights(self) -> float:
        """Weights that one token touches."""

    @property
    def all_weights(self) -> float:
        """Weights that must lie in memory."""

    def decode_flops(self, context: int) -> float:
        """FLOPs of one new token that sees ``context`` tokens."""

    def prefill_flops(self, tokens: int) -> float:
        """FLOPs of reading a prompt."""

    def cache_bytes(self, context: int) -> float:
        """Bytes of keys and values that one new token reads."""


class BuiltWork:
    """Of a model whose ops are known."""

    def __init__(self, model: Built) -> None:
        self._model = model

    @functools.cached_property
    def weights(self) -> float:
        """Weights of the matmuls that one token touches."""
        workload = self._one()
        if not self._model.causal:
            return float(self._model.active_params)
        read = (block.count * sum(op.weight_bytes for op in block.ops if op.kind in ("matmul", "router")) for block in workload.blocks)
        return sum(read) / DTYPE_BYTES[workload.dtype]

    @property
    def all_weights(self) -> float:
        """Every weight, tied ones once."""
        return float(self._model.params)

    def decode_flops(self, context: int) -> float:
        """FLOPs of one new token."""
        return _flops(self._decode(context))

    def prefill_flops(self, tokens: int) -> float:
        """FLOPs of a prompt, the logits of its last token included."""
        return _flops(_workload(self._model, self._model.fixed_seq_len or tokens, purpose="prefill"))

    def cache_bytes(self, context: int) -> float:
        """Keys and values; zero for latent attention, whose cache is smaller than its heads say."""
        workload = self._decode(context)
        ops = [(block.count, op) for block in workload.blocks for op in block.ops]
        if any("kv_a" in op.name for _, op in ops):
            return 0.0
        return KV_SHARE * sum(
            count * 2.0 * shape.kv_heads * (shape.qk_dim + shape.v_dim) * min(context, shape.window or context)
            for count, op in ops if (shape := op.attention) is not None
        )

    def _one(self) -> Workload:
        return self._decode(1) if self._model.causal else _workload(self._model, self._model.fixed_seq_len or 1, purpose="prefill")

    def _decode(self, context: int) -> Workload:
        return _workload(self._model, context, purpose="decode" if self._model.causal else "prefill")


class NamedWork:
    """Of a model of which only the size is known, from the row or from its name (``397B-A17B``)."""

    def __init__(self, *, params: float, active: float) -> None:
        self.weights = NAMED * active
        self.all_weights = NAMED * params

    def decode_flops(self, context: int) -> float:
        """Two FLOPs a weight."""
        return 2.0 * self.weights

    def prefill_flops(self, tokens: int) -> float:
        """Two FLOPs a weight and token."""
        return 2.0 * self.weights * tokens

    def cache_bytes(self, context: int) -> float:
        """Unknown, and so nothing."""
        return 0.0


@functools.lru_cache(maxsize=4096)
def _workload(model: Built, seq_len: int, *, purpose: str) -> Workload:
    return model.workload(seq_len, purpose="decode" if purpose == "decode" else "prefill")


@functools.lru_cache(maxsize=4096)
def _flops(workload: Workload) -> float:
    return workload.flops()


def work_of(model: Model) -> Work | None:
    """The least work of a model; None where neither its dims, its name nor its size are known."""
    return _work(json.dumps({key: value for key, value in msgspec.to_builtins(model).items() if value is not None and key != "seq_len"}))


@functools.lru_cache(maxsize=1024)
def _work(dims: str) -> Work | None:
    stated = json.loads(dims)
    try:
        return BuiltWork(from_dims(stated))
    except SapperError:
        return _named(str(stated.get("name") or ""), stated.get("params_b"), moe=stated.get("arch") != "dense")


_SIZES = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?:-a(\d+(?:\.\d+)?)b)?(?![a-z0-9])", re.IGNORECASE)


def _named(name: str, params_b: float | None, *, moe: bool) -> Work | None:
    """Sizes as the name tells; of a mixture whose active params nobody tells nothing is known."""
    found = _SIZES.search(name)
    total = params_b or (float(found[1]) if found else None)
    if total is None or (moe and not (found and found[2])):
        return None
    active = float(found[2]) if found and found[2] else total
    return NamedWork(params=total * 1e9, active=min(active, total) * 1e9)


def training_flops_per_token(row: Row) -> float | None:
    """FLOPs of forward and backward pass for one token; None where the model is unknown.

    Three forward passes (arXiv:2204.02311, appendix B), two where the base weights are frozen (arXiv:2106.09685).
    """
    try:
        workload, _ = workload_of(row, dtype="bf16", attention="flash")
    except (RowFault, SapperError):
        return None
    passes = 2.0 if re.search("lora", row.model.name, re.IGNORECASE) else 3.0
    return passes * _flops(workload) / workload.tokens_per_sequence
