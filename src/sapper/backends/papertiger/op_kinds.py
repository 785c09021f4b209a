"""What ops are by nature: those that only move data, those that chips approximate, those that draw random numbers.

Names are those of PyTorch's dispatcher, without overload and without the underscore of the in-place form.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

MOVES = frozenset({
    "_amp_foreach_non_finite_check_and_unscale_", "_amp_update_scale_", "alias", "arange", "as_strided_scatter", "bucketize", "cat",
    "clone", "constant_pad_nd", "copy", "diagonal_scatter", "embedding", "empty_like", "eq", "fill", "flip", "full", "gather", "ge",
    "gt", "im2col", "index", "index_copy", "index_fill", "index_select", "isfinite", "isin", "isinf", "isnan", "isneginf",
    "isposinf", "le", "lt", "masked_fill", "masked_scatter", "masked_select", "ne", "new_empty", "new_empty_strided", "nonzero",
    "put", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat", "repeat_interleave", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "roll", "rot90", "searchsorted", "select_scatter", "slice_scatter", "stack", "take",
    "triu", "tril", "tril_indices", "triu_indices", "unfold_copy", "view_as_complex_copy", "view_as_real_copy", "view_copy",
    "where", "zero",
})  # fmt: skip
"""Ops that compute nothing: their results are copies, comparisons or positions."""

TRANSCENDENTAL = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "celu", "cos", "cosh", "digamma", "elu", "erf", "erfc", "erfinv",
    "exp", "exp2", "expm1", "gelu", "gelu_backward", "glu", "hypot", "lgamma", "log", "log10", "log1p", "log2",
    "log_sigmoid_forward", "log_softmax", "_log_softmax", "logaddexp", "logcumsumexp", "logit", "logsumexp", "mish", "pow", "rsqrt",
    "sigmoid", "sigmoid_backward", "silu", "silu_backward", "sin", "sinc", "sinh", "_softmax", "softplus", "tan", "tanh",
    "tanh_backward", "xlogy", "special_erfcx", "special_i0e", "special_i1", "special_ndtri",
})  # fmt: skip
"""Functions that chips approximate."""

RANDOM = frozenset({
    "bernoulli", "binomial", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "native_dropout", "normal",
    "poisson", "random", "randperm", "rrelu_with_noise", "uniform", "_sample_dirichlet", "_standard_gamma",
})  # fmt: skip

DESCRIBING = frozenset({"set", "resize", "resize_as", "as_strided", "t", "transpose", "squeeze", "unsqueeze", "swapdims", "swapaxes"})
"""In-place ops on shape, strides and storage."""

UNDECLARED_WRITES = dict.fromkeys(("native_batch_norm", "batch_norm_gather_stats_with_counts"), ("running_mean", "running_var"))
"""Arguments that an op writes although its schema does not say so."""


@dataclass(frozen=True)
class OpFacts:
    """What an op's schema says, looked up once."""

    name: str
    """``aten::add.out``"""
    base: str
    """``add``"""
    launches: bool
    """Whether a kernel runs; else it only describes: a view, a resize, an empty tensor."""
    mutable: bool
    outs: tuple[str, ...]
    """Names of arguments that are only written."""
    written: tuple[tuple[int, str], ...]
    """Place and name of arguments that are written, those of ``outs`` included."""
    only_written: bool
    """Whether all that it returns are arguments that it wrote."""
    takes_generator: bool


@functools.cache
def facts_of(func: Any) -> OpFacts:
    """Facts of an overload of PyTorch's dispatcher."""
    schema = func._schema
    base: str = func.overloadpacket.__name__
    base = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    returns = schema.returns
    views = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    names = {argument.name for argument in schema.arguments}
    undeclared = UNDECLARED_WRITES.get(base, ()) if schema.name.startswith("aten::") else ()
    makes = "device" in names and not any("Tensor" in str(argument.type) for argument in schema.arguments)
    return OpFacts(
        name=func.name(), base=base, launches=not (views or makes or base in DESCRIBING), mutable=schema.is_mutable or bool(undeclared),
        outs=tuple(argument.name for argument in schema.arguments if argument.is_out),
        written=tuple(
            (at, argument.name) for at, argument in enumerate(schema.arguments)
            if argument.name in undeclared or (argument.alias_info is not None and argument.alias_info.is_write)
        ),
        only_written=all(one.alias_info is not None for one in returns), takes_generator="generator" in names,
    )  # fmt: skip
