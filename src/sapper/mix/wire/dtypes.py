"""What a number becomes on the wire: fp64, fp32, bf16 or fp16, by NumPy alone.

Rounding is to the nearest, ties to even (IEEE 754-2019, section 4.3.1), in each direction of narrowing. bf16 is the upper half
of an fp32 (https://arxiv.org/abs/1905.12322, section 3); an fp64 goes to bf16 by way of fp32, which rounds twice. What is too
large becomes infinite, a NaN stays one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BITS: dict[str, np.dtype[Any]] = {
    "fp64": np.dtype("<f8"),
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
"""How the elements of each dtype lie in a message; bf16, which NumPy has not, as its bits."""

_NAME_OF = {(bits.kind, bits.itemsize): name for name, bits in BITS.items() if name != "bf16"}
_QUIET = np.uint16(0x0040)
"""The bit that keeps the upper half of a NaN a NaN."""


def name_of(array: Array) -> str:
    """The wire's name of the dtype of ``array``.

    Raises:
        TypeError: A dtype that the wire does not carry: a bug of the caller's.
    """
    name = _NAME_OF.get((array.dtype.kind, array.dtype.itemsize))
    if name is None:
        raise TypeError(f"the wire carries no {array.dtype}")
    return name


def narrow(array: Array, wire: str) -> Array:
    """``array`` of floating point as the bits of ``wire``; ``array`` itself where that is what it holds."""
    if wire == "bf16":
        return _to_bf16(array)
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return np.asarray(array, dtype=BITS[wire], order="C")


def widen(bits: Array, wire: str) -> Array:
    """What :func:`narrow` made, as fp32 or, from fp64, as fp64. Exact."""
    if wire == "bf16":
        wide = bits.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    return bits if wire in {"fp64", "fp32"} else bits.astype(np.float32)


def round_to(array: Array, wire: str) -> Array:
    """``array`` as a receiver of ``wire`` sees it, in the dtype of ``array``."""
    return widen(narrow(array, wire), wire).astype(array.dtype, copy=False)


def _to_bf16(array: Array) -> Array:
    with np.errstate(over="ignore"):
        single = np.asarray(array, dtype=np.float32, order="C")
    bits = single.view(np.uint32)
    rounded = bits >> np.uint32(16)  # in place from here on: these arrays are long
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    half = rounded.astype(np.uint16)
    if single.size and np.isnan(single.max()):  # the maximum of an array that holds a NaN is one
        nan = np.isnan(single)
        half[nan] = (bits[nan] >> np.uint32(16)).astype(np.uint16) | _QUIET
    return half
