"""Linear sketches: how far two tensors of any size lie apart, from a few numbers of each.

A sketch is the tensor multiplied by a fixed random matrix of +1 and -1 with one entry in each column. It is linear, so the
sketch of a difference is the difference of the sketches, and E|Sx|^2 = |x|^2 (Charikar, Chen, Farach-Colton, "Finding frequent
items in data streams", 2002; Alon, Matias, Szegedy, 1996). The standard deviation of |Sx|^2 is at most sqrt(2 / WIDTH)
of it. So two runs need not share a process, nor a machine, and a gradient that differs in one element alone is seen exactly.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

import torch

WIDTH = 64
"""Numbers in a sketch; distances are right to about 9% (half of sqrt(2 / 64)), exact for tensors of at most so many elements."""


class Sketcher:
    """Sketches by name: each name has signs of its own, the same in every process."""

    def __init__(self) -> None:
        self._signs: dict[tuple[str, int], torch.Tensor] = {}

    def __call__(self, name: str, tensor: torch.Tensor) -> NDArray[np.float64]:
        """The sketch of ``tensor`` (any dtype, device CPU): :data:`WIDTH` numbers."""
        flat = wide(tensor)
        rows = -(-flat.numel() // WIDTH) if flat.numel() else 1
        padded = torch.zeros(rows * WIDTH, dtype=torch.float64)
        padded[: flat.numel()] = flat
        folded = (padded.view(rows, WIDTH) * self._sign(name, rows)).sum(0)
        return np.array(folded.numpy(), dtype=np.float64)

    def _sign(self, name: str, rows: int) -> torch.Tensor:
        key = name, rows
        if key not in self._signs:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            self._signs[key] = torch.randint(0, 2, (rows, WIDTH), generator=generator, dtype=torch.int8) * 2 - 1
        return self._signs[key]


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Its elements in a row, in fp64, on the CPU; complex ones as pairs, sparse ones with their zeros."""
    dense = tensor.detach().cpu()
    if dense.layout != torch.strided:
        dense = dense.to_dense()
    if dense.is_complex():
        dense = torch.view_as_real(dense)
    return dense.to(torch.float64).reshape(-1)
