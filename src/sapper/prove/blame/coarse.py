"""Products whose fp32 operands are read in a format with fewer bits, as matrix units do where a stack lets them.

That is a choice of the stack and no fault of a kernel: the same kernel is right in the precision that it was told to compute in. It is
known from a wrong kernel by computing the products from operands that are rounded so: the answer must be right by the rule then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends.computation import Computation
from sapper.prove.traits import plain_name

Rounding = Literal["even", "away", "cut"]


class Form(NamedTuple):
    """A format in which operands of fp32 are read."""

    name: str
    bits: int
    """Of the significand, the hidden one included."""
    rounding: Rounding
    """What becomes of what does not fit."""


FORMS = tuple(Form(name, bits, rounding) for name, bits in (("TF32", 11), ("HF32", 12)) for rounding in get_args(Rounding))
"""Formats that vendors document as modes of fp32 products: NVIDIA's TF32 (10 bits are stored) and Ascend's HF32 (11).

Each rounded to nearest with halves to even, with halves away from zero (``cvt.rna.tf32.f32`` of NVIDIA's PTX), or cut off.
"""
FACTORS: Mapping[str, Sequence[int]] = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2), "linear": (0, 1),
    "convolution": (0, 1), "convolution_backward": (0, 1, 2),
}  # fmt: skip
"""Op -> its arguments that are multiplied with each other."""


def readings(computation: Computation) -> Iterator[tuple[Form, Computation]]:
    """The computation with the operands of its products read in each of the formats.

    The gradient of a convolution's bias is a sum, of which nothing is multiplied; a kernel that makes all gradients of what it has read
    once reads that coarsely too. Where there is one, both come, the second once the first has run. Nothing comes of a program in fp64,
    which no such mode is for, and nothing more once the first has shown that it has no products.
    """
    dtypes = {one.dtype for one in computation.tensors}
    if not dtypes & {torch.float32, torch.complex64} or dtypes & {torch.float64, torch.complex128}:
        return
    for form in FORMS:
        for sums_too in (False, True):
            read = _Read(computation, form, sums_too=sums_too)
            yield form, dataclasses.replace(computation, fn=read, differentiated=None)
            if not read.met_products:
                return
            if not read.met_sums:
                break


class _Read:
    def __init__(self, computation: Computation, form: Form, *, sums_too: bool) -> None:
        self._fn, self._form, self._sums_too = computation.fn, form, sums_too
        self.met_sums = self.met_products = False

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with _Reading(self._form, sums_too=self._sums_too) as reading:
            found = tuple(self._fn(*tensors))
        self.met_sums |= reading.met_sums
        self.met_products |= reading.met_products
        return found


class _Reading(TorchDispatchMode):
    def __init__(self, form: Form, *, sums_too: bool) -> None:
        super().__init__()
        self._form, self._sums_too = form, sums_too
        self.met_sums = self.met_products = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = plain_name(func.name()), kwargs or {}
        factors = FACTORS.get(name, ())
        self.met_products |= name in FACTORS
        read = [as_read(one, self._form) if at in factors else one for at, one in enumerate(args)]
        found = func(*read, **kwargs)
        if name != "convolution_backward" or found[2] is None:
            return found
        self.met_sums = True
        return found if self._sums_too else (*found[:2], func(*args, **kwargs)[2])


def as_read(values: torch.Tensor, form: Form) -> torch.Tensor:
    """The numbers of a format that stand for these."""
    if values.is_complex():
        return torch.view_as_complex(as_read(torch.view_as_real(values.resolve_conj()), form))
    if not values.is_floating_point():
        return values
    share, exponent = torch.frexp(values)
    share = share * 2.0**form.bits
    match form.rounding:
        case "even":
            share = share.round()
        case "away":
            share = torch.copysign((share.abs() + 0.5).floor(), share)
        case "cut":
            share = share.trunc()
    return torch.ldexp(share * 2.0**-form.bits, exponent)
