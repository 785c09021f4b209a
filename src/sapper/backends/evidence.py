"""Evidence against a device: results that are the CPU's to the last bit, where two implementations would differ.

Sums and products depend on the order in which they are added, exp and its like on the polynomial; over hundreds of fp32 values
two independent kernels never agree in all bits, so that agreement says that one kernel computed both. What is rounded exactly
(an addition, a division) or only moved proves nothing, nor do dtypes so short that rounding hides the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

INEXACT = frozenset({
    "_log_softmax", "_softmax", "acos", "acosh", "addbmm", "addmm", "addmv", "asin", "asinh", "atan", "atan2", "atanh", "baddbmm",
    "bmm", "convolution", "convolution_backward", "cos", "cosh", "cumsum", "digamma", "dot", "elu", "erf", "erfc", "erfinv", "exp",
    "exp2", "expm1", "gelu", "gelu_backward", "lgamma", "linear", "log", "log10", "log1p", "log2", "logaddexp", "logsumexp",
    "matmul", "mean", "mish", "mm", "mv", "native_batch_norm", "native_group_norm", "native_layer_norm",
    "native_layer_norm_backward", "norm", "pow", "prod", "sigmoid", "silu", "sin", "sinh", "softplus", "std", "sum", "tan", "tanh",
    "var",
})  # fmt: skip
"""Ops, without overload, of which two implementations differ in fp32."""
ENOUGH = 256
"""Telling values below which agreement may be chance."""
_HIDDEN_BITS = 11
"""Of the 23 bits of a mantissa, the last ones by which two values do not count as different."""


def is_inexact(name: str) -> bool:
    """Whether independent implementations of ``aten::name.overload`` differ in their last bits."""
    return _base(name) in INEXACT


def _base(name: str) -> str:
    return name.removeprefix("aten::").partition(".")[0].rstrip("_")


ORDERED = frozenset({"addbmm", "addmm", "addmv", "baddbmm", "bmm", "dot", "linear", "matmul", "mm", "mv"})
"""Products: of short ones the order of the sum is the same everywhere. Convolutions are products too."""
LONG = 64
"""Terms of a sum from which implementations cut it differently."""
AT_TIMES_EXACT = frozenset({"cumsum", "logaddexp", "mean", "norm", "pow", "prod", "std", "sum", "var"})
"""Inexact ops that are exact for some arguments: squares, sums of two."""


def computed_by_host(
    name: str, tensors: Sequence[torch.Tensor], *, got: Sequence[torch.Tensor], peer: Callable[[], Sequence[torch.Tensor]]
) -> bool:
    """Whether a call gave the CPU's own bits where another implementation would not.

    Args:
        name: ``aten::name.overload``, or ``name``.
        tensors: Of the call.
        got: The device's results.
        peer: Computes the CPU's; asked only where they would say something.
    """
    return betrays(name, tensors) and shares_bits(got, peer(), given=tensors) is True


def betrays(name: str, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether the CPU's own bits in the results of a call would say that the CPU computed it."""
    base = _base(name)
    if base not in INEXACT or base in AT_TIMES_EXACT:
        return False
    if base in ("convolution", "convolution_backward"):
        return _terms_of_convolution(tensors) >= LONG
    if base not in ORDERED:
        return True
    matrices = [one for one in tensors if one.dim() >= 2]
    return len(matrices) >= 2 and matrices[-2].shape[-1] >= LONG


def _terms_of_convolution(tensors: Sequence[torch.Tensor]) -> int:
    """Products that a convolution adds up for an element, as far as shapes tell whether it is transposed; depthwise ones add few."""
    shaped = [one for one in tensors if one.dim() >= 3]
    if len(shaped) < 2 or not shaped[-1].numel():
        return 0
    weight, channels = shaped[-1], shaped[-2].shape[1]
    counts = [weight.numel() // weight.shape[0]] if channels % weight.shape[1] == 0 else []
    counts += [weight.numel() // weight.shape[1]] if channels == weight.shape[0] else []
    return int(min(counts, default=0))


def shares_bits(got: Sequence[torch.Tensor], peer: Sequence[torch.Tensor], *, given: Sequence[torch.Tensor]) -> bool | None:
    """Whether all fp32 values are the CPU's bits; None where too few of them could have differed to say.

    Args:
        got: Results of the device.
        peer: The CPU's, of the same call.
        given: Tensors of the call.
    """
    pairs = [(one, other) for one, other in zip(got, peer, strict=True) if one.dtype == other.dtype == torch.float32]
    pairs = [(one, other) for one, other in pairs if one.shape == other.shape]
    if sum(_telling(other, given) for _, other in pairs) < ENOUGH:
        return None
    return all(bool(torch.equal(one.view(torch.int32), other.view(torch.int32))) for one, other in pairs)


def _telling(values: torch.Tensor, given: Sequence[torch.Tensor]) -> int:
    """How many of the results another implementation might have rounded otherwise: values that differ from one another (``erf`` is 1 for
    all that is large, and ``atan`` all but a constant, which every implementation rounds alike), are normal numbers, and are not what went
    in (the sine of a tiny number is that number)."""
    telling = values.isfinite() & (values.abs() >= torch.finfo(values.dtype).smallest_normal)
    for one in given:
        if one.dtype == values.dtype and one.shape == values.shape:
            telling &= values.abs() != one.abs()
    return int((values[telling].view(torch.int32) >> _HIDDEN_BITS).unique().numel())
