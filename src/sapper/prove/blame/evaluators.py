"""Reference evaluators of exported graphs: slow, plain, and not the stack that is accused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from sapper.backends import Backend, find
from sapper.backends.base import Unsupported
from sapper.backends.compiler import has_gradients
from sapper.backends.computation import Computation


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """How a stack's exported graph is made and evaluated."""

    name: str
    export: Callable[[Computation], Any]
    run: Callable[[Any, Computation], list[torch.Tensor]]


def of(backend: Backend, computation: Computation) -> Evaluator | None:
    """The evaluator for what a backend exports of a computation: its own, if it has a method ``evaluator``, or ours.

    None where ops run one by one.
    """
    own = getattr(backend, "evaluator", None)
    if own is not None:
        return cast(Evaluator, own())
    name = backend.name.partition(":")[0]
    if name == "onnxruntime" or (name == "openvino" and ("onnx" in getattr(backend, "options", ()) or has_gradients(computation))):
        return Evaluator(name="onnx.reference", export=_to_onnx, run=_by_onnx_reference)
    if name == "openvino":
        return Evaluator(name="openvino.Model.evaluate", export=_to_openvino, run=_by_openvino)
    if name == "inductor":
        return decomposed()
    return Evaluator(name="torch.export", export=_to_program, run=_by_eager) if backend.kind == "compiler" else None


def decomposed() -> Evaluator:
    """Dynamo's capture and Inductor's decompositions, run by PyTorch's own kernels."""
    stop = find("inductor:decomposed")
    return Evaluator(name=stop.name, export=stop.prepare, run=lambda ready, computation: ready(computation.tensors))


def plain_specs(backend: Backend) -> tuple[str, ...]:
    """The same stack with passes off, or in the precision that was asked for; the weakest change first."""
    own = getattr(backend, "plain", None)
    if own is not None:
        return tuple(own)
    name, _, detail = backend.name.partition(":")
    if name not in _PLAIN:
        return ()
    had = [word for word in detail.split("+") if word]
    return tuple(f"{name}:{'+'.join([*had, *more.split('+')])}" for more in _PLAIN[name] if not set(more.split("+")) <= set(had))


def writes_code(backend: Backend) -> bool:
    """Whether the stack generates its kernels for each graph, so that a wrong one is its compiler's; else they were there before."""
    own = getattr(backend, "writes_code", None)
    return bool(own) if own is not None else backend.name.partition(":")[0] in _WRITES_CODE


_WRITES_CODE = frozenset({"inductor", "jax", "torch-xla", "xla", "iree", "tvm", "tinygrad"})
_PLAIN = {
    "inductor": ("nofusion+nopatterns+nocache", "novector+nocache"), "onnxruntime": ("noopt",), "openvino": ("f32",),
}  # fmt: skip


def _to_onnx(computation: Computation) -> Any:
    from sapper.backends.stacks.onnxruntime import OnnxRuntime

    return OnnxRuntime().exported(computation)


def _by_onnx_reference(model: Any, computation: Computation) -> list[torch.Tensor]:
    import numpy
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    feeds = {name: one.contiguous().numpy() for name, one in zip(evaluator.input_names, computation.tensors, strict=True)}
    expected = computation()
    found = [torch.from_numpy(numpy.ascontiguousarray(one)) for one in evaluator.run(None, feeds)]
    # The evaluator may compute in more than the precision of a graph's output; that is no fault of the graph.
    return [
        one.to(true.dtype) if one.is_floating_point() and true.is_floating_point() else one
        for one, true in zip(found, expected, strict=True)
    ]


def _to_openvino(computation: Computation) -> Any:
    from sapper.backends.compiler import quiet
    from sapper.backends.stacks.openvino import converted

    with quiet():
        return converted(computation)[0]


def _by_openvino(model: Any, computation: Computation) -> list[torch.Tensor]:
    import openvino

    inputs = [openvino.Tensor(one.contiguous().numpy()) for one in computation.tensors]
    expected = computation()
    outputs = [
        openvino.Tensor(port.get_element_type(), openvino.Shape(list(one.shape)))
        for port, one in zip(model.outputs, expected, strict=True)
    ]
    if not model.evaluate(outputs, inputs):
        raise Unsupported("no reference implementation of an op")
    return [torch.from_numpy(one.data.copy()) for one in outputs]


def _to_program(computation: Computation) -> Any:
    from sapper.backends.compiler import program_of

    return program_of(computation).run_decompositions()


def _by_eager(program: Any, computation: Computation) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(program.module()(*computation.tensors))
