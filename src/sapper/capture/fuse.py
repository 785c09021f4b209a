"""From ops as eager PyTorch runs them to kernels as a compiler or a hand-written library does.

Efficiencies are fitted on fused kernels, so a chain of pointwise ops must count as one pass over memory, not one each.

* Products, convolutions, attention, look-ups, gathers, sorts and unpriced ops are kernels of their own.
* Pointwise ops, copies, norms, softmax and reductions join the open kernel that made one of their inputs, or that reads
  one of them in the same module. A kernel closes when something outside it reads a result of it, or at
  :data:`MOST_NODES`.
* A module that reduces and multiplies no matrices (a norm, a softmax) is a kernel of its own: it joins nothing outside the
  module, as a residual addition is not fused into the norm behind it.
* A declared region (``sapper_kind`` on a module, or a scan function of the Transformers library) is one kernel.

A kernel reads what comes from outside it once and writes what is read outside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sapper.capture.trace import Node, Trace, Value
from sapper.workloads.op import MODEL_FLOP_KINDS

MOST_NODES = 64
"""Ops of one fused kernel; PyTorch's own compiler has the same limit (``torch._inductor.config.max_fusion_size``)."""


@dataclass(slots=True)
class Kernel:
    """Ops that run as one."""

    nodes: list[Node] = field(default_factory=list)
    last: int = 0
    """Index of its last op: a kernel runs when its last op would."""
    open: bool = True
    fused: bool = False
    rigid: bool = False
    storages: set[int] = field(default_factory=set)
    """Storages that it has written."""
    read: set[int] = field(default_factory=set)

    @property
    def path(self) -> str:
        """The innermost module that all of it lies in."""
        parts = [node.path.split(".") for node in self.nodes]
        common = parts[0]
        for other in parts[1:]:
            length = next((at for at, (a, b) in enumerate(zip(common, other, strict=False)) if a != b), min(len(common), len(other)))
            common = common[:length]
        return ".".join(common)

    @property
    def unit(self) -> str:
        """The layer that it lies in."""
        return self.nodes[-1].unit

    def external_reads(self) -> list[Value]:
        """What comes from outside, each place once, at the most that any op reads of it."""
        written: set[int] = set()
        found: dict[tuple[int, int, int], Value] = {}
        for node in self.nodes:
            for value in node.reads:
                old = found.get(value.place)
                if value.storage not in written and value.size_bytes and (old is None or old.size_bytes < value.size_bytes):
                    found[value.place] = value
            written.update(value.storage for value in node.writes)
        return list(found.values())

    def results(self) -> dict[int, Value]:
        """The largest value that it writes to each storage."""
        found: dict[int, Value] = {}
        for node in self.nodes:
            for value in node.writes:
                if value.storage not in found or found[value.storage].size_bytes < value.size_bytes:
                    found[value.storage] = value
        return found


def fuse(trace: Trace) -> list[Kernel]:
    """The kernels of the forward pass, in order."""
    reducing = {node.path for node in trace.nodes if node.cost.reduces and node.cost.fusible and node.region is None}
    reducing -= {node.path for node in trace.nodes if node.cost.kind in MODEL_FLOP_KINDS}
    kernels: list[Kernel] = []
    owner: dict[int, Kernel] = {}
    regions: dict[str, Kernel] = {}
    for at, node in enumerate(trace.nodes):
        if node.region is not None:
            kernel = regions.setdefault(node.region, Kernel(open=False))
            _close(node, owner, but=kernel)
        elif node.cost.fusible:
            kernel = _joined(node, kernels, owner, rigid=node.path in reducing)
        else:
            kernel = Kernel(open=False)
            _close(node, owner, but=kernel)
        if not kernel.nodes:
            kernels.append(kernel)
        kernel.nodes.append(node)
        kernel.last = at
        kernel.read.update(value.storage for value in node.reads if value.param is None and value.size_bytes)
        kernel.storages.update(value.storage for value in node.writes)
        for value in node.writes:
            owner[value.storage] = kernel
    return sorted((kernel for kernel in kernels if kernel.nodes), key=lambda kernel: kernel.last)


def _close(node: Node, owner: dict[int, Kernel], *, but: Kernel) -> None:
    for value in node.reads:
        maker = owner.get(value.storage)
        if maker is not None and maker is not but:
            maker.open = False


def _joined(node: Node, kernels: list[Kernel], owner: dict[int, Kernel], *, rigid: bool) -> Kernel:
    """The kernel that ``node`` joins, makers of its inputs merged into one; a new one where there is none."""

    def joins(kernel: Kernel) -> bool:
        alike = kernel.nodes[0].path == node.path or not (rigid or kernel.rigid)
        return kernel.open and kernel.fused and alike and kernel.unit == node.unit and len(kernel.nodes) < MOST_NODES

    makers = list({id(owner[v.storage]): owner[v.storage] for v in node.reads if v.storage in owner}.values())
    found = [kernel for kernel in makers if joins(kernel)]
    if not found:
        inputs = {value.storage for value in node.reads if value.param is None and value.size_bytes}
        recent = (kernel for kernel in kernels[-3:] if kernel.nodes and joins(kernel))
        found = [kernel for kernel in recent if kernel.nodes[0].path == node.path and kernel.read & inputs][:1]
    for kernel in makers:
        if kernel not in found:
            kernel.open = False
    if not found:
        return Kernel(fused=True, rigid=rigid)
    into = min(found, key=lambda kernel: kernel.last)
    for other in found:
        if other is not into:
            _merge(other, into, owner)
    return into


def _merge(other: Kernel, into: Kernel, owner: dict[int, Kernel]) -> None:
    into.nodes += other.nodes
    into.storages |= other.storages
    into.read |= other.read
    into.last = max(into.last, other.last)
    for storage in other.storages:
        if owner.get(storage) is other:
            owner[storage] = into
    other.nodes = []
    other.open = False
