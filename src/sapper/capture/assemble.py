"""From measured kernels to blocks: per-sample numbers, runs of equal layers, embedding and head.

Two batches separate what grows with the batch from what does not: of a number ``x`` at batches ``b1 < b2``, the part per
sample is ``(x2 - x1) / (b2 - b1)`` and the rest is fixed. Fixed bytes (weights, tables, masks) become ``weight_bytes``,
which no micro-batch multiplies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sapper.capture.measure import Measured, Measurement
from sapper.workloads.op import MODEL_FLOP_KINDS, Block, Op

BACKWARD_RATIO = {"attention": 2.5}
"""Backward over forward FLOPs that predict assumes where an op says nothing; 2 for the other kinds."""
ROUTERS = ("gate", "router", "wg")
"""Last part of a router's module path, where the layer has routed experts."""


@dataclass(frozen=True)
class Pair:
    """The same kernels at two batches; ``second`` is None where the program runs at one batch only."""

    batch: int
    first: Measurement
    second_batch: int
    second: Measurement | None

    @classmethod
    def of(cls, batch: int, first: Measurement, second_batch: int, second: Measurement | None) -> Pair:
        """Pairs two measurements, if they are of the same kernels."""
        alike = second is not None and [(k.name, k.unit, k.ops) for k in first.kernels] == [(k.name, k.unit, k.ops) for k in second.kernels]
        return cls(batch, first, second_batch, second if alike else None)

    def per_sample(self, at: int, number: Callable[[Measured], float]) -> tuple[float, float]:
        """(part per sample, fixed part) of a number of kernel ``at``."""
        one = number(self.first.kernels[at])
        if self.second is None:
            return one / self.batch, 0.0
        slope = (number(self.second.kernels[at]) - one) / (self.second_batch - self.batch)
        fixed = one - slope * self.batch
        if slope < 0 or fixed < 0:  # grows faster than the batch (products over it): all of it is per sample
            return one / self.batch, 0.0
        return slope, fixed


def blocks_of(pair: Pair, sizes: Mapping[str, int], *, boundary_elements: Mapping[str, float], seq_len: int) -> tuple[Block, ...]:
    """The blocks of a workload.

    Args:
        pair: The kernels.
        sizes: Weight -> elements.
        boundary_elements: Module -> elements that it returns for one sample.
        seq_len: Tokens of a sample.
    """
    units = [kernel.unit for kernel in pair.first.kernels]
    sections = _sections(units)
    owner = _idle(pair.first.unread, list(sections))
    layers: list[Block] = []
    ends: dict[str, Block] = {}
    for unit, positions in sections.items():
        ops = _without_constants([op for at in positions for op in _ops(pair, at, sizes, layer=unit not in ("<embedding>", "<head>"))])
        if idle := owner.get(unit):
            ops.append(_carrier("unused", params=sum(sizes[name] for name in idle)))
        if unit in ("<embedding>", "<head>"):
            ends[unit] = Block(name=unit.strip("<>"), role="embedding" if unit == "<embedding>" else "head", ops=tuple(ops))
            continue
        path = unit.rpartition("#")[0]
        elements = boundary_elements.get(path, 0.0)
        layers.append(_layer(path or "model", ops, hidden=round(elements / seq_len), seq_len=seq_len))
    return (*(ends[k] for k in ("<embedding>",) if k in ends), *_runs(layers), *(ends[k] for k in ("<head>",) if k in ends))


def fixed_flops(pair: Pair) -> float:
    """FLOPs of the model-FLOP kinds that do not grow with the batch."""
    kernels = pair.first.kernels
    return sum(pair.per_sample(at, lambda k: k.flops)[1] for at, one in enumerate(kernels) if one.kind in MODEL_FLOP_KINDS)


