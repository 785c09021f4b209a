"""A whole program as one computation: loss, outputs and running statistics, and the gradients of its weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.utils.stateless import _reparametrize_module

import torch
from sapper.backends.computation import Computation, with_gradients
from sapper.programs.program import Program, tensors_in


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A program's computation, and which of its tensors is what.

    Its tensors are weights, buffers and inputs, in this order; its outputs the loss (where there is one), what the module returns,
    the buffers after the pass, and the gradients of ``taught``.
    """

    computation: Computation
    weights: tuple[str, ...]
    """All parameters."""
    buffers: tuple[str, ...]
    taught: tuple[str, ...]
    """Parameters whose gradients are outputs."""

    def tensors(self, weights: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor], inputs: Any) -> tuple[torch.Tensor, ...]:
        """Tensors of the computation for other values of the same shapes."""
        return (*weights, *buffers, *tensors_in(inputs))


def whole(program: Program, *, name: str, gradients: bool = True) -> Whole:
    """The computation of one forward and, with ``gradients``, backward pass of ``program`` as its module stands.

    A weight that the loss does not depend on has no gradient here, rather than one of zeros.
    """
    module = program.module
    weights = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    given = tensors_in(program.inputs)
    forward = _Forward(program, [*weights, *buffers], len(weights))
    tensors = tuple(one.detach() for one in (*weights.values(), *buffers.values(), *given))
    labels, taught = forward.look(tensors, [at for at, one in enumerate(weights.values()) if one.requires_grad and gradients])
    plain = Computation(name=name, fn=forward, tensors=tensors, labels=labels)
    names = list(weights)
    computation = plain
    if taught:
        cotangents = [torch.ones((), dtype=torch.float32) if label == "loss" else None for label in labels]
        joint = with_gradients(plain, wrt=taught, cotangents=cotangents)
        fn = forward.with_gradients(taught, labels.index("loss"), len(tensors))
        computation = dataclasses.replace(joint, fn=fn, labels=(*labels, *(f"grad {names[at]}" for at in taught)))
    return Whole(computation=computation, weights=tuple(weights), buffers=tuple(buffers), taught=tuple(names[at] for at in taught))


class _Forward:
    """The pass as a function of weights, buffers and inputs, which it leaves as they are."""

    def __init__(self, program: Program, names: Sequence[str], weights: int) -> None:
        self._program, self._names, self._weights = program, names, weights

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with self._held(tensors) as (loss, outputs, buffers):
            return (*(() if loss is None else (loss,)), *outputs, *buffers)

    def with_gradients(self, taught: Sequence[int], at_loss: int, count: int) -> Callable[..., tuple[torch.Tensor, ...]]:
        """The pass and the gradients of the loss, multiplied by the tensor after the first ``count``."""

        def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            leaves = [one.detach() for one in tensors[:count]]
            for at in taught:
                leaves[at].requires_grad_()
            with torch.enable_grad(), self._held(leaves) as (loss, outputs, buffers):
                values = (loss, *outputs, *buffers)
                wanted = [leaves[at] for at in taught]
                found = torch.autograd.grad([values[at_loss]], wanted, [tensors[count].to(loss.dtype)], allow_unused=True)
            grads = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(wanted, found, strict=True)]
            return (*(one.detach() for one in values), *grads)

        return fn

    @contextlib.contextmanager
    def _held(self, tensors: Sequence[torch.Tensor]) -> Iterator[tuple[Any, list[torch.Tensor], list[torch.Tensor]]]:
        """A pass whose weights the module keeps inside of the block: what is computed again in the backward pass needs them."""
        count = len(self._names)
        state = dict(zip(self._names, tensors, strict=False))
        for name in self._names[self._weights :]:
            state[name] = state[name].clone()  # a pass in training changes running statistics in place
        program = dataclasses.replace(self._program, inputs=filled(self._program.inputs, iter(tensors[count:])))
        with _reparametrize_module(program.module, state, tie_weights=True):
            output = program.call()
            yield program.loss_of(output), tensors_in(output), [state[name] for name in self._names[self._weights :]]

    def look(self, tensors: Sequence[torch.Tensor], wanted: Sequence[int]) -> tuple[tuple[str, ...], list[int]]:
        """Labels of the outputs, and which of the ``wanted`` weights the loss depends on; one pass on the CPU."""
        leaves = list(tensors)
        for at in wanted:
            leaves[at] = leaves[at].detach().requires_grad_()
        with torch.enable_grad():
            reached: Sequence[Any] = ()
            with self._held(leaves) as (loss, outputs, _):
                if loss is not None and loss.requires_grad and wanted:
                    reached = torch.autograd.grad(loss, [leaves[at] for at in wanted], allow_unused=True)
        labels = [*([] if loss is None else ["loss"]), *(f"output {at}" for at in range(len(outputs)))]
        labels += [f"buffer {name}" for name in self._names[self._weights :]]
        return tuple(labels), [at for at, one in zip(wanted, reached, strict=False) if one is not None]


def filled(form: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Nested inputs of the form of ``form`` with other tensors, in the order of :func:`~sapper.programs.program.tensors_in`."""
    if isinstance(form, torch.Tensor):
        return next(tensors)
    if isinstance(form, dict):
        return {key: filled(item, tensors) for key, item in form.items()}
    if isinstance(form, (tuple, list)):
        return type(form)(filled(item, tensors) for item in form)
    return form
