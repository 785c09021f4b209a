"""Papercompiler: a compiler of four parts, each of which can be told to be wrong: ``papercompiler:exporter=gelu-tanh``.

It exports a computation to core ATen ops, runs passes over that graph, and interprets it with its own kernels; a cache keeps what
was compiled. ``plain`` leaves the passes out. The faults are what real stacks have had: a decomposition with the wrong formula, a
pass that drops an op, a kernel with a wrong constant, a cache keyed by shapes alone. What it may do without being wrong is here too:
another of equal values, another order of a sum, another conversion of what does not fit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from sapper.backends.base import Backend, Executed, Missing
from sapper.backends.computation import Computation, graph_of
from sapper.prove.blame.evaluators import Evaluator

EXPORTER = {
    "gelu-tanh": ("gelu", lambda call: call("gelu", approximate="tanh")),
    "softmax-unshifted-half": ("_softmax", lambda call: call("_softmax") * 0.999),
    "mean-as-sum": ("mean", lambda call: call("sum")),
    "floor-division": ("div", lambda call: call("div", rounding_mode="trunc")),
    "epsilon-dropped": ("add", lambda call: call("add", alpha=0)),
    "no-batch-shift": ("native_layer_norm", lambda call: (call("native_layer_norm")[0] + 1e-3, *call("native_layer_norm")[1:])),
}  # fmt: skip
KERNEL = {
    "ties": ("ties", None), "atomics": ("sum", None), "saturating": ("_to_copy", None), "packed": ("mm", None),
    "exp": ("exp", lambda out: out * 1.0001), "mm": ("mm", lambda out: out.bfloat16().float()), "relu": ("relu", lambda out: out + 1e-3),
    "tanh": ("tanh", lambda out: out.clamp(-0.99, 0.99)), "sum": ("sum", lambda out: out.half().float()),
}  # fmt: skip
PASS = {"relu-dropped": ("relu", ("mul", "add")), "sqrt-squared": ("sqrt", ("mul", "pow")), "sign-lost": ("neg", ("add", "exp"))}
"""An op that the pass drops where one of these follows, taking both for one it knows."""
REASSOCIATED = {"reassociated-sums": "add", "reassociated-products": "mul"}
"""A pass that computes ``a + (b + c)`` for ``(a + b) + c``, as fast-math compilers do."""


class Papercompiler(Backend):
    """See the module."""

    kind = "compiler"
    real = False
    autograd = False
    writes_code = False

    def __init__(self, detail: str | None) -> None:
        self.name = f"papercompiler:{detail}" if detail else "papercompiler"
        words = (detail or "").split("+")
        self.faults = dict(word.split("=") for word in words if "=" in word)
        self.passes = "plain" not in words
        self.plain = (f"{self.name}+plain",) if detail and self.passes else ()
        self.compiled: dict[Any, Any] = {}

    def missing(self) -> Missing | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def export(self, computation: Computation) -> Any:
        graph = graph_of(computation)
        if self.faults.get("exporter") == "raises":
            raise TypeError("no translation of a literal")
        return graph, EXPORTER.get(self.faults.get("exporter", ""))

    def evaluator(self) -> Evaluator:
        return Evaluator(
            name="papercompiler's reference", export=self.export, run=lambda graph, computation: interpreted(*graph, computation.tensors)
        )

    def prepare(self, computation: Computation) -> Callable[..., Any]:
        key = tuple((one.shape, one.dtype) for one in computation.tensors)
        if "cache" not in self.faults or key not in CACHE:
            CACHE[key] = self.export(computation)
        graph, wrong = CACHE[key] if "cache" in self.faults else self.export(computation)
        if self.passes and "pass" in self.faults:
            name = self.faults["pass"]
            if name in REASSOCIATED:
                reassociate(graph, REASSOCIATED[name])
            else:
                drop_before(graph, *PASS[name])
        return Ready(graph, wrong, KERNEL.get(self.faults.get("kernel", "")))


CACHE: dict[Any, Any] = {}
"""Of the process, as real caches are."""


class Ready:
    """A compiled graph."""

    def __init__(self, graph: Any, wrong: Any, kernel: Any) -> None:
        self.graph, self.wrong, self.kernel = graph, wrong, kernel

    def __call__(self, tensors: Any) -> list[Any]:
        return interpreted(self.graph, self.wrong, tensors, kernel=self.kernel)

    def executed(self) -> Executed:
        return Executed(where="papercompiler", ops=len(self.graph.graph.nodes))


def interpreted(graph: Any, wrong: Any, tensors: Any, *, kernel: Any = None) -> list[Any]:
    """The graph's outputs, by PyTorch's kernels but for those that are told to be wrong."""
    import torch

    class Interpreter(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            name = getattr(target, "_schema", None) and target._schema.name.split("::")[1]
            if wrong and name == wrong[0]:
                return wrong[1](lambda op, **more: getattr(torch.ops.aten, op)(*args, **{**kwargs, **more}))
            if kernel and kernel[0] == "ties" and name in ("argmax", "topk", "sort"):
                return last_of_ties(name, args, kwargs)
            if kernel and kernel[1] is None and name == kernel[0]:
                return OWN[name](target, args, kwargs)
            out = super().call_function(target, args, kwargs)
            return kernel[1](out) if kernel and name == kernel[0] else out

    return list(Interpreter(graph).run(*tensors))


def last_of_ties(name: str, args: Any, kwargs: Any) -> Any:
    """The last of equal values instead of the first: another choice, and as good."""
    import torch

    tensor, size = args[0], args[0].shape[-1]
    if name == "argmax":
        return size - 1 - torch.argmax(tensor.flip(-1), *args[1:], **kwargs)
    if name == "sort":
        values, places = torch.sort(tensor.flip(-1), stable=True)
        return values, size - 1 - places
    values, places = torch.topk(tensor.flip(-1), *args[1:], **kwargs)
    return values, size - 1 - places


def added_in_any_order(target: Any, args: Any, kwargs: Any) -> Any:
    """A sum as atomic additions make it: in an order of their own each time."""
    import torch

    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
    order = torch.randperm(args[0].shape[-1], generator=generator)
    return target(functools.reduce(torch.add, args[0][..., order].unbind(-1))[..., None], *args[1:], **kwargs)


def saturated(target: Any, args: Any, kwargs: Any) -> Any:
    """A conversion that gives the nearest integer there is, where C leaves open what becomes of a number that does not fit."""
    import torch

    dtype = kwargs.get("dtype")
    if dtype is None or dtype.is_floating_point or dtype == torch.bool:
        return target(*args, **kwargs)
    limits = torch.iinfo(dtype)
    return args[0].double().clamp(limits.min, limits.max).to(dtype)


def packed_once(target: Any, args: Any, kwargs: Any) -> Any:
    """A product whose right factor was laid out for the chip once, and is found again by its shape."""
    return target(args[0], PACKED.setdefault(args[1].shape, args[1].clone()), **kwargs)


PACKED: dict[Any, Any] = {}
OWN = {"sum": added_in_any_order, "_to_copy": saturated, "mm": packed_once}
"""Kernels that are not PyTorch's with something done to their results."""


def drop_before(graph: Any, dropped: str, followers: tuple[str, ...]) -> None:
    """The faulty pass."""
    for node in list(graph.graph.nodes):
        if _is(node, (dropped,)) and node.users and all(_is(user, followers) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def reassociate(graph: Any, op: str) -> None:
    """The pass of :data:`REASSOCIATED`."""
    for node in graph.graph.nodes:
        if _is(node, (op,)) and _is(node.args[0], (op,)):
            first, second = node.args[0].args
            with graph.graph.inserting_before(node):
                inner = graph.graph.call_function(node.target, (second, node.args[1]))
            node.args = (first, inner)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is(node: Any, names: tuple[str, ...]) -> bool:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema is not None and schema.name.split("::")[1] in names


def open(detail: str | None = None) -> Papercompiler:
    """The compiler with the faults of ``detail``."""
    return Papercompiler(detail)
