"""A suspect: a graph of ATen ops with its inputs, in a form that can be cut, changed, stored and written out as Python.

A :class:`~sapper.backends.computation.Computation` is any function; to shrink one, or to run it in parts, its ops must be known.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.fx.experimental.proxy_tensor import make_fx

import torch
from sapper.backends.computation import Computation
from sapper.backends.formulas import decompositions
from sapper.prove.arguments import Slot, decoded, encoded
from sapper.prove.call import HIDDEN_WRITES, overload
from sapper.prove.stored import Unkept, from_bytes, to_bytes

ATEN = torch.ops.aten
TRANSPARENT = frozenset({
    ATEN.detach.default, ATEN.alias.default, ATEN.lift_fresh_copy.default, ATEN.lift_fresh.default, ATEN.detach_.default,
})  # fmt: skip
"""Ops that hand their input on."""


class Untraceable(Exception):
    """A computation that is no plain graph of ATen ops."""


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A value of the graph: an input, a step's result, or one item of it."""

    name: str
    item: int | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One op; tensors among its arguments are :class:`Ref`."""

    name: str
    func: Any
    """``torch.ops.aten.name.overload``."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """What is accused: inputs, ops in order, outputs, and of which inputs gradients are taken."""

    name: str
    inputs: dict[str, torch.Tensor]
    """On the CPU."""
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
    labels: tuple[str, ...]
    """Of the outputs, without those of gradients."""
    wrt: tuple[str, ...] = ()
    """Inputs whose gradients come after the outputs, taken by autograd."""
    cotangents: tuple[str | None, ...] = ()
    """For each output the input that holds its cotangent; empty without gradients."""
    before: tuple[Suspect, ...] = ()
    """What ran earlier in the same process, where that matters."""
    of_training: bool = False
    """As :attr:`Computation.of_training`."""

    def all_labels(self) -> tuple[str, ...]:
        """Of outputs and gradients."""
        return (*self.labels, *(f"grad of {name}" for name in self.wrt))

    def ops(self) -> list[str]:
        """Names of its ops in order, as ``aten::name.overload``."""
        return [op_name(step.func) for step in self.steps]

    def is_whole(self) -> bool:
        """Whether each output is an input or what a step gives; an edit may have cut that step off."""
        return {ref.name for ref in self.outputs} <= {*self.inputs, *(step.name for step in self.steps)}

    def mutates(self) -> bool:
        """Whether an op changes a tensor in place."""
        return any(_writes(step) for step in self.steps)

    def forward(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs without gradients, on the device of ``values``."""
        known: dict[str, Any] = {name: one.clone() for name, one in values.items()} if self.mutates() else dict(values)
        device = next((one.device for one in values.values()), torch.device("cpu"))
        for step in self.steps:
            known[step.name] = step.func(*_filled(step.args, known, device), **_filled(step.kwargs, known, device))
        return [_taken(known, ref) for ref in self.outputs]

    def computation(self) -> Computation:
        """The same as a function of its tensors."""
        from sapper.backends.computation import with_gradients

        names = [name for name in self.inputs if name not in self.cotangents]

        def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.forward(dict(zip(names, tensors, strict=True))))

        tensors = tuple(self.inputs[name] for name in names)
        plain = Computation(name=self.name, fn=fn, tensors=tensors, labels=self.labels, of_training=self.of_training)
        if not self.wrt:
            return plain
        given = [None if name is None else self.inputs[name] for name in self.cotangents]
        return with_gradients(plain, wrt=[names.index(name) for name in self.wrt], cotangents=given)

    def values(self) -> dict[str, Any]:
        """Every value of the graph as the CPU computes it, results with several items as tuples."""
        known: dict[str, Any] = {name: one.clone() for name, one in self.inputs.items()} if self.mutates() else dict(self.inputs)
        for step in self.steps:
            known[step.name] = step.func(*_filled(step.args, known, _CPU), **_filled(step.kwargs, known, _CPU))
        return known

    def pruned(self) -> Suspect:
        """Without steps and inputs that no output needs; of a program without outputs it is the steps themselves that matter."""
        if not self.outputs and not self.wrt:
            return self
        needed = {ref.name for ref in self.outputs} | set(self.wrt) | {name for name in self.cotangents if name}
        kept = []
        for step in reversed(self.steps):
            if step.name in needed or _writes(step):
                kept.append(step)
                needed |= {ref.name for ref in refs_of((step.args, step.kwargs))}
        inputs = {name: tensor for name, tensor in self.inputs.items() if name in needed}
        return dataclasses.replace(self, steps=tuple(reversed(kept)), inputs=inputs or _anchor(self.inputs))


    def to_bytes(self) -> bytes:
        """One safetensors file: values, and the graph in its metadata."""
        parts = [*self.before, self]
        tensors = [one for part in parts for one in part.inputs.values()]
        return to_bytes(tensors, {"suspect": json.dumps([part._form() for part in parts])})

    @classmethod
    def from_bytes(cls, data: bytes) -> Suspect:
        """What :meth:`to_bytes` wrote.

        Raises:
            Unkept: The bytes hold no suspect.
        """
        tensors, facts = from_bytes(data)
        if "suspect" not in facts:
            raise Unkept("prove.reason.no_call")
        given = iter(tensors)
        *before, last = [_formed(form, given) for form in json.loads(facts["suspect"])]
        return dataclasses.replace(last, before=tuple(before))

    def _form(self) -> dict[str, Any]:
        """All but the values, as JSON."""
        return {
            "name": self.name, "inputs": list(self.inputs), "steps": [_step_form(step) for step in self.steps], "labels": self.labels,
            "outputs": [[ref.name, ref.item] for ref in self.outputs], "wrt": self.wrt, "cotangents": self.cotangents,
            "of_training": self.of_training,
        }  # fmt: skip


