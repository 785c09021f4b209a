"""The chip's memory: tensors of the PrivateUse1 device whose storage lies in memory that the host can reach.

Every tensor is a plain ``torch.Tensor`` with a storage of its own on the device, as with a plugin written in C++: views share
it, ``nn.Parameter``, ``torch.save`` and autograd need to know nothing. The chip's kernels see the same bytes through
:func:`host`. PyTorch's dispatcher is told to use kernels of the CPU for what only describes a tensor (``set_``,
``as_strided``), which are the same for any device.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

HOST = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_DESCRIBE = torch.ops.aten.set_.source_Storage_storage_offset
_VIEW = torch.ops.aten.as_strided.default


class Ledger:
    """How much of the chip's memory is in use, over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used_bytes = 0
        self.peak_bytes = 0
        self.capacity_bytes: int | None = None
        """None: as much as the host has."""
        self.device = ""
        self.index = 0
        """Of the device that the program has made the current one; tensors of all of them lie on the first."""

    def take(self, size_bytes: int) -> None:
        """Book an allocation, or raise what a real device raises where it does not fit."""
        with self.lock:
            if self.capacity_bytes is not None and self.used_bytes + size_bytes > self.capacity_bytes:
                raise torch.OutOfMemoryError(
                    f"{self.device.upper()} out of memory. Tried to allocate {_mib(size_bytes)}. {self.device.upper()} 0 has a total "
                    f"capacity of {_mib(self.capacity_bytes)} of which {_mib(self.capacity_bytes - self.used_bytes)} is free."
                )
            self.used_bytes += size_bytes
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def give(self, size_bytes: int) -> None:
        """Book what was freed."""
        with self.lock:
            self.used_bytes -= size_bytes


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.2f} MiB"


LEDGER = Ledger()


class Allocation:
    """The bytes behind a storage of the device; it lives as long as that storage, which bears it as an attribute."""

    def __init__(self, bytes_: torch.UntypedStorage) -> None:
        self.size_bytes = bytes_.nbytes()
        LEDGER.take(self.size_bytes)
        self.bytes = bytes_

    def resize(self, size_bytes: int) -> None:
        """Book another size. The bytes stay where they are, so that tensors over them hold: what is freed is only not counted.

        Raises:
            NotImplementedError: It would have to grow beyond what it was made with.
        """
        if size_bytes > self.bytes.nbytes():
            raise NotImplementedError(f"{LEDGER.device}: a storage cannot grow from {self.bytes.nbytes()} to {size_bytes} bytes")
        if size_bytes > self.size_bytes:
            LEDGER.take(size_bytes - self.size_bytes)
        else:
            LEDGER.give(self.size_bytes - size_bytes)
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        if hasattr(self, "bytes"):
            LEDGER.give(self.size_bytes)


def on_device(tensor: torch.Tensor) -> bool:
    """Whether a tensor is the chip's."""
    return bool(tensor.device.type == LEDGER.device)


def host(tensor: torch.Tensor) -> torch.Tensor:
    """The same bytes as a tensor of the host, with the same shape, strides and offset."""
    if not on_device(tensor):
        return tensor
    seen = torch.empty(0, dtype=tensor.dtype)
    if tensor.numel() == 0 and not tensor.untyped_storage().nbytes():
        return seen.as_strided(tensor.shape, tensor.stride())
    seen.set_(_bytes_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
    if tensor.is_conj():
        seen = torch.conj(seen)
    return torch._neg_view(seen) if tensor.is_neg() else seen


def _bytes_of(tensor: torch.Tensor) -> torch.UntypedStorage:
    found: torch.UntypedStorage = tensor.untyped_storage()._allocation.bytes
    return found


def lift(tensor: torch.Tensor, near: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """A tensor of the device over the bytes of a host tensor; a view of one of ``near`` where the bytes are its own."""
    if tensor.layout != torch.strided:
        raise NotImplementedError(f"{LEDGER.device}: tensors of layout {tensor.layout} are not supported by the device")
    if tensor._is_zerotensor():
        tensor = torch.zeros_like(tensor)
    start = tensor.untyped_storage().data_ptr()
    for other in near if start else ():
        if on_device(other) and other.untyped_storage().data_ptr() == start:
            if other.dtype == tensor.dtype:
                return _VIEW.redispatch(HOST, other, tensor.shape, tensor.stride(), tensor.storage_offset())
            made = torch._C._acc.create_empty_tensor([0], tensor.dtype)
            _DESCRIBE.redispatch(
                HOST, made, other.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
            )
            return made
    made = torch._C._acc.create_empty_tensor([0], tensor.dtype)
    _describe(made, tensor.resolve_conj().resolve_neg())
    return made


def _describe(made: torch.Tensor, seen: torch.Tensor) -> None:
    made_storage = storage(seen.untyped_storage())
    _DESCRIBE.redispatch(HOST, made, made_storage, seen.storage_offset(), seen.shape, seen.stride())


def storage(bytes_: torch.UntypedStorage) -> Any:
    """A storage of the device over bytes of the host, which it keeps alive."""
    allocation = Allocation(bytes_)
    made = torch._C._construct_storage_from_data_pointer(bytes_.data_ptr(), torch.device(LEDGER.device, 0), bytes_.nbytes())
    made._allocation = allocation
    return made


def follow(tensor: torch.Tensor, seen: torch.Tensor) -> None:
    """Give a device tensor the geometry, and where they moved the bytes, that an op gave to its host view."""
    before = tensor.untyped_storage()
    if before.data_ptr() != seen.untyped_storage().data_ptr() or before.nbytes() != seen.untyped_storage().nbytes():
        _describe(tensor, seen)
    elif (tensor.shape, tensor.stride(), tensor.storage_offset()) != (seen.shape, seen.stride(), seen.storage_offset()):
        _DESCRIBE.redispatch(HOST, tensor, before, seen.storage_offset(), seen.shape, seen.stride())
