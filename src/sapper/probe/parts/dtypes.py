"""Dtypes by the names of the catalogue, and how a matrix product runs in each."""

from __future__ import annotations

from typing import Any, Callable

from sapper.probe.parts.device import Device
from sapper.probe.parts.talk import Unsupported

NAMES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8", "fp8": "float8_e4m3fn"}
SIZE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}

_TF32_SWITCH = {"cuda": "cuda.matmul", "musa": "mudnn", "mlu": "mlu.matmul"}
"""Device -> the part of torch.backends that holds ``allow_tf32`` for matrix products."""


def torch_dtype(torch: Any, dtype: str) -> Any:
    """PyTorch's dtype.

    Raises:
        Unsupported: This PyTorch has none.
    """
    found = getattr(torch, NAMES[dtype], None)
    if found is None:
        raise Unsupported(f"this PyTorch has no {NAMES[dtype]}")
    return found


def set_tf32(device: Device, on: bool) -> None:
    """Allow or forbid TF32 in products of fp32.

    Raises:
        Unsupported: It is wanted, and the device has no such switch.
    """
    switch: Any = device.torch.backends
    for name in _TF32_SWITCH.get(device.name, "none").split("."):
        switch = getattr(switch, name, None)
    if hasattr(switch, "allow_tf32"):
        switch.allow_tf32 = on
    elif on:
        raise Unsupported(f"no switch for TF32 on {device.name}")


def product(device: Device, dtype: str, *, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """A call that multiplies an m x k by an n x k transposed, as a linear layer does; ``shape`` is (m, n, k)."""
    m, n, k = shape
    torch, kind = device.torch, torch_dtype(device.torch, dtype)
    if dtype == "int8":
        left = torch.randint(-8, 8, (m, k), dtype=torch.int8).to(device.place)
        right = torch.randint(-8, 8, (n, k), dtype=torch.int8).to(device.place).t()
        multiply = torch._int_mm
        return lambda: multiply(left, right)
    left, right = (torch.empty(size, k, device=device.place).normal_() for size in (m, n))
    if dtype == "fp8":
        return _fp8_product(device, left.to(kind), right.to(kind).t())
    set_tf32(device, dtype == "tf32")
    left, right = left.to(kind), right.to(kind).t()
    return lambda: torch.matmul(left, right)


def _fp8_product(device: Device, left: Any, right: Any) -> Callable[[], Any]:
    torch = device.torch
    one = torch.ones((), device=device.place)
    keywords: dict[str, Any] = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16}
    multiply = torch._scaled_mm
    return lambda: multiply(left, right, **keywords)
