"""Number formats: rounding fp64 values to what a chip's registers hold.

=========  ======== ======== =================================================================
format     exponent mantissa
=========  ======== ======== =================================================================
fp64       11       52       kept as it is
fp32       8        23       IEEE 754
hf32       8        11       Ascend's HF32: fp32 inputs of matrix products with fewer bits
tf32       8        10       NVIDIA's TF32
bf16       8        7
fp16       5        10       IEEE 754
fp8_e4m3   4        3        no infinity; the largest number is 448
fp8_e5m2   5        2
=========  ======== ======== =================================================================
"""

from __future__ import annotations

import torch
from sapper.backends.papertiger.personality import Format

DTYPES = {
    "fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}  # fmt: skip
_DROPPED_BITS = {"tf32": 13, "hf32": 12}
"""Of the 23 mantissa bits of fp32."""
LARGEST_E4M3 = 448.0


def rounded(wide: torch.Tensor, form: Format, *, truncate: bool = False) -> torch.Tensor:
    """fp64 values rounded to nearest-even (or towards zero) in a format, as fp64; complex ones by their parts."""
    if form == "fp64":
        return wide
    if wide.is_complex():
        return torch.view_as_complex(rounded(torch.view_as_real(wide), form, truncate=truncate).contiguous())
    if truncate:
        return _truncated(wide, form)
    if form in _DROPPED_BITS:
        return _short(wide.float(), _DROPPED_BITS[form]).double()
    if form == "fp8_e4m3":
        wide = wide.clamp(-LARGEST_E4M3, LARGEST_E4M3)
    return wide.to(DTYPES[form]).double()


def _short(single: torch.Tensor, dropped: int) -> torch.Tensor:
    """fp32 without its last bits, to nearest, ties to even."""
    bits = single.contiguous().view(torch.int32)
    up = (1 << (dropped - 1)) - 1 + ((bits >> dropped) & 1)
    short = ((bits + up) & ~((1 << dropped) - 1)).view(torch.float32)
    return torch.where(torch.isfinite(single), short, single)


def _truncated(wide: torch.Tensor, form: Format) -> torch.Tensor:
    """The nearest number of the format that is not farther from zero."""
    near = rounded(wide, form)
    mantissa = {"fp32": 23, "hf32": 11, "tf32": 10, "bf16": 7, "fp16": 10, "fp8_e4m3": 3, "fp8_e5m2": 2}[form]
    _, exponent = torch.frexp(near)
    step = torch.ldexp(torch.ones_like(near), exponent - 1 - mantissa)
    inside = rounded(near - torch.sign(near) * step, form)
    return torch.where((near.abs() > wide.abs()) & torch.isfinite(near), inside, near)


def flushed(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Values with the denormals of a dtype replaced by zero."""
    if not dtype.is_floating_point:
        return values
    return torch.where(values.abs() < torch.finfo(dtype).tiny, torch.zeros_like(values), values)


def unsteady(wide: torch.Tensor, ulp: float) -> torch.Tensor:
    """Values moved by up to ``ulp`` units in the last place of fp32, always the same for the same value.

    It stands for the error of polynomial approximations, of which chips document 1 to 4 units; they are computed in fp32 for
    shorter dtypes too. Values that fp32 holds exactly (exp(0), the softmax of one value) stay, as they do on chips.
    """
    if not ulp or wide.dtype != torch.float64:
        return wide
    bits = wide.contiguous().view(torch.int64)
    mixed = ((bits ^ (bits >> 29)) * -7046029254386353131) >> 40
    share = mixed.double() / 2.0**23
    moved = wide * (1 + share * (ulp * torch.finfo(torch.float32).eps / 2))
    return torch.where(wide == wide.float().double(), wide, moved)
