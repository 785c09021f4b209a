"""Equal layers run once: what the first call of a layer did is written down again for calls of layers like it.

A call is like an earlier one where both modules have the same classes, attributes, weights and buffers (dtype, shape,
strides, whether they are trained) and the arguments are alike in the same way. Where the program could tell the two
apart, everything runs:

* a layer whose own position (``layer_idx``) is used while it runs, that changes attributes of itself, writes to its
  arguments, has hooks, reads tensors that are neither its own nor its arguments, or returns something else than fresh tensors;
* all layers, where a tensor from inside one is read outside it, or a gradient is laid out in another way than in the call
  that was recorded (:meth:`Repeats.finish`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from sapper.capture.likeness import Unlike, attributes_of, call_of, layout_of, position_hidden, positions_of, state_of, tensors_of
from sapper.capture.trace import Node, Recorder, Span, scaled_rows


@dataclass(eq=False)
class _Call:
    """The first call of a kind of layer."""

    path: str
    span: Span
    tensors: list[Any]
    """Tensors among its arguments."""
    outputs: Any = None
    """What it returned, each tensor as its layout."""
    output_storages: list[int] = field(default_factory=list)
    usable: bool = False
    copies: list[_Copy] = field(default_factory=list)
    gradients: dict[str, Any] = field(default_factory=dict)
    """Layout of the gradients of its outputs and of its input."""


@dataclass(eq=False)
class _Copy:
    """A later call, which did not run."""

    path: str
    span: Span
    nodes: list[tuple[Node, Node]] = field(default_factory=list)
    """(node that ran, its copy)."""
    gradients: dict[str, Any] = field(default_factory=dict)


class Repeats:
    """Watches the layers of one module while a recorder is in force."""

    def __init__(self, recorder: Recorder, module: Any, units: tuple[str, ...]) -> None:
        self._recorder = recorder
        self._module = module
        self._units = {path: module.get_submodule(path) for path in units if path}
        self._positions: dict[str, frozenset[tuple[str, str]]] = {}
        self._attributes: dict[str, Any] = {}
        self._calls: dict[Any, _Call] = {}

    @property
    def repeated(self) -> int:
        """Calls that did not run."""
        return sum(len(call.copies) for call in self._calls.values())

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, layers like one that ran do not run."""
        watched = [(path, unit) for path, unit in self._units.items() if "forward" not in vars(unit)]
        for path in {path.rpartition(".")[0] for path, _ in watched}:
            self._positions[path] = positions_of({key: self._units[f"{path}.{key}".lstrip(".")] for key in self._keys(path)})
        for path, unit in watched:
            self._attributes[path] = attributes_of(unit, self._positions[path.rpartition(".")[0]])
            unit.forward = self._instead_of(path, unit, unit.forward)
        try:
            yield
        finally:
            for _, unit in watched:
                del unit.forward

    def finish(self) -> None:
        """After the backward pass: add what the copies cost.

        Raises:
            Unlike: A copy may differ from what would have run.
        """
        for call in self._calls.values():
            if not call.copies:
                continue
            if self._escaped(call) or not all(copy.span.whole and copy.gradients == call.gradients for copy in call.copies):
                raise Unlike
            scaled_rows(self._recorder.trace, call.span, times=len(call.copies))
            weights = dict(self._module.get_submodule(call.path).named_parameters())
            for copy in call.copies:
                for ran, copied in copy.nodes:
                    copied.backward_flops = ran.backward_flops
                for name, weight in self._module.get_submodule(copy.path).named_parameters():
                    if weight.grad is None and weights[name].grad is not None:
                        weight.grad = weights[name].grad

    def _keys(self, path: str) -> list[str]:
        """Keys of the layers of the list at ``path``."""
        return [key for parent, _, key in (unit.rpartition(".") for unit in self._units) if parent == path]

    # ---- one call ----------------------------------------------------------------------------------------------------

    def _instead_of(self, path: str, unit: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            recorder = self._recorder
            if recorder.phase != "forward" or recorder.unit_path != path or recorder.in_span:
                return forward(*args, **kwargs)
            try:
                tensors = tensors_of((args, kwargs))
                key = (self._attributes[path], call_of(args, kwargs), torch.is_grad_enabled(), torch.is_autocast_enabled())
                self._own(path, unit)
            except Unlike:
                return forward(*args, **kwargs)
            if key not in self._calls:
                return self._first(key, path, unit, forward, args, kwargs, tensors)
            call = self._calls[key]
            return self._copied(call, path, unit, tensors) if call.usable else forward(*args, **kwargs)

        return run

    def _first(self, key: Any, path: str, unit: Any, forward: Any, args: Any, kwargs: Any, tensors: list[Any]) -> Any:
        before = state_of(unit)
        with self._recorder.span() as span, position_hidden(unit, self._positions[path.rpartition(".")[0]]) as position:
            output = forward(*args, **kwargs)
        call = self._calls[key] = _Call(path=path, span=span, tensors=tensors)
        if position.used or state_of(unit) != before or not span.whole:
            return output
        try:
            call.outputs = layout_of(output)
            made = tensors_of(output)
            call.output_storages = [self._fresh(tensor, call, tensors) for tensor in made]
            self._check_inside(call, path, unit)
        except Unlike:
            return output
        differentiable = [tensor for tensor in tensors if tensor.requires_grad]
        leaves = [tensor for tensor in made if tensor.requires_grad]
        if len(set(call.output_storages)) != len(made) or len(differentiable) != (1 if leaves else len(differentiable)):
            return output
        if leaves:
            self._follow(call, differentiable[0], made)
        call.usable = True
        return output

    def _copied(self, call: _Call, path: str, unit: Any, tensors: list[Any]) -> Any:
        recorder = self._recorder
        storages = dict(zip(self._own(call.path, self._units[call.path]), self._own(path, unit), strict=True))
        for old, new in zip(call.tensors, tensors, strict=True):
            storages[recorder.hold(old)] = recorder.hold(new)
        source = next((tensor for tensor in tensors if tensor.requires_grad), None)
        with recorder.span(muted=True) as span:
            copy = _Copy(path, span)
            output = _made(call.outputs, source, copy)
        for old, tensor in zip(call.output_storages, tensors_of(output), strict=True):
            storages[old] = recorder.hold(tensor)
        copy.nodes = recorder.again(call.span, storages, (call.path, path))
        call.copies.append(copy)
        return output

    # ---- what may differ ---------------------------------------------------------------------------------------------

    def _own(self, path: str, unit: Any) -> list[int]:
        """Storages of the weights and buffers of a layer, in order. A weight that has another name first is shared with
        something outside."""
        found = []
        for name, weight in unit.named_parameters():
            storage = self._recorder.hold(weight)
            if self._recorder.weight_in(storage) != f"{path}.{name}":
                raise Unlike
            found.append(storage)
        return found + [self._recorder.hold(buffer) for _, buffer in unit.named_buffers()]

    def _fresh(self, tensor: Any, call: _Call, arguments: list[Any]) -> int:
        """The storage of a result, which must be new and no larger than the result."""
        storage = self._recorder.hold(tensor)
        written = {value.storage for node in call.span.nodes for value in node.writes}
        dense = tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        if not dense or storage not in written or storage in {self._recorder.hold(argument) for argument in arguments}:
            raise Unlike
        return storage

    def _check_inside(self, call: _Call, path: str, unit: Any) -> None:
        """Refuse a call that reads what is neither its own nor its argument, or writes to its arguments."""
        given = {self._recorder.hold(tensor) for tensor in call.tensors}
        known = given | set(self._own(path, unit))
        for node in call.span.nodes:
            if any(value.storage not in known for value in node.reads) or any(value.storage in given for value in node.writes):
                raise Unlike
            known.update(value.storage for value in node.writes)

    def _follow(self, call: _Call, source: Any, made: list[Any]) -> None:
        """Note how the gradients of the call's outputs and of its input are laid out."""

        def note(name: str) -> Callable[[Any], None]:
            return lambda gradient: call.gradients.__setitem__(name, _layout(gradient))

        source.register_hook(note("input"))
        for at, tensor in enumerate(made):
            if tensor.requires_grad:
                tensor.register_hook(note(f"output {at}"))

    def _escaped(self, call: _Call) -> bool:
        """Whether something made inside, and not returned, was used outside, or the input that has a gradient was."""
        inside = {value.storage for node in call.span.nodes for value in node.writes} - set(call.output_storages)
        inside -= set(self._own(call.path, self._units[call.path]))
        inside |= {self._recorder.hold(tensor) for tensor in call.tensors if tensor.requires_grad}
        nodes = self._recorder.trace.nodes
        before = (value for node in nodes[: call.span.first] for value in node.reads)
        after = (value for node in nodes[call.span.last :] for value in (*node.reads, *node.writes))
        return any(value.storage in inside for value in itertools.chain(before, after))


def _layout(tensor: Any) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


class _Layer(torch.autograd.Function):
    """Stands for a layer between its input and its outputs."""

    @staticmethod
    def forward(ctx: Any, source: Any, layouts: Any, copy: _Copy) -> Any:
        ctx.set_materialize_grads(False)
        ctx.copy, ctx.source = copy, (source.shape, source.stride(), source.dtype)
        made = [torch.empty_strided(shape, stride, dtype=dtype) for dtype, shape, stride, _ in layouts]
        ctx.mark_non_differentiable(*(tensor for tensor, layout in zip(made, layouts, strict=True) if not layout[3]))
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        for at, gradient in enumerate(gradients):
            if gradient is not None:
                ctx.copy.gradients[f"output {at}"] = _layout(gradient)
        shape, stride, dtype = ctx.source
        ctx.copy.gradients["input"] = (dtype, tuple(shape), stride)
        return torch.empty_strided(shape, stride, dtype=dtype), None, None


def _made(outputs: Any, source: Any, copy: _Copy) -> Any:
    """New outputs of the recorded layouts, tied to ``source`` for the backward pass."""
    layouts: list[Any] = []
    _collect(outputs, layouts)
    if any(layout[3] for layout in layouts):
        made = list(_Layer.apply(source, layouts, copy))
    else:
        made = [torch.empty_strided(shape, stride, dtype=dtype) for dtype, shape, stride, _ in layouts]
    return _filled(outputs, iter(made))


def _collect(outputs: Any, layouts: list[Any]) -> None:
    kind, content = outputs
    if kind == "tensor":
        layouts.append(content)
    elif kind == "tuple":
        for item in content:
            _collect(item, layouts)


def _filled(outputs: Any, made: Iterator[Any]) -> Any:
    kind, content = outputs
    if kind == "tensor":
        return next(made)
    return tuple(_filled(item, made) for item in content) if kind == "tuple" else content
