"""Registering the chip as PyTorch's PrivateUse1 device: device module, dispatcher, autocast, storages, saving and loading."""

from __future__ import annotations

import functools
from typing import Any

from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import torch
from sapper.backends.papertiger import autocast, device_module, host_side, memory, modules, pending
from sapper.backends.papertiger.core import CHIP
from sapper.backends.papertiger.dispatch import fallback
from sapper.backends.papertiger.personality import Personality
from sapper.errors import BadValue

_LIBRARIES: list[Any] = []
"""A registration lasts as long as its library object."""


OWN = (
    "convolution_overrideable", "convolution_backward_overrideable", "native_layer_norm", "native_group_norm", "logsumexp", "embedding",
    "binary_cross_entropy_with_logits",
)  # fmt: skip
"""Ops that PyTorch would refuse, or take apart into others, on a device without kernels of their own for them."""

BELOW_MODES = ("_copy_from", "empty.memory_format", "empty_strided")
"""Ops by which ``torch.tensor`` and indexing by a list move data to the device: while a dispatch mode is in force (a counter of
FLOPs, selective checkpointing) PyTorch passes it by there, and then finds kernels that are registered by name, no fallback."""

LAUNCHED_BY_NAME = (*OWN, "copy_")
"""Ops that reach the chip although PyTorch could compute them of others; copies arrive as ``_copy_from``."""


def install(wanted: Personality) -> str:
    """Plug the chip in, or give the one that is plugged in another personality; returns the device's name.

    Raises:
        BadValue: The process has a PrivateUse1 device of another name already, ours or a plug-in's.
    """
    present = CHIP.device or torch._C._get_privateuse1_backend_name()
    if present not in ("privateuseone", wanted.device) or (present == wanted.device and not CHIP.device):
        raise BadValue("SP-TIGER-005", where="--on", present=present, wanted=wanted.device)
    if not CHIP.device:
        _register(wanted.device)
    CHIP.take_on(wanted)
    return CHIP.device


def _register(name: str) -> None:
    CHIP.device = memory.LEDGER.device = name
    module = device_module.make(name)
    _setup_privateuseone_for_python_backend(name, module, device_guard=pending.DeviceGuard())
    pending.adapt_engine()
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(fallback, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for own in (*OWN, *BELOW_MODES):
        packet, _, overload = own.partition(".")
        aten.impl(own, functools.partial(fallback, getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1")
    for lazily in ("Conjugate", "Negative"):
        # A copy resolves what is only marked as conjugate or negative; else PyTorch would copy first, to resolve it.
        aten.impl("_copy_from", torch.library.fallthrough_kernel, lazily)
    _LIBRARIES.extend([everything, aten, *autocast.register()])
    _adapt_storages(name)
    modules.adapt(name)
    device_module.adapt_accelerator(name, module)
    host_side.adapt()


def _adapt_storages(name: str) -> None:
    """Storages of the device from Python: PyTorch's own constructor asks an allocator in C++, of which there is none."""
    plain_new = torch.UntypedStorage.__new__

    def new(cls: type, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        if device is not None and torch.device(device).type == name:
            return memory.storage(torch.UntypedStorage(*args, **kwargs))
        return plain_new(cls, *args, **kwargs) if device is None else plain_new(cls, *args, device=device, **kwargs)

    torch.UntypedStorage.__new__ = new
