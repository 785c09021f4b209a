"""Model: what a config file describes, from which workloads of any length are built."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from sapper.errors import BadValue
from sapper.workloads.kit import ATTENTION_IMPLS, PURPOSES, AttentionImpl, Kit, Purpose
from sapper.workloads.op import DTYPE_BYTES, Block, Op, Unfused, Workload

MAX_SEQ_LEN = 2**27
"""Longer than any context in use; beyond it somebody mistyped."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """An architecture with its sizes.

    ``blocks`` makes the blocks of a workload from a kit; everything that is counted comes from the ops in them, so that
    the params of a model and of its workloads cannot differ.
    """

    name: str
    family: str
    """The ``model_type`` of its config."""
    layers: int
    hidden: int
    heads: int
    """Query heads; 0 where no layer has attention."""
    kv_heads: int
    head_dim: int
    vocab: int
    """Rows of the token embedding; 0 where there are no tokens."""
    blocks: Callable[[Kit], tuple[Block, ...]] = field(repr=False)
    layer_types: tuple[str, ...]
    """The type of each layer in order, such as ``sliding``, ``full``, ``dense``, ``moe``, ``full+moe``."""
    max_positions: int | None = None
    fixed_seq_len: int | None = None
    """The one length that the model has (vision: patches and class token)."""
    weights_dtype: str | None = None
    """Dtype that the published weights are quantised to; None: not quantised."""
    causal: bool = True
    sequence_tokens: Callable[[int], int] | None = field(default=None, repr=False)
    """Tokens that a sequence of the given length counts as; None: its length."""
    unpriced: tuple[str, ...] = ()
    unpriced_bytes_share: float | None = None
    """Share of the forward pass' bytes that the unpriced parts move; None: unknown."""
    trainable_share: float = 1.0
    """Share of the weights that are not frozen."""
    unfused: Unfused | None = None
    """What its memory-bound ops cost one by one; None: not known."""
    shards_known: bool = True
    """Whether it is known how tensor and context parallelism cut it."""
    origin: Literal["bundled", "config", "capture"] = "config"
    """Whether it is a bundled model, a config of the user's or a captured program."""
    notes: tuple[str, ...] = ()
    source: str = ""
    """File or bundled name that it was read from."""

    def workload(
        self, seq_len: int | None = None, *, purpose: Purpose = "train", dtype: str = "bf16", attention_impl: AttentionImpl = "flash",
    ) -> Workload:
        """What one sequence of ``seq_len`` tokens computes.

        Args:
            seq_len: Tokens of a sequence (in decode: of the context that one new token sees). None: the model's fixed length.
            purpose: ``train`` keeps activations and has a loss; ``prefill`` computes the last token's logits only;
                ``decode`` computes one new token.
            dtype: Dtype of activations and compute weights.
            attention_impl: ``flash`` (fused) or ``unfused``, which moves and keeps the score matrix.

        Raises:
            BadValue: A length that is not positive or that the model cannot have, an unknown dtype or purpose, ``decode``
                of a model that does not generate.
        """
        seq_len = self._checked_length(seq_len)
        for value, known, what in (
            (purpose, PURPOSES, "purpose"),
            (dtype, tuple(DTYPE_BYTES), "dtype"),
            (attention_impl, ATTENTION_IMPLS, "attention_impl"),
        ):
            if value not in known:
                raise BadValue("SP-MODEL-011", where=what, value=str(value), known=", ".join(known))
        if purpose == "decode" and self.origin == "capture":
            raise BadValue("SP-CAP-027", where="purpose", model=self.name)
        if purpose == "decode" and not self.causal:
            raise BadValue("SP-MODEL-012", where="purpose", model=self.name)
        blocks = self.blocks(Kit.of(seq_len, purpose=purpose, dtype=dtype, attention_impl=attention_impl))
        tokens = seq_len if self.sequence_tokens is None else self.sequence_tokens(seq_len)
        return Workload(
            name=self.name, family=self.family, purpose=purpose, seq_len=seq_len, dtype=dtype, blocks=blocks,
            tokens_per_sequence=1 if purpose == "decode" else tokens, unpriced=self.unpriced, notes=self.notes,
            unpriced_bytes_share=self.unpriced_bytes_share, shards_known=self.shards_known,
            trainable_share=self.trainable_share, unfused=self.unfused,
        )

    def _checked_length(self, seq_len: int | None) -> int:
        if seq_len is None:
            if self.fixed_seq_len is None:
                raise BadValue("SP-MODEL-013", where="seq_len", model=self.name)
            return self.fixed_seq_len
        if isinstance(seq_len, bool) or not isinstance(seq_len, int) or not 0 < seq_len <= MAX_SEQ_LEN:
            raise BadValue("SP-MODEL-014", where="seq_len", value=str(seq_len), limit=MAX_SEQ_LEN)
        if self.fixed_seq_len is not None and seq_len != self.fixed_seq_len:
            raise BadValue("SP-MODEL-015", where="seq_len", value=seq_len, model=self.name, fixed=self.fixed_seq_len)
        return seq_len

    @functools.cached_property
    def _smallest(self) -> Workload:
        return self.workload(self.fixed_seq_len or 1)

    @property
    def params(self) -> int:
        """All weights, tied ones once; equal to the Transformers library's count."""
        return self._smallest.params

    @property
    def active_params(self) -> int:
        """Weights that one token touches."""
        return self._smallest.active_params

    @property
    def layer_counts(self) -> dict[str, int]:
        """Layers by type, in order of first appearance."""
        counts: dict[str, int] = {}
        for kind in self.layer_types:
            counts[kind] = counts.get(kind, 0) + 1
        return counts


def stack(
    layer_types: Iterable[str],
    make: Callable[[str], tuple[Op, ...]],
    *,
    hidden: int,
    experts: Callable[[str], tuple[int, int]] | None = None,
    prefix: str = "layers",
) -> tuple[Block, ...]:
    """The layers as runs of like neighbours, in order.

    Args:
        layer_types: The type of each layer.
        make: Makes the ops of one layer of a type; called once per type, so that equal layers share one ``ops`` tuple
            (which consumers may use as the key of a cache).
        hidden: Width of the activation between layers.
        experts: Routed experts and experts per token of a type; None: all dense.
        prefix: Blocks are called ``layers.0``, or ``layers.0-31`` for a run.
    """
    made: dict[str, tuple[Op, ...]] = {}
    blocks = []
    start = 0
    for kind, run in itertools.groupby(layer_types):
        count = sum(1 for _ in run)
        if kind not in made:
            made[kind] = make(kind)
        routed, topk = experts(kind) if experts else (0, 0)
        name = f"{prefix}.{start}" if count == 1 else f"{prefix}.{start}-{start + count - 1}"
        blocks.append(
            Block(name=name, role="layer", count=count, ops=made[kind], hidden_size=hidden, experts=routed, experts_per_token=topk),
        )
        start += count
    return tuple(blocks)