def _step_form(step: Step) -> dict[str, Any]:
    """A step as JSON: its references by their place in a list, as tensors stand in a call."""
    refs: list[Ref] = []

    def slot(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            refs.append(leaf)
            return Slot(at=len(refs) - 1)
        return Slot(at=None) if isinstance(leaf, torch.device) else leaf

    args, kwargs = mapped(list(step.args), slot), mapped(step.kwargs, slot)
    form = {"args": encoded(args), "kwargs": {key: encoded(value) for key, value in kwargs.items()}}
    return {"name": step.name, "op": step.func.name(), "refs": [[ref.name, ref.item] for ref in refs], **form}


def _formed(form: dict[str, Any], tensors: Iterator[torch.Tensor]) -> Suspect:
    steps = []
    for one in form["steps"]:
        refs = [Ref(name=name, item=item) for name, item in one["refs"]]

        def fill(leaf: Any, refs: list[Ref] = refs) -> Any:
            if not isinstance(leaf, Slot):
                return leaf
            return _CPU if leaf.at is None else refs[leaf.at]

        kwargs = {key: mapped(decoded(value), fill) for key, value in one["kwargs"].items()}
        steps.append(Step(name=one["name"], func=overload(one["op"]), args=tuple(mapped(decoded(one["args"]), fill)), kwargs=kwargs))
    return Suspect(
        name=form["name"], inputs={name: next(tensors) for name in form["inputs"]}, steps=tuple(steps), labels=tuple(form["labels"]),
        outputs=tuple(Ref(name=name, item=item) for name, item in form["outputs"]), wrt=tuple(form["wrt"]),
        cotangents=tuple(form["cotangents"]), of_training=form["of_training"],
    )  # fmt: skip


_CPU = torch.device("cpu")


def _anchor(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An input that tells a graph of factories alone where to compute."""
    return dict(list(inputs.items())[:1]) or {"x": torch.zeros(1)}


def _writes(step: Step) -> bool:
    return bool(step.func._schema.is_mutable) or op_name(step.func) in HIDDEN_WRITES


def op_name(func: Any) -> str:
    """``aten::name.overload``."""
    return str(func._schema.name) + (f".{func._schema.overload_name}" if func._schema.overload_name else "")


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of arguments with ``change`` applied to its leaves; containers that an op's schema knows stay as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(one, change) for one in value)
    if isinstance(value, dict):
        return {key: mapped(one, change) for key, one in value.items()}
    return change(value)


def refs_of(value: Any) -> list[Ref]:
    """The references in a tree of arguments."""
    found: list[Ref] = []
    mapped(value, lambda leaf: found.append(leaf) if isinstance(leaf, Ref) else None)
    return found


def _filled(value: Any, known: Mapping[str, Any], device: torch.device) -> Any:
    def change(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return _taken(known, leaf)
        return device if isinstance(leaf, torch.device) else leaf

    return mapped(value, change)


def _taken(known: Mapping[str, Any], ref: Ref) -> Any:
    return known[ref.name] if ref.item is None else known[ref.name][ref.item]


Decompose = Literal["core", "elementary"]
"""Into PyTorch's core ATen ops, which exporters know, or as far as PyTorch has rules for: ``gelu`` becomes ``erf`` and products."""


def suspect_of(computation: Computation, *, decompose: Decompose | None = None, composite: bool = True) -> Suspect:
    """The graph of a computation.

    Args:
        computation: Its gradients stay with autograd where it says how they are taken and ``decompose`` is not asked for.
        decompose: Into simpler ops.
        composite: Keep ops that PyTorch would dissolve when it dispatches them, such as ``aten::linear``.

    Raises:
        Untraceable: A value of a tensor decides what is computed, or a function of Python is called.
    """
    taken = None if decompose else computation.differentiated
    inner = computation if taken is None else taken.forward
    # Traced before dispatch, a backward pass would hold what the forward pass saved as constants.
    differentiates = any(label.startswith("grad") for label in inner.labels)
    plain = _traced(inner, decompose=decompose, composite=composite and not differentiates)
    if taken is None:
        return plain
    names = list(plain.inputs)[: len(inner.tensors)]
    inputs, cotangents = dict(plain.inputs), []
    for at, one in enumerate(taken.cotangents):
        cotangents.append(None if one is None else f"g{at}")
        if one is not None:
            inputs[f"g{at}"] = one
    wrt = tuple(names[at] for at in taken.wrt)
    return dataclasses.replace(plain, inputs=inputs, wrt=wrt, cotangents=tuple(cotangents))


def _traced(computation: Computation, *, decompose: Decompose | None, composite: bool) -> Suspect:
    table: dict[Any, Any] = {}
    if decompose is not None:
        table = dict(torch._decomp.core_aten_decompositions() if decompose == "core" else torch._decomp.decomposition_table)
        table |= decompositions()
    try:
        with torch.no_grad():
            graph = make_fx(
                lambda *tensors: tuple(computation.fn(*tensors)), decomposition_table=table, pre_dispatch=composite and not decompose
            )(*computation.tensors)
    except Exception as error:
        raise Untraceable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return _read(graph, computation)


def _read(graph: Any, computation: Computation) -> Suspect:
    inputs: dict[str, torch.Tensor] = {}
    steps: list[Step] = []
    known: dict[Any, Any] = {}
    outputs: tuple[Any, ...] = ()
    given = iter(computation.tensors)

    def seen(value: Any) -> Any:
        return torch.fx.node.map_arg(value, lambda node: known[node])

    for node in graph.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            name = f"x{len(inputs)}"
            inputs[name] = next(given) if node.op == "placeholder" else getattr(graph, node.target)
            known[node] = Ref(name=name)
        elif node.op == "output":
            outputs = tuple(seen(node.args[0]))
        elif node.target in TRANSPARENT:
            known[node] = seen(node.args[0])
        elif getattr(node.target, "__name__", "") == "getitem":
            known[node] = Ref(name=known[node.args[0]].name, item=node.args[1])
        elif isinstance(node.target, torch._ops.OpOverload):
            step = Step(name=f"v{len(steps)}", func=node.target, args=_plain(seen(node.args)), kwargs=_plain(seen(dict(node.kwargs))))
            steps.append(step)
            known[node] = Ref(name=step.name)
        elif "set_grad_enabled" not in str(node.target):
            raise Untraceable(str(node.target))
    if not all(isinstance(one, Ref) for one in outputs):
        raise Untraceable("an output is no tensor")
    suspect = Suspect(name=computation.name, inputs=inputs, steps=tuple(steps), outputs=outputs, labels=computation.labels)
    suspect = dataclasses.replace(suspect, of_training=computation.of_training)
    return dataclasses.replace(suspect.pruned(), inputs=inputs or _anchor({}))


def _plain(value: Any) -> Any:
    """Fx's immutable containers as plain ones."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value] if isinstance(value, list) else tuple(_plain(one) for one in value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def materialised(value: Any) -> Sequence[torch.Tensor]:
    """The tensors of a step's result."""
    return [value] if isinstance(value, torch.Tensor) else [one for one in value if isinstance(one, torch.Tensor)]
