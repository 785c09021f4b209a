"""What PyTorch does on the host for a device and leaves to C++ code of its plug-in: generators, events, pinned memory, storages that
change their size, printing."""

from __future__ import annotations

import functools
from typing import Any

import torch
from sapper.backends.papertiger.core import CHIP
from sapper.backends.papertiger.streams import Event, StandIn


class Generator(torch.Generator, metaclass=StandIn):
    """``torch.Generator(device=...)``: one of the host's, which the chip draws from, that bears the chip's name."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        """A generator of the host, or of the chip."""
        wanted = torch.device(device)
        made: Generator = super().__new__(cls, "cpu" if wanted.type == CHIP.device else wanted)
        made.own = wanted if wanted.type == CHIP.device else None
        return made

    own: torch.device | None = None

    @property
    def device(self) -> Any:
        """The device that it was made for."""
        return super().device if self.own is None else torch.device(CHIP.device, self.own.index or 0)


def adapt() -> None:
    """Teach PyTorch all of it."""
    torch.Generator, torch.Event = Generator, Event
    plain_pin, plain_pinned = torch.Tensor.pin_memory, torch.Tensor.is_pinned

    @functools.wraps(plain_pin)
    def pin_memory(self: torch.Tensor, device: Any = None) -> torch.Tensor:
        if self.device.type != "cpu":
            raise RuntimeError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned")
        if not CHIP.pins() or self.is_pinned():
            return self
        made = self.clone(memory_format=torch.preserve_format)
        made._is_pinned_for = CHIP.device
        return made

    @functools.wraps(plain_pinned)
    def is_pinned(self: torch.Tensor, device: Any = None) -> bool:
        return self.device.type == "cpu" and hasattr(self, "_is_pinned_for")

    torch.Tensor.pin_memory, torch.Tensor.is_pinned = pin_memory, is_pinned
    _adapt_storages()
    _adapt_printing()


def _adapt_storages() -> None:
    """Storages of the chip that are freed and taken again under a tensor, as sharded training does with gathered parameters."""
    plain_resize, plain_size = torch.UntypedStorage.resize_, torch.UntypedStorage.nbytes

    @functools.wraps(plain_resize)
    def resize(self: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
        allocation = getattr(self, "_allocation", None)
        if allocation is None:
            return plain_resize(self, size)
        allocation.resize(size)
        return self

    @functools.wraps(plain_size)
    def nbytes(self: torch.UntypedStorage) -> int:
        allocation = getattr(self, "_allocation", None)
        return plain_size(self) if allocation is None else int(allocation.size_bytes)

    torch.UntypedStorage.resize_, torch.UntypedStorage.nbytes = resize, nbytes
    torch.UntypedStorage.size = nbytes


def _adapt_printing() -> None:
    """Print the host's copy, as PyTorch does for devices that cannot compute what printing needs."""
    plain = torch._tensor_str._tensor_str

    @functools.wraps(plain)
    def printed(self: torch.Tensor, indent: int) -> str:
        return str(plain(self.cpu() if self.device.type == CHIP.device else self, indent))

    torch._tensor_str._tensor_str = printed
