"""Walks an exported program with JAX arrays in place of tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch.fx import Node

import torch
from sapper.backends.arrays import array_of
from sapper.backends.base import Unsupported
from sapper.backends.lax import indexing, pointwise, products, shapes, spectral
from sapper.backends.lax.table import LOWERINGS

MODULES = (indexing, pointwise, products, shapes, spectral)
"""Imported for what they enter into the table."""


def function_of(program: Any) -> Callable[..., tuple[Any, ...]]:
    """A function of JAX arrays, to be compiled by ``jax.jit``, that computes what the exported program does.

    Raises:
        Unsupported: An op that the table lacks, by its name.
    """
    program = program.run_decompositions(_decompositions())
    nodes = list(program.graph_module.graph.nodes)
    lacking = sorted({_name(node) for node in nodes if node.op == "call_function" and not _known(node)})
    if lacking:
        raise Unsupported(f"no lowering to JAX for {', '.join(lacking)}")
    signature = program.graph_signature
    held = {**program.state_dict, **program.constants}
    inputs = [None if spec.kind.name == "USER_INPUT" else array_of(held[spec.target]) for spec in signature.input_specs]
    wanted = [at for at, spec in enumerate(signature.output_specs) if spec.kind.name == "USER_OUTPUT"]

    def function(*arrays: Any) -> tuple[Any, ...]:
        import jax.numpy as jnp

        given = iter(arrays)
        values = iter([next(given) if one is None else jnp.asarray(one) for one in inputs])
        environment: dict[Node, Any] = {}
        for node in nodes:
            if node.op == "placeholder":
                environment[node] = next(values)
            elif node.op == "call_function":
                environment[node] = _call(node, environment)
            elif node.op == "output":
                outputs = [environment[one] if isinstance(one, Node) else one for one in node.args[0]]
                return tuple(jnp.asarray(outputs[at]) for at in wanted)
        raise AssertionError("a graph without an output")

    return function


def _decompositions() -> Any:
    """PyTorch's default table, and its own decompositions of the composite ops that core ATen keeps."""
    aten = torch.ops.aten
    composite = [
        aten.native_layer_norm, aten.native_group_norm, aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training,
        aten._native_batch_norm_legit_functional, aten._softmax, aten._log_softmax, aten.gelu, aten.silu, aten.elu, aten.leaky_relu,
        aten.hardtanh, aten._scaled_dot_product_flash_attention_for_cpu, aten.native_batch_norm, aten.addmm, aten.roll,
        aten.linalg_vector_norm, aten.upsample_bilinear2d, aten.upsample_nearest2d, aten.upsample_nearest1d, aten.unfold_copy,
    ]  # fmt: skip
    return {**torch.export.default_decompositions(), **torch._decomp.get_decompositions(composite)}


def _name(node: Node) -> str:
    return str(node.target)


def _known(node: Node) -> bool:
    return node.target is operator.getitem or _lowering(node) is not None


def _lowering(node: Node) -> Callable[..., Any] | None:
    name = _name(node)
    return LOWERINGS.get(name) or LOWERINGS.get(name.rpartition(".")[0])


def _call(node: Node, environment: dict[Node, Any]) -> Any:
    def value(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda one: environment[one])

    if node.target is operator.getitem:
        source, at = node.args
        return environment[source][at]
    lowering = _lowering(node)
    assert lowering is not None
    function = getattr(lowering, "with_meta", None)
    if function is not None:  # it needs the dtypes of its tensors
        return _typed(function(node, value(node.args), value(node.kwargs)), node.meta["val"])
    return _typed(lowering(*value(node.args), **value(node.kwargs)), node.meta.get("val"))


def _typed(found: Any, meta: Any) -> Any:
    """In the dtypes that PyTorch gives the node."""
    import jax.numpy as jnp

    if isinstance(meta, torch.Tensor):
        return jnp.asarray(found).astype(dtype_of(meta.dtype)).reshape(tuple(meta.shape))
    if isinstance(found, (tuple, list)):
        return [one if other is None else _typed(one, other) for one, other in zip(found, meta, strict=True)]
    return found


def dtype_of(dtype: torch.dtype) -> Any:
    """JAX's dtype."""
    return pointwise.dtype_of(dtype)
