"""Tensors of PyTorch and arrays of NumPy, with the dtypes that NumPy has from ``ml_dtypes``."""

from __future__ import annotations

from typing import Any

EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Dtypes that NumPy lacks, by the name that PyTorch and ml_dtypes give them."""


def array_of(tensor: Any) -> Any:
    """A NumPy array of the tensor's values, contiguous."""
    import torch

    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    if name not in EXTENDED:
        return plain.numpy()
    import ml_dtypes

    bits = torch.uint8 if plain.dtype.itemsize == 1 else torch.int16
    return plain.view(bits).numpy().view(getattr(ml_dtypes, name))


def tensor_of(array: Any) -> Any:
    """A tensor of its own with the array's values."""
    import numpy as np

    import torch

    plain = np.array(array, copy=True, order="C")
    if plain.dtype.name in EXTENDED:
        bits = np.uint8 if plain.dtype.itemsize == 1 else np.int16
        return torch.from_numpy(plain.view(bits)).view(getattr(torch, plain.dtype.name))
    return torch.from_numpy(plain)
