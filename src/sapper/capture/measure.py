"""What each kernel of one traced step costs, at the batch that was traced."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sapper.capture.fuse import Kernel, fuse
from sapper.capture.shards import Cut, Cuts
from sapper.capture.trace import Node, Trace, Value
from sapper.workloads.op import MODEL_FLOP_KINDS, AttentionShape, Kind

_NORM = re.compile(r"norm", re.IGNORECASE)


@dataclass(slots=True)
class Measured:
    """One kernel at one batch; sums over the whole batch."""

    name: str
    unit: str
    kind: Kind
    ops: tuple[str, ...]
    flops: float
    flops_full: float
    backward_flops: float
    read_bytes: float
    written_bytes: float
    saved_bytes: float
    m: int
    n: int
    k: int
    groups: int
    attention: AttentionShape | None
    expert: bool
    priced: bool
    cut: Cut
    owns: tuple[str, ...] = ()
    """Weights that it is the first to read."""
    weights: tuple[str, ...] = ()
    """All weights that it reads."""
    heads_bytes: float = 0.0
    """q, k and v that an attention core keeps and no other kernel has."""


@dataclass
class Measurement:
    """All kernels of a step, in order."""

    kernels: list[Measured] = field(default_factory=list)
    unread: tuple[str, ...] = ()
    """Weights that the forward pass never read."""


def measure(trace: Trace, module: Any, cuts: Cuts) -> Measurement:
    """Kernels of ``trace`` with their costs.

    Args:
        trace: One step of ``module``.
        module: Whose weights they read, and whose class names say what a norm is.
        cuts: How tensor parallelism cuts the weights.
    """
    kernels = fuse(trace)
    norms = {name for name, child in module.named_modules() if _NORM.search(type(child).__name__)}
    readers = _readers(kernels)
    kept: set[tuple[int, int, int]] = set()
    owned: set[str] = set()
    found = Measurement()
    for kernel in kernels:
        one = _measured(kernel, trace, kept, readers=readers, norms=norms, cuts=cuts)
        one.owns = tuple(name for name in one.weights if name not in owned)
        owned.update(one.owns)
        found.kernels.append(one)
    found.unread = tuple(name for name, _ in module.named_parameters() if name not in owned)
    _unique_names(found.kernels)
    return found


def _readers(kernels: list[Kernel]) -> dict[int, set[int]]:
    """Storage -> ids of the kernels that read it."""
    found: dict[int, set[int]] = {}
    for kernel in kernels:
        for storage in kernel.read:
            found.setdefault(storage, set()).add(id(kernel))
    return found


def _measured(
    kernel: Kernel, trace: Trace, kept: set[tuple[int, int, int]], *, readers: dict[int, set[int]], norms: set[str], cuts: Cuts
) -> Measured:
    head = kernel.nodes[0]
    reads, results = kernel.external_reads(), kernel.results()
    outside = {storage for storage in results if readers.get(storage, set()) - {id(kernel)} or storage not in kernel.read}
    kind = _kind(kernel, norms)
    saved, inside = _saved(kernel, kind, reads, trace, kept)
    written = sum(results[storage].size_bytes for storage in outside | (inside & set(results)))
    weights = tuple(dict.fromkeys(value.param for value in reads if value.param is not None))
    cost = head.cost
    alone = len(kernel.nodes) == 1
    flops, full, backward = _flops(kernel, trace)
    one = Measured(
        name=_name(kernel), unit=kernel.unit, kind=kind, ops=tuple(dict.fromkeys(node.op for node in kernel.nodes)),
        flops=flops, flops_full=full, backward_flops=backward,
        read_bytes=_moved(reads), written_bytes=written, saved_bytes=saved,
        m=cost.m if alone else 0, n=cost.n if alone else 0, k=cost.k if alone else 0, groups=cost.groups if alone else 1,
        attention=cost.attention if alone else None, expert=any(node.cost.expert for node in kernel.nodes),
        priced=all(node.priced for node in kernel.nodes), cut=cuts.of(kernel, kind), weights=weights,
    )
    if kind == "attention":
        one.heads_bytes = _keep([v for v in reads if v.floating and v.param is None and v.place in trace.saved_places], kept)
    return one


def _flops(kernel: Kernel, trace: Trace) -> tuple[float, float, float]:
    """(forward, forward with full squares, backward) FLOPs: of its ops, or by the closed form of its region,
    whose backward pass is the usual two gradients."""
    closed = trace.region_flops.get(kernel.nodes[0].region or "")
    if closed is not None:
        return closed, closed, 2.0 * closed
    return (
        sum(node.cost.flops for node in kernel.nodes),
        sum(node.cost.flops if node.cost.flops_full is None else node.cost.flops_full for node in kernel.nodes),
        sum(node.backward_flops for node in kernel.nodes),
    )


def _kind(kernel: Kernel, norms: set[str]) -> Kind:
    head = kernel.nodes[0]
    if head.region is not None:
        declared = head.region.split(":")[1]
        return "scan" if declared == "scan" else "elementwise"
    kinds = {node.cost.kind for node in kernel.nodes}
    if "loss" in kinds:
        return "loss"
    if "norm" in kinds or (any(node.path in norms for node in kernel.nodes) and kernel.fused):
        return "norm"
    return head.cost.kind


def _saved(
    kernel: Kernel, kind: Kind, reads: list[Value], trace: Trace, kept: set[tuple[int, int, int]]
) -> tuple[float, set[int]]:
    """Bytes that the kernel keeps for the backward pass, and which of its own storages are among them.

    A product keeps its activations. A fused kernel keeps what autograd kept inside it, or its inputs, from which the rest
    can be made again, whichever is less (Chen et al., arXiv:1604.06174, section 3). A loss keeps what autograd kept,
    the fp32 logits (arXiv:2205.05198, section 4.3). An attention core keeps its log-sum-exp; q, k and v are counted by
    :class:`Measured` apart, and its output is kept by the product that reads it.
    """
    if kind in ("matmul", "conv", "router", "embedding"):
        inputs = [v for v in reads if v.param is None and (v.place in trace.saved_places or not v.floating)]
        return _keep(inputs, kept), set()
    by_autograd = {v.place: v for node in kernel.nodes for v in node.saved}
    if kind == "attention":
        results = kernel.results()
        lse = [v for v in list(results.values())[1:] if v.place in trace.saved_places]
        return _keep(lse, kept), set()
    new = [v for v in by_autograd.values() if v.place not in kept and v.param is None]
    if not new:
        return 0.0, set()
    made = {v.storage for v in new if v.storage in kernel.storages}
    inputs = [v for v in reads if v.param is None and v.floating and v.size_bytes]
    again = sum(v.size_bytes for v in inputs if v.place not in kept)
    if kind != "loss" and again <= sum(v.size_bytes for v in new):
        return _keep(inputs, kept), set()
    return _keep(new, kept), made


def _moved(reads: list[Value]) -> float:
    """Bytes of what is read; views that overlap count once."""
    by_storage: dict[int, float] = {}
    for value in reads:
        by_storage[value.storage] = min(by_storage.get(value.storage, 0.0) + value.size_bytes, value.room_bytes)
    return sum(by_storage.values())


def _keep(values: list[Value], kept: set[tuple[int, int, int]]) -> float:
    total = 0.0
    for value in values:
        if value.place not in kept:
            kept.add(value.place)
            total += value.size_bytes
    return total


def _name(kernel: Kernel) -> str:
    unit = kernel.unit.rpartition("#")[0]
    path = kernel.path
    if unit and (path == unit or path.startswith(f"{unit}.")):
        path = path[len(unit) :].lstrip(".")
    leading = max(kernel.nodes, key=_weight)
    short = leading.op.rpartition(".")[2].strip("_")
    whole = leading.cost.kind in MODEL_FLOP_KINDS and bool(path) and any(v.param for v in leading.reads)
    return path if whole else f"{path}.{short}".lstrip(".")


def _weight(node: Node) -> tuple[bool, float]:
    return node.cost.reduces, node.cost.flops


def _unique_names(kernels: list[Measured]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for kernel in kernels:
        key = (kernel.unit, kernel.name)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            kernel.name = f"{kernel.name}.{seen[key]}"
