"""Computation: a function of tensors to tensors that any stack can run, and its graph of ATen ops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

import torch


@dataclass(frozen=True, kw_only=True)
class Computation:
    """What one case of a proof computes.

    Functional as seen from outside: it changes none of its inputs. It names no device and makes what tensors it needs on
    the device of its inputs, so that the same function gives the truth (in fp64), the peer (on the CPU) and the result.
    """

    name: str
    fn: Callable[..., Any]
    """Called with ``tensors`` one by one; returns a tuple of tensors."""
    tensors: tuple[torch.Tensor, ...]
    """Inputs, on the CPU."""
    labels: tuple[str, ...]
    """A name for each output: ``value``, ``value 1``, ``grad of weight``. Those of gradients begin with ``grad``."""
    differentiated: Differentiated | None = None
    """How its gradients are taken, where it was made by :func:`with_gradients`."""
    of_training: bool = False
    """Part of the graph of a training step, whatever its labels: it takes the way through a stack that the whole step takes."""

    def __call__(self, tensors: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Outputs where the tensors lie."""
        return list(self.fn(*(self.tensors if tensors is None else tensors)))


@dataclass(frozen=True, kw_only=True)
class Differentiated:
    """What :func:`with_gradients` was given, for whoever writes the computation out again."""

    forward: Computation
    wrt: tuple[int, ...]
    cotangents: tuple[torch.Tensor | None, ...]


def with_gradients(computation: Computation, *, wrt: Sequence[int], cotangents: Sequence[torch.Tensor | None]) -> Computation:
    """The same computation with the gradients of some inputs after its values.

    Args:
        computation: Its outputs come first.
        wrt: Positions among the tensors, floating ones.
        cotangents: One for each output (None: the output has no gradient); they become further inputs, so that every stack and
            the truth use the same ones.
    """
    given = [one for one in cotangents if one is not None]
    count = len(computation.tensors)

    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = [one.detach() for one in tensors[:count]]
        for at in wrt:
            leaves[at].requires_grad_()
        with torch.enable_grad():
            values = computation.fn(*leaves)
            rest = iter(tensors[count:])
            pairs = [(value, next(rest)) for value, one in zip(values, cotangents, strict=True) if one is not None]
            pairs = [(value, one) for value, one in pairs if value.requires_grad]
            found = torch.autograd.grad(
                [value for value, _ in pairs], [leaves[at] for at in wrt], [one.to(value) for value, one in pairs],
                allow_unused=True,
            )
        grads = [torch.zeros_like(leaves[at]) if one is None else one for at, one in zip(wrt, found, strict=True)]
        return (*(value.detach() for value in values), *grads)

    return Computation(
        name=computation.name, fn=fn, tensors=(*computation.tensors, *given),
        labels=(*computation.labels, *(f"grad of input {at}" for at in wrt)),
        differentiated=Differentiated(forward=computation, wrt=tuple(wrt), cotangents=tuple(cotangents)),
    )


def graph_of(computation: Computation, *, decompose: bool = True) -> torch.fx.GraphModule:
    """Its functional ATen graph, forward and backward in one where it has gradients: what inference-only stacks can run.

    Args:
        computation: Traced once on its own tensors.
        decompose: Into PyTorch's core ATen ops, which exporters know; else the ops as dispatched.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    # Batch norm changes its statistics although its schema does not say so: as another op it says so, and so it does taken apart.
    batch_norm = torch.ops.aten.native_batch_norm
    table: dict[Any, Any] = {batch_norm.default: _declared_batch_norm}
    attention: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if decompose:
        table = {**torch._decomp.core_aten_decompositions(), **torch._decomp.get_decompositions([batch_norm])}
        # The fused CPU attention's forward would be taken apart and its backward not, which reads what only the fused one keeps.
        attention = sdpa_kernel(SDPBackend.MATH)
    with attention, _without_onednn():
        traced = make_fx(lambda *tensors: tuple(computation.fn(*tensors)), decomposition_table=table)(*computation.tensors)
    if any(node.op == "call_function" and _writes(node.target) for node in traced.graph.nodes):
        traced = make_fx(torch.func.functionalize(traced))(*computation.tensors)
    for node in list(traced.graph.nodes):
        if node.op == "call_function" and node.target in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """OneDNN's recurrent layers leave out outputs that no graph can lack; in convolutions and products a graph does not name it."""
    had = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(had)


def _declared_batch_norm(
    x: torch.Tensor, weight: Any, bias: Any, mean: torch.Tensor | None, var: torch.Tensor | None, training: bool, momentum: float,
    eps: float,
) -> Any:  # fmt: skip
    """Batch norm as the op that returns the new statistics, which are then written where they belong."""
    if not training or mean is None or var is None:
        return NotImplemented  # as it is: it changes nothing
    functional = torch.ops.aten._native_batch_norm_legit_functional.default
    *found, new_mean, new_var = functional(x, weight, bias, mean, var, training, momentum, eps)
    mean.copy_(new_mean)
    var.copy_(new_var)
    return tuple(found)


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
