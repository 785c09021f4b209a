"""The step as one functional graph, for stacks that take whole graphs: its nodes alone, its windows, and where each stands."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends.computation import Computation, graph_of
from sapper.prove.call import Call
from sapper.prove.model.result import Phase
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.tracker import Tracker
from sapper.prove.stored import Unkept


class _Places(TorchDispatchMode):
    """While a step is traced: phase and path of each node, in the order in which nodes are made."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.made: list[tuple[Any, Phase, str]] = []
        self._last: Any = None

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """In force together with the tracker."""
        with self.tracker.watching(module), self:
            yield

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins."""
        self.tracker.begin(phase, weights)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        path = self.tracker.path(given)
        out = func(*args, **(kwargs or {}))
        mode = get_proxy_mode()
        if mode is not None:
            nodes = mode.tracer.graph.nodes
            fresh = []
            for node in reversed(nodes):
                if node is self._last or node.op == "placeholder":
                    break
                fresh.append((node.target, self.tracker.phase, path))
            self.made += reversed(fresh)
            self._last = next(iter(reversed(nodes)), None)
        return out


@dataclass(frozen=True)
class Place:
    """Where a node stands in the program."""

    phase: Phase = "before"
    path: str = ""


class StepGraph:
    """The graph of a step with the value of each node, as the CPU computes it in the dtype under test.

    Args:
        step: Functional.
        decompose: Into core ATen ops, as exporters take them; else the ops as dispatched.
    """

    def __init__(self, step: TrainingStep, *, decompose: bool) -> None:
        places = _Places()
        computation = step.computation(places)
        self.labels = computation.labels
        self.module = graph_of(computation, decompose=decompose)
        self.nodes = [node for node in self.module.graph.nodes if node.op == "call_function"]
        self.values = _values(self.module, computation.tensors)
        self.places = _matched(self.nodes, places.made)
        self._position = {node: at for at, node in enumerate(self.nodes)}

    def call(self, at: int) -> Call | None:
        """The op of a node on the reference's values; None where it is none (an item of a tuple) or cannot be kept."""
        node = self.nodes[at]
        if not isinstance(node.target, torch._ops.OpOverload):
            return None
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: self.values[one])
        try:
            return Call.of(node.target, args, kwargs)
        except Unkept:
            return None

    def kind(self, at: int) -> str | None:
        """Nodes of one kind can share one compiled graph: same op, shapes and attributes, same inputs that are one and the same."""
        call = self.call(at)
        if call is None:
            return None
        given = torch.utils._pytree.tree_leaves((self.nodes[at].args, self.nodes[at].kwargs))
        leaves = [id(one) for one in given if isinstance(one, torch.fx.Node)]
        return f"{call.id}:{[leaves.index(one) for one in leaves]}"

    def tensors_of(self, at: int) -> list[torch.Tensor]:
        """What a node reads, each tensor once."""
        return [self.values[source] for source in self.nodes[at].all_input_nodes]

    def company(self, positions: Sequence[int]) -> Computation:
        """Several nodes in one graph, each on inputs of its own: none reads what another makes."""
        graph = torch.fx.Graph()
        tensors = [one for at in positions for one in self.tensors_of(at)] or [torch.zeros(1)]
        given = iter([graph.placeholder(f"x{at}") for at in range(len(tensors))])
        results, labels = [], []
        for at in positions:
            node = self.nodes[at]
            made = dict(zip(node.all_input_nodes, given, strict=False))
            copy = graph.node_copy(node, made.__getitem__)
            for item, one in _outputs(graph, copy, self.values[node]):
                results.append(one)
                labels.append(f"{node.name} {item}")
        graph.output(tuple(results))
        return Computation(
            name=f"{len(positions)} ops", fn=torch.fx.GraphModule(self.module, graph), tensors=tuple(tensors), labels=tuple(labels),
            of_training=True,
        )  # fmt: skip

    def window(self, low: int, high: int) -> Computation:
        """Nodes ``low`` to ``high`` (without it) alone, on the reference's values of what they read from outside."""
        inside = self.nodes[low:high]
        members = set(inside)
        graph = torch.fx.Graph()
        made: dict[Any, Any] = {}
        tensors: list[torch.Tensor] = []

        def copied(node: Any) -> Any:
            if node not in made:
                value = self.values[node]
                assert isinstance(value, torch.Tensor)
                made[node] = graph.placeholder(f"x{len(tensors)}")
                tensors.append(value)
            return made[node]

        # All placeholders come first, whatever node reads them.
        for node in inside:
            for source in node.all_input_nodes:
                if source not in members and isinstance(self.values[source], torch.Tensor):
                    copied(source)
        for node in inside:
            if all(source in made for source in node.all_input_nodes):
                made[node] = graph.node_copy(node, lambda one: made[one])
        results = [
            node for node in inside
            if node in made and isinstance(self.values[node], torch.Tensor) and any(user not in members for user in node.users)
        ]  # fmt: skip
        graph.output(tuple(made[node] for node in results))
        module = torch.fx.GraphModule(self.module, graph)
        return Computation(
            name=f"nodes {low} to {high}", fn=module, tensors=tuple(tensors), labels=tuple(f"{node.name}" for node in results),
            of_training=True,
        )  # fmt: skip

    def ancestors(self, name: str, low: int, high: int) -> list[int]:
        """Positions of the window's nodes that the node called ``name`` depends on, itself included."""
        start = next(at for at in range(low, high) if self.nodes[at].name == name)
        found, stack = {start}, [self.nodes[start]]
        while stack:
            for source in stack.pop().all_input_nodes:
                at = self._position.get(source)
                if at is not None and low <= at < high and at not in found:
                    found.add(at)
                    stack.append(source)
        return sorted(found)


def _outputs(graph: Any, copy: Any, value: Any) -> list[tuple[int, Any]]:
    """The tensors that a node gives, each with its number."""
    if isinstance(value, torch.Tensor):
        return [(0, copy)]
    return [(at, graph.call_function(operator.getitem, (copy, at))) for at, one in enumerate(value) if isinstance(one, torch.Tensor)]


def _values(module: Any, tensors: Sequence[torch.Tensor]) -> dict[Any, Any]:
    """Each node's value."""
    found: dict[Any, Any] = {}

    class Keeping(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            found[n] = super().run_node(n)
            return found[n]

    with torch.no_grad():
        Keeping(module, garbage_collect_values=False).run(*tensors)
    return found


def _matched(nodes: Sequence[Any], made: Sequence[tuple[Any, Phase, str]]) -> list[Place]:
    """A place for each node. Clean-up and functionalisation drop and replace nodes and keep the order of the others, so nodes of
    one target are matched by count from the front where as many were made as are left."""
    of_target: dict[Any, list[Place]] = {}
    for target, phase, path in made:
        of_target.setdefault(target, []).append(Place(phase, path))
    left: dict[Any, int] = {}
    for node in nodes:
        left[node.target] = left.get(node.target, 0) + 1
    seen: dict[Any, int] = {}
    found = []
    for node in nodes:
        at = seen.get(node.target, 0)
        seen[node.target] = at + 1
        known = of_target.get(node.target, [])
        found.append(known[at] if len(known) == left[node.target] else Place())
    return found
