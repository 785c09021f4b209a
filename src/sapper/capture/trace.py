"""The recorder: a dispatch mode that sees every ATen op of a program and keeps what its rule says.

PyTorch's own flop counter gives ops that it does not know zero FLOPs and says nothing; here an op is priced by a rule,
pointwise, a view, a composition of others, or listed as unpriced with its bytes.

Backward ops are tied to the forward op that they come from by autograd's sequence number. What autograd keeps for the
backward pass is seen by hooks on saved tensors.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.capture.rules import Cost, rule_of
from sapper.capture.rules.memory import is_foreach
from sapper.capture.unshaped import result_of

Phase = Literal["forward", "backward", "optimizer"]
Class = Literal["priced", "pointwise", "view", "unpriced"]

SHORT = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float8_e4m3fn: "fp8",
    torch.float8_e5m2: "fp8", torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "int8", torch.uint8: "u8",
    torch.bool: "bool", torch.complex64: "c64", torch.complex128: "c128",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor that an op reads or writes."""

    storage: int
    place: tuple[int, int, int]
    """Storage, offset and elements: two views with the same place hold the same values."""
    size_bytes: float
    """Bytes that this op moves of it."""
    text: str
    """Dtype and shape, such as ``bf16[2,4096]``."""
    floating: bool
    param: str | None
    """The weight that it is, or is made of alone."""
    room_bytes: float = math.inf
    """Size of its storage: views of it that overlap move no more than that."""


@dataclass(slots=True)
class Node:
    """One op of the forward pass that is no view."""

    op: str
    path: str
    """Qualified name of the innermost module."""
    unit: str
    """The repeated part of the model that runs, with the number of its call: ``model.layers.3#1``; empty outside."""
    region: str | None
    """The region that runs as one kernel, by declaration."""
    cost: Cost
    priced: bool
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    saved: list[Value] = field(default_factory=list)
    """What autograd keeps on behalf of it."""
    backward_flops: float = 0.0


@dataclass(slots=True)
class Row:
    """All calls of one op on the same shapes in one phase."""

    phase: Phase
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str
    priced: bool
    count: int = 0
    flops: float = 0.0
    flops_full: float = 0.0
    size_bytes: float = 0.0


@dataclass(eq=False)
class Span:
    """What one call of a layer did: its forward ops, and its rows in all phases."""

    first: int
    last: int = 0
    """Its nodes are ``first`` to ``last``, without ``last``, of the trace."""
    nodes: list[Node] = field(default_factory=list)
    saved_places: set[tuple[int, int, int]] = field(default_factory=set)
    boundary_bytes: dict[str, float] = field(default_factory=dict)
    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    unattributed_flops: float = 0.0
    sequences: tuple[int, int] = (0, 0)
    """Numbers of the autograd nodes that it made: from, up to."""
    whole: bool = True
    """Whether nothing from before it was still waiting for its op, and no gradient of its input was added to another."""
    muted: bool = False
    """Whether the call was a copy of another, which counts for it."""


@dataclass
class Trace:
    """What one step of the program did."""

    nodes: list[Node] = field(default_factory=list)
    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    boundary_bytes: dict[str, float] = field(default_factory=dict)
    """Qualified module name -> bytes of the largest tensor that it returned last."""
    saved_places: set[tuple[int, int, int]] = field(default_factory=set)
    unattributed_flops: float = 0.0
    """Backward FLOPs that no forward op could be found for (recomputation by the program itself, mostly)."""
    region_flops: dict[str, float] = field(default_factory=dict)
    """Region -> FLOPs of its forward pass by the closed form of what a fused kernel executes, where there is one."""
    repeated_layers: int = 0
    """Calls of layers that did not run, being equal to one that ran."""

    def flops(self, phase: Phase, *, full: bool = False) -> float:
        """FLOPs of a phase, of the model-FLOP kinds."""
        from sapper.workloads.op import MODEL_FLOP_KINDS

        rows = (row for row in self.rows.values() if row.phase == phase and row.kind in MODEL_FLOP_KINDS)
        return sum(row.flops_full if full else row.flops for row in rows)