def _sections(units: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the kernels of each layer in order; before the first layer is the embedding, after the last the head,
    and what runs between two layers belongs to the one before. Without layers all is one."""
    inside = [at for at, unit in enumerate(units) if unit]
    found: dict[str, list[int]] = {}
    current = ""
    for at, unit in enumerate(units):
        current = unit or current
        if not inside:
            key = "#1"
        elif at < inside[0]:
            key = "<embedding>"
        elif at > inside[-1]:
            key = "<head>"
        else:
            key = current
        found.setdefault(key, []).append(at)
    return found


def _idle(unread: Sequence[str], sections: Sequence[str]) -> dict[str, list[str]]:
    """Weights that nothing read, by the section of the layer that they lie in; the others go to the head, else to the embedding,
    so that a layer stays equal to its neighbours, else to the last section."""
    found: dict[str, list[str]] = {}
    others = next((name for name in ("<head>", "<embedding>") if name in sections), sections[-1] if sections else "")
    for name in unread:
        paths = ((section, section.rpartition("#")[0]) for section in sections)
        home = next((section for section, path in paths if path and name.startswith(f"{path}.")), others)
        found.setdefault(home, []).append(name)
    return found


def _ops(pair: Pair, at: int, sizes: Mapping[str, int], *, layer: bool) -> list[Op]:
    one = pair.first.kernels[at]
    flops, _ = pair.per_sample(at, lambda k: k.flops)
    full, _ = pair.per_sample(at, lambda k: k.flops_full)
    reads, fixed_reads = pair.per_sample(at, lambda k: k.read_bytes)
    writes, fixed_writes = pair.per_sample(at, lambda k: k.written_bytes)
    saved, _ = pair.per_sample(at, lambda k: k.saved_bytes)
    m, groups = _rows(pair, at, flops)
    params = sum(sizes[name] for name in one.owns)
    owns_table = one.kind in ("matmul", "conv", "router") and any(name in sizes for name in one.weights)
    linear = layer and owns_table and one.kind == "matmul"
    op = Op(
        name=one.name, kind=one.kind, flops=flops, flops_full=full if full != flops else None, input_bytes=reads,
        weight_bytes=fixed_reads + fixed_writes, output_bytes=writes, params=params, m=m, n=one.n, k=one.k, groups=groups,
        attention=one.attention, shard=one.cut.shard, saved_bytes=saved, saved_shard=one.cut.saved, core=one.kind == "attention",
        expert=one.expert, low_precision=linear, trainable_lora=linear and not one.expert, reduces=one.cut.reduces,
        backward_flops=_backward(one, flops),
    )
    heads, _ = pair.per_sample(at, lambda k: k.heads_bytes)
    if not heads:
        return [op]
    return [_carrier(f"{one.name}.heads", saved_bytes=heads, like=op), op]


def _without_constants(ops: list[Op]) -> list[Op]:
    """Tables and masks that no sample enters (positions, rotary angles) as one op: a stack makes them once and keeps them."""

    def constant(op: Op) -> bool:
        moved = op.input_bytes + op.output_bytes + op.saved_bytes + op.params
        return op.kind in ("elementwise", "dispatch", "norm") and not moved

    made = [op for op in ops if constant(op)]
    if len(made) < 2:
        return ops
    one = msgspec.structs.replace(
        made[0], name="constants", kind="elementwise", flops=0.0, weight_bytes=sum(op.weight_bytes for op in made), m=0, n=0, k=0
    )
    first = ops.index(made[0])
    return [one if at == first else op for at, op in enumerate(ops) if at == first or not constant(op)]


def _carrier(name: str, *, params: int = 0, saved_bytes: float = 0.0, like: Op | None = None) -> Op:
    """An op that does nothing but own weights or keep activations (``q``, ``k`` and ``v``, which selective recomputation
    does not free; see :mod:`sapper.workloads.kit`)."""
    shard = "replicated" if like is None else like.shard
    return Op(
        name=name, kind="elementwise", flops=0.0, input_bytes=0.0, output_bytes=0.0, params=params, saved_bytes=saved_bytes, shard=shard,
        saved_shard=shard,
    )


def _backward(one: Measured, flops: float) -> float | None:
    """Backward FLOPs per sample where they are not the usual multiple of the forward's."""
    if one.kind not in MODEL_FLOP_KINDS or not one.flops:
        return None
    ratio = one.backward_flops / one.flops
    usual = BACKWARD_RATIO.get(one.kind, 2.0)
    return None if abs(ratio - usual) < 1e-9 else ratio * flops


def _rows(pair: Pair, at: int, flops: float) -> tuple[int, int]:
    """M and groups for one sample: whichever of the two grows with the batch is divided by it."""
    one = pair.first.kernels[at]
    if one.attention is not None or not one.n or not one.k:
        return round(pair.per_sample(at, lambda k: k.m)[0]) if one.m else 0, one.groups
    if one.expert and one.m:
        rows = flops / (2.0 * one.n * one.k)
        groups = max(1, min(one.groups, int(rows)))
        return -int(-rows // groups), groups
    second = one if pair.second is None else pair.second.kernels[at]
    if one.m != second.m or one.groups == second.groups:
        return max(1, round(flops / (2.0 * one.n * one.k * one.groups))) if flops else one.m, one.groups
    return one.m, max(1, round(pair.per_sample(at, lambda k: k.groups)[0]))


def _layer(path: str, ops: list[Op], *, hidden: int, seq_len: int) -> Block:
    routed = next((op for op in ops if op.expert and op.n and op.k and op.params), None)
    experts = topk = 0
    if routed is not None:
        experts = max(1, round(routed.params / (routed.n * routed.k)))
        topk = max(1, round(routed.flops / (2.0 * routed.n * routed.k) / seq_len))
        ops = [_router(op) for op in ops]
    return Block(name=path, role="layer", ops=tuple(ops), hidden_size=hidden, experts=experts, experts_per_token=min(topk, experts))


def _router(op: Op) -> Op:
    """A small product that is named as routers are; recipes keep it in the wide precision."""
    last = [part for part in op.name.split(".") if not part.isdigit()][-1]
    if op.kind != "matmul" or op.expert or last not in ROUTERS:
        return op
    return msgspec.structs.replace(op, kind="router", low_precision=False, trainable_lora=False)


def _runs(layers: list[Block]) -> list[Block]:
    """Equal neighbours as one block."""
    found: list[Block] = []
    for _, run in itertools.groupby(layers, key=lambda block: (block.ops, block.hidden_size, block.experts, block.experts_per_token)):
        members = list(run)
        name = members[0].name if len(members) == 1 else f"{members[0].name}-{members[-1].name.rpartition('.')[2]}"
        found.append(msgspec.structs.replace(members[0], name=name, count=len(members)))
    return found
