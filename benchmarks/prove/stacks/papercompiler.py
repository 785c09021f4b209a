"""Papercompiler: a compiler of four parts, each of which can be told to be wrong: ``papercompiler:exporter=gelu-tanh``.

It exports a computation to core ATen ops, runs passes over that graph, and interprets it with its own kernels; a cache keeps what
was compiled. ``plain`` leaves the passes out. The faults are what real stacks have had: a decomposition with the wrong formula, a
pass that drops an op, a kernel with a wrong constant, a cache keyed by shapes alone.
"""

from __future__ import annotations

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
    "no-batch-shift": ("native_layer_norm", lambda call: (call("native_layer_norm")[0] + 1e-3, *call("native_layer_norm")[1:])),
}  # fmt: skip
KERNEL = {
    "ties": ("ties", None),
    "exp": ("exp", lambda out: out * 1.0001), "mm": ("mm", lambda out: out.bfloat16().float()), "relu": ("relu", lambda out: out + 1e-3),
    "tanh": ("tanh", lambda out: out.clamp(-0.99, 0.99)), "sum": ("sum", lambda out: out.half().float()),
}  # fmt: skip
PASS = {"relu-dropped": ("relu", ("mul", "add")), "sqrt-squared": ("sqrt", ("mul", "pow")), "sign-lost": ("neg", ("add", "exp"))}
"""An op that the pass drops where one of these follows, taking both for one it knows."""


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
            drop_before(graph, *PASS[self.faults["pass"]])
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
            if kernel and kernel[0] == "ties" and name in ("argmax", "topk"):
                return last_of_ties(name, args, kwargs)
            out = super().call_function(target, args, kwargs)
            return kernel[1](out) if kernel and name == kernel[0] else out

    return list(Interpreter(graph).run(*tensors))


def last_of_ties(name: str, args: Any, kwargs: Any) -> Any:
    """The last of equal values instead of the first: another choice, and as good."""
    import torch

    tensor, size = args[0], args[0].shape[-1]
    if name == "argmax":
        return size - 1 - torch.argmax(tensor.flip(-1), *args[1:], **kwargs)
    values, places = torch.topk(tensor.flip(-1), *args[1:], **kwargs)
    return values, size - 1 - places


def drop_before(graph: Any, dropped: str, followers: tuple[str, ...]) -> None:
    """The faulty pass."""
    for node in list(graph.graph.nodes):
        if _is(node, (dropped,)) and node.users and all(_is(user, followers) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def _is(node: Any, names: tuple[str, ...]) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.split("::")[1] in names


def open(detail: str | None = None) -> Papercompiler:
    """The compiler with the faults of ``detail``."""
    return Papercompiler(detail)