FLOP_KINDS = ("matmul", "conv", "attention", "scan")
"""Kinds whose backward FLOPs are tied to their forward op."""
VIEWS = frozenset(
    f"aten.{name}"
    for name in """
    _reshape_alias _unsafe_view detach detach_ alias lift_fresh transpose_ t_ squeeze_ unsqueeze_ as_strided_ swapaxes_ swapdims_
    requires_grad_
    """.split()  # noqa: SIM905 - one text reads better than a dozen quoted words
)
"""Views that PyTorch does not tag as such, and changes of shape in place."""


class Recorder(TorchDispatchMode):
    """Records every op into a :class:`Trace`."""

    supports_higher_order_operators = True

    def __init__(self, module: Any, units: Sequence[str] = ()) -> None:
        """Args:
        module: What will run; its parameters are the weights. None: nothing but ops.
        units: Qualified names of the repeated parts (:func:`sapper.capture.units.units_of`).
        """
        super().__init__()
        classify.cache_clear()  # a rule may have been registered since
        self.trace = Trace()
        self.phase: Phase = "forward"
        self._calls = dict.fromkeys(units, 0)
        self._unit = ""
        self._regions: list[str] = []
        self._region_count = 0
        self._held: dict[int, Any] = {}
        self._names = {} if module is None else {id(child): name for name, child in module.named_modules()}
        self._params: dict[int, str] = {}
        self._pending: list[Value] = []
        self._by_sequence: dict[int, Node] = {}
        self._spans: list[Span] = []
        self._span: Span | None = None
        self._fresh = self._forward_end = 0
        self._silent = False
        self._paths = [""]
        for name, parameter in () if module is None else module.named_parameters():
            self._params[self.hold(parameter)] = name

    # ---- what the modes and hooks call -------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self._silent:
            return func(*args, **kwargs)
        if self.phase == "backward":
            self._follow()
        if self._span is not None and self._span.muted:
            if self.phase == "backward" and func.namespace == "aten" and func is not torch.ops.aten.empty_strided.default:
                self._span.whole = False  # autograd adds the gradient to that of another reader
            return func(*args, **kwargs)
        namespace = getattr(func, "namespace", "higher_order")
        if namespace in ("prim", "prims", "profiler"):
            return func(*args, **kwargs)
        name, class_ = classify(func)
        if class_ == "unpriced" and namespace == "aten" and func._can_decompose():
            # composite ops (einsum, ...) reach a mode whole under some dispatch keys: count what they are made of
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = result_of(func, args, kwargs)
        self._record(name, class_, func, args, kwargs, out)
        return out

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Follow modules and saved tensors of a forward pass."""
        hooks = [
            torch.nn.modules.module.register_module_forward_pre_hook(self._enter),
            torch.nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._saved, lambda tensor: tensor):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def region(self, name: str, *, flops: float | None = None) -> Iterator[None]:
        """What runs inside is one kernel, of ``flops`` where they are given, else of what its ops sum up to; a region inside a
        region belongs to the outer one."""
        outermost = not self._regions
        self._region_count += outermost
        self._regions.append(self._regions[0] if self._regions else f"{self._paths[-1]}:{name}:{self._region_count}")
        if outermost and flops is not None:
            self.trace.region_flops[self._regions[0]] = flops
        try:
            yield
        finally:
            self._regions.pop()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """What runs inside is not recorded, as another op stands for it."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    # ---- layers that repeat (:mod:`sapper.capture.repeat`) -------------------------------------------------------------

    @property
    def unit(self) -> str:
        """The layer that runs, as ``path#call``; empty between layers."""
        return self._unit

    @property
    def unit_path(self) -> str:
        """Qualified name of the layer that runs."""
        return self._unit.rpartition("#")[0]

    @property
    def in_span(self) -> bool:
        """Whether a call is being recorded or copied."""
        return self._span is not None

    @contextlib.contextmanager
    def span(self, *, muted: bool = False) -> Iterator[Span]:
        """Record what one call of a layer does; ``muted``: nothing of it, neither now nor in its backward pass."""
        start = torch.autograd._get_sequence_nr()
        span = self._span = Span(first=len(self.trace.nodes), whole=not self._pending, muted=muted)
        try:
            yield span
        finally:
            self._span = None
            span.last = len(self.trace.nodes)
            span.nodes = self.trace.nodes[span.first :]
            span.whole = span.whole and not self._pending
            span.sequences = start, torch.autograd._get_sequence_nr()
            self._spans.append(span)

    def again(self, span: Span, storages: dict[int, int], paths: tuple[str, str]) -> list[tuple[Node, Node]]:
        """Write down the forward ops of ``span`` once more, for another layer.

        Args:
            span: What an equal layer did.
            storages: Storage there -> storage here, of arguments, weights and results; the others become new ones.
            paths: Qualified names of the layer there and here.
        """
        storages, regions = dict(storages), dict[str, str]()
        old, new = paths

        def moved(name: str) -> str:
            return new + name[len(old) :] if name == old or name.startswith(f"{old}.") else name

        def value(one: Value) -> Value:
            if one.storage not in storages:
                self._fresh -= 1  # addresses are positive
                storages[one.storage] = self._fresh
            storage = storages[one.storage]
            param = None if one.param is None else moved(one.param)
            return Value(
                storage, (storage, *one.place[1:]), one.size_bytes, one.text, one.floating, param, one.room_bytes
            )  # fmt: skip

        def region(name: str | None) -> str | None:
            if name is None:
                return None
            if name not in regions:
                self._region_count += 1
                path, kind, _ = name.rsplit(":", 2)
                regions[name] = f"{moved(path)}:{kind}:{self._region_count}"
                if name in self.trace.region_flops:
                    self.trace.region_flops[regions[name]] = self.trace.region_flops[name]
            return regions[name]

        found = [
            (
                node,
                Node(
                    op=node.op, path=moved(node.path), unit=self._unit, region=region(node.region), cost=node.cost, priced=node.priced,
                    reads=tuple(map(value, node.reads)), writes=tuple(map(value, node.writes)), saved=list(map(value, node.saved)),
                ),
            )
            for node in span.nodes
        ]
        self.trace.nodes += [copy for _, copy in found]
        self.trace.saved_places |= {(storages.get(place[0], place[0]), *place[1:]) for place in span.saved_places}
        self.trace.boundary_bytes |= {moved(path): size for path, size in span.boundary_bytes.items()}
        return found

    def weight_in(self, storage: int) -> str | None:
        """The weight that lies in a storage."""
        return self._params.get(storage)

    def _follow(self) -> None:
        """Find the call that the running backward op belongs to. What has no autograd node of the forward pass (gradients
        that are summed or stored) belongs to the call that ran last."""
        current = torch._C._current_autograd_node()
        if current is None:
            return
        number = current._sequence_nr()
        if number < self._forward_end:
            at = bisect.bisect_right(self._spans, number, key=lambda span: span.sequences[0]) - 1
            self._span = self._spans[at] if at >= 0 and number < self._spans[at].sequences[1] else None

    def begin_backward(self) -> None:
        """The forward pass is over."""
        self.phase, self._span, self._forward_end = "backward", None, torch.autograd._get_sequence_nr()

    def begin_optimizer(self) -> None:
        """The backward pass is over."""
        self.phase, self._span = "optimizer", None

    # ---- modules -----------------------------------------------------------------------------------------------------

    def _enter(self, module: Any, inputs: Any) -> None:
        name = self._names.get(id(module))
        self._paths.append(self._paths[-1] if name is None else name)
        if name in self._calls and not self._unit:
            self._calls[name] += 1
            self._unit = f"{name}#{self._calls[name]}"
        if getattr(module, "sapper_kind", None) is not None:
            self._region_count += not self._regions
            self._regions.append(self._regions[0] if self._regions else f"{self._paths[-1]}:{module.sapper_kind}:{self._region_count}")

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        path = self._paths.pop()
        if self._unit.rpartition("#")[0] == path and self._names.get(id(module)) == path:
            self._unit = ""
        if getattr(module, "sapper_kind", None) is not None and self._regions:
            self._regions.pop()
        tensors = [tensor for tensor in _tensors(output) if tensor.is_floating_point()]
        if tensors and id(module) in self._names:
            size_bytes = float(max(tensor.numel() * tensor.element_size() for tensor in tensors))
            for found in (self.trace, self._span):
                if found is not None:
                    found.boundary_bytes[path] = size_bytes

    def _saved(self, tensor: Any) -> Any:
        if self.phase == "forward" and not isinstance(tensor, torch.nn.Parameter):
            value = self._value(tensor)
            if value.param is None:
                self.trace.saved_places.add(value.place)
                if self._span is not None:
                    self._span.saved_places.add(value.place)
                last = self._by_sequence.get(torch.autograd._get_sequence_nr() - 1)
                if last is not None and any(value.storage == written.storage for written in last.writes):
                    last.saved.append(value)  # its own result
                else:  # the next op has its autograd node already, and keeps its inputs before it runs
                    self._pending.append(value)
        return tensor

    # ---- ops ---------------------------------------------------------------------------------------------------------

    def hold(self, tensor: Any) -> int:
        """A number for the storage of a tensor, its own as long as the recorder lives."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        self._held[key] = storage  # a storage that is freed gives its address to another
        return key

    def _value(self, tensor: Any, elements: float | None = None) -> Value:
        key = self.hold(tensor)
        shape, width = tensor.shape, tensor.element_size()
        if elements is None:
            elements = math.prod(size for size, stride in zip(shape, tensor.stride(), strict=True) if stride)
        return Value(
            storage=key, place=(key, tensor.storage_offset(), tensor.numel()), size_bytes=float(elements) * width,
            text=f"{SHORT.get(tensor.dtype, str(tensor.dtype))}[{','.join(map(str, shape))}]",
            floating=tensor.is_floating_point() or tensor.is_complex(), param=self._params.get(key),
            room_bytes=float(tensor.untyped_storage().nbytes()),
        )

    def _record(self, name: str, class_: Class, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if class_ == "view":
            return
        given, made = _tensors((args, kwargs)), _tensors(out)
        mutable = getattr(func, "_schema", None) is not None and func._schema.is_mutable
        if class_ != "priced" and not mutable and _aliases(given, made):
            return  # a view that PyTorch does not tag as one
        cost = cost_of(name, class_, args=args, kwargs=kwargs, out=out)
        part = cost.reads or {}
        reads = tuple(self._value(tensor, part.get(at)) for at, tensor in enumerate(given))
        writes = tuple(self._value(tensor) for tensor in made)
        if cost.writes is not None and writes:
            scale = cost.writes * made[0].element_size() / max(sum(value.size_bytes for value in writes), 1.0)
            writes = tuple(_scaled(value, scale) for value in writes)
        self._row(name, class_, cost, reads, writes)
        if self.phase == "forward":
            self._forward(name, class_, cost, reads, writes)
        elif self.phase == "backward":
            self._backward(cost)

    def _forward(self, name: str, class_: Class, cost: Cost, reads: tuple[Value, ...], writes: tuple[Value, ...]) -> None:
        weights = {value.param for value in reads if value.param is not None}
        if name in ("aten._to_copy", "aten.clone") and len(weights) == 1 and len(reads) == 1:
            for value in writes:  # a weight in another dtype or layout is still that weight
                self._params[value.storage] = next(iter(weights))
        node = Node(
            op=name, path=self._paths[-1], unit=self._unit, region=self._regions[0] if self._regions else None, cost=cost,
            priced=class_ != "unpriced", reads=reads, writes=writes, saved=self._pending,
        )
        self._pending = []
        self.trace.nodes.append(node)
        number = torch.autograd._get_sequence_nr() - 1
        if number not in self._by_sequence or self._by_sequence[number].cost.kind not in FLOP_KINDS:
            self._by_sequence[number] = node  # an op without a gradient takes no number: it must not displace a product

    def _backward(self, cost: Cost) -> None:
        if cost.kind not in FLOP_KINDS:
            return
        current = torch._C._current_autograd_node()
        node = None if current is None else self._by_sequence.get(current._sequence_nr())
        if node is None:
            for found in (self.trace, self._span):
                if found is not None:
                    found.unattributed_flops += cost.flops
        else:
            node.backward_flops += cost.flops

    def _row(self, name: str, class_: Class, cost: Cost, reads: tuple[Value, ...], writes: tuple[Value, ...]) -> None:
        inputs, outputs = tuple(value.text for value in reads), tuple(value.text for value in writes)
        if len(inputs) > 8:  # an optimizer takes all weights at once
            inputs, outputs = (f"{len(inputs)} tensors",), (f"{len(outputs)} tensors",)
        key = (self.phase, name, inputs, outputs)
        size_bytes = sum(value.size_bytes for value in reads) + sum(value.size_bytes for value in writes)
        for found in (self.trace, self._span):
            if found is None:
                continue
            row = found.rows.get(key)
            if row is None:
                row = found.rows[key] = Row(self.phase, name, inputs, outputs, cost.kind, class_ != "unpriced")
            row.count += 1
            row.flops += cost.flops
            row.flops_full += cost.flops if cost.flops_full is None else cost.flops_full
            row.size_bytes += size_bytes


def scaled_rows(trace: Trace, span: Span, *, times: int) -> None:
    """Add the rows of a call ``times`` more."""
    for key, row in span.rows.items():
        total = trace.rows[key]
        total.count += times * row.count
        total.flops += times * row.flops
        total.flops_full += times * row.flops_full
        total.size_bytes += times * row.size_bytes
    trace.unattributed_flops += times * span.unattributed_flops


def _scaled(value: Value, scale: float) -> Value:
    return Value(value.storage, value.place, value.size_bytes * scale, value.text, value.floating, value.param, value.room_bytes)


@functools.cache
def classify(func: Any) -> tuple[str, Class]:
    """Name and class of an op."""
    packet = getattr(func, "overloadpacket", None)
    if packet is None:
        name = f"higher_order.{func.name() if callable(getattr(func, 'name', None)) else func}"
        return name, "priced" if rule_of(name) else "unpriced"
    name = f"{func.namespace}.{packet.__name__}"
    if rule_of(name) is not None:
        return name, "priced"
    if func.is_view or name in VIEWS:
        return name, "view"
    if torch.Tag.pointwise in func.tags or is_foreach(name):
        return name, "pointwise"
    return name, "unpriced"


def cost_of(name: str, class_: Class, *, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Cost:
    """What one call of an op costs, by its rule, else by its class."""
    rule = rule_of(name)
    if rule is not None:
        return rule(*args, **kwargs, out=out)
    elements = float(sum(tensor.numel() for tensor in _tensors(out)))
    return Cost(kind="elementwise", flops=elements if class_ == "pointwise" else 0.0, fusible=class_ == "pointwise")


def _tensors(value: Any) -> list[Any]:
    """The tensors inside nested arguments, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []


def _aliases(given: list[Any], made: list[Any]) -> bool:
    """Whether every result lies in an argument's storage."""
    storages = {tensor.untyped_storage()._cdata for tensor in given}
    return bool(made) and all(tensor.untyped_storage()._cdata in storages for tensor in made)
