"""Pointwise ops, casts and constants, with PyTorch's type promotion."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

import torch
from sapper.backends.lax.table import LOWERINGS, lowers

PLAIN = (
    "abs", "sign", "floor", "ceil", "trunc", "round", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos",
    "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "isnan", "isinf", "isfinite", "reciprocal",
    "square",
)  # fmt: skip
"""Called alike in jax.numpy and in ATen."""
RENAMED = {
    "neg": "negative", "conj_physical": "conj", "bitwise_not": "bitwise_not", "logical_not": "logical_not", "maximum": "maximum",
    "minimum": "minimum", "fmax": "fmax", "fmin": "fmin", "atan2": "arctan2", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor", "bitwise_left_shift": "left_shift", "bitwise_right_shift": "right_shift",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor", "eq": "equal", "ne": "not_equal",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "copysign": "copysign", "hypot": "hypot",
    "nextafter": "nextafter", "mul": "multiply", "remainder": "remainder", "fmod": "fmod", "signbit": "signbit",
}  # fmt: skip
"""ATen -> jax.numpy."""
INTEGERS_BECOME_FLOATS = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos",
    "atan", "asinh", "acosh", "atanh", "reciprocal", "erf", "erfc", "erfinv", "sigmoid", "lgamma", "digamma", "div", "atan2",
}  # fmt: skip


def dtype_of(dtype: torch.dtype) -> Any:
    """JAX's dtype."""
    import jax.numpy as jnp

    return jnp.dtype(str(dtype).removeprefix("torch."))


def promoted(name: str, function: Callable[..., Any]) -> None:
    """Enters a pointwise function whose tensors and numbers are brought to one dtype first, as PyTorch does."""
    kind = KIND.INT_TO_FLOAT if name in INTEGERS_BECOME_FLOATS else KIND.DEFAULT

    def with_meta(node: torch.fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        import jax.numpy as jnp

        metas = [one.meta["val"] if isinstance(one, torch.fx.Node) else one for one in node.args]
        numeric = [one for one in metas if isinstance(one, (torch.Tensor, int, float, complex)) and one is not None]
        dtype = dtype_of(elementwise_dtypes(*numeric, type_promotion_kind=kind)[1])
        cast = [
            jnp.asarray(one).astype(dtype) if isinstance(meta, (torch.Tensor, int, float, complex)) else one
            for one, meta in zip(args, metas, strict=True)
        ]
        return function(*cast, **kwargs)

    entry = types.SimpleNamespace(with_meta=with_meta)
    LOWERINGS[f"aten.{name}"] = entry  # type: ignore[assignment]


def _jnp(name: str) -> Callable[..., Any]:
    def function(*arrays: Any, **others: Any) -> Any:
        import jax.numpy as jnp

        return getattr(jnp, name)(*arrays, **others)

    return function


def _special(name: str) -> Callable[..., Any]:
    def function(array: Any) -> Any:
        import jax

        return getattr(jax.scipy.special, name)(array)

    return function


def _alpha(sign: int) -> Callable[..., Any]:
    def function(x: Any, y: Any, *, alpha: Any = 1) -> Any:
        return x + sign * y if alpha == 1 else x + (sign * alpha) * y

    return function


def _divide(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    import jax.numpy as jnp

    if rounding_mode is None:
        return x / y
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.where((x < 0) == (y < 0), abs(x) // abs(y), -(abs(x) // abs(y)))
    return jnp.trunc(x / y)


def _enter() -> None:
    for name in PLAIN:
        promoted(name, _jnp(name))
    for name, other in RENAMED.items():
        promoted(name, _jnp(other))
    for name, other in {"erf": "erf", "erfc": "erfc", "erfinv": "erfinv", "lgamma": "gammaln", "digamma": "digamma"}.items():
        promoted(name, _special(other))
    promoted("add", _alpha(1))
    promoted("sub", _alpha(-1))
    promoted("div", _divide)


_enter()


def _rsqrt(x: Any) -> Any:
    import jax

    return jax.lax.rsqrt(x)


def _sigmoid(x: Any) -> Any:
    import jax

    return jax.nn.sigmoid(x)


def _relu(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.maximum(x, 0)


promoted("rsqrt", _rsqrt)
promoted("sigmoid", _sigmoid)
promoted("relu", _relu)
promoted("pow", _jnp("power"))


@lowers("aten.div.Tensor_mode")
def _div_mode(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    import jax.numpy as jnp

    x, y = jnp.asarray(x), jnp.asarray(y)
    common = jnp.promote_types(x.dtype, y.dtype)
    return _divide(x.astype(common), y.astype(common), rounding_mode=rounding_mode)


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf")
def _where(condition: Any, x: Any, y: Any) -> Any:
    import jax.numpy as jnp

    return jnp.where(condition, x, y)


@lowers("aten.clamp", "aten.clamp.Tensor")
def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    import jax.numpy as jnp

    if low is not None:
        x = jnp.maximum(x, jnp.asarray(low).astype(jnp.result_type(x, low)))
    return x if high is None else jnp.minimum(x, jnp.asarray(high).astype(jnp.result_type(x, high)))


LOWERINGS["aten.clamp_min"] = lambda x, low: _clamp(x, low)
LOWERINGS["aten.clamp_max"] = lambda x, high: _clamp(x, None, high)


@lowers(
    "aten.clone", "aten._to_copy", "aten.alias", "aten.detach", "aten.lift_fresh_copy", "aten.contiguous",
    "prims.convert_element_type", "prims.device_put",
)  # fmt: skip
def _same(x: Any, *others: Any, **kwargs: Any) -> Any:
    return x  # the caller casts to the dtype that the graph says


@lowers("aten.copy")
def _copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    import jax.numpy as jnp

    return jnp.broadcast_to(source, x.shape)


@lowers("aten._assert_tensor_metadata", "aten._assert_async", "aten._assert_scalar", "aten.sym_constrain_range_for_size")
def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _filled(node: torch.fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    import jax.numpy as jnp

    meta = node.meta["val"]
    name = str(node.target)
    value = 1 if ".ones" in name else 0
    if ".full" in name:
        value = args[1]
    elif ".scalar_tensor" in name:
        value = args[0]
    elif ".fill" in name:
        value = args[1]
    return jnp.full(tuple(meta.shape), value, dtype_of(meta.dtype))


_FILLED = (
    "full", "full_like", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like", "ones",
    "ones_like", "scalar_tensor", "fill", "new_zeros",
)  # fmt: skip
for _op in _FILLED:
    LOWERINGS[f"aten.{_op}"] = types.SimpleNamespace(with_meta=_filled)  # type: ignore[assignment]


@lowers("aten.arange.start_step")
def _arange(start: Any, end: Any, step: Any = 1, **others: Any) -> Any:
    import jax.numpy as jnp

    count = max(0, -((start - end) // step))
    return start + jnp.arange(int(count)) * step


@lowers("prims.iota")
def _iota(length: int, *, start: int, step: int, **others: Any) -> Any:
    import jax.numpy as jnp

    return start + jnp.arange(length) * step


@lowers("aten.complex")
def _complex(real: Any, imaginary: Any) -> Any:
    import jax

    return jax.lax.complex(real, imaginary)
