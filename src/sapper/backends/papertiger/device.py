"""Registering the chip as PyTorch's PrivateUse1 device: device module, dispatcher, autocast, storages, saving and loading."""

from __future__ import annotations

import functools
import types
from typing import Any

from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import torch
from sapper.backends.papertiger import autocast, memory, modules
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
    _setup_privateuseone_for_python_backend(name, _module(name))
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(fallback, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for own in OWN:
        func = getattr(torch.ops.aten, own).default
        aten.impl(own, functools.partial(fallback, func), "PrivateUse1")
    for lazily in ("Conjugate", "Negative"):
        # A copy resolves what is only marked as conjugate or negative; else PyTorch would copy first, to resolve it.
        aten.impl("_copy_from", torch.library.fallthrough_kernel, lazily)
    _LIBRARIES.extend([everything, aten, *autocast.register()])
    _adapt_storages(name)
    modules.adapt(name)


def _module(name: str) -> types.ModuleType:
    """``torch.NAME``."""
    module = types.ModuleType(f"torch.{name}", "An emulated accelerator.")
    functions: dict[str, Any] = {
        "is_initialized": lambda: True,
        "init": lambda: None,
        "is_available": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": _Selected,
        "set_device": lambda _device: None,
        "synchronize": lambda _device=None: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda _device=None: f"papertiger ({CHIP.personality.vendor or name})",
        "manual_seed": _manual_seed,
        "manual_seed_all": _manual_seed,
        "seed": lambda: CHIP.generator.seed(),
        "seed_all": lambda: CHIP.generator.seed(),
        "initial_seed": lambda: CHIP.generator.initial_seed(),
        "get_rng_state": lambda _device=None: CHIP.generator.get_state(),
        "set_rng_state": lambda state, _device=None: CHIP.generator.set_state(state),
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
        "is_bf16_supported": lambda: torch.bfloat16 not in CHIP.absent_dtypes,
        "memory_allocated": lambda _device=None: memory.LEDGER.used_bytes,
        "max_memory_allocated": lambda _device=None: memory.LEDGER.peak_bytes,
        "reset_peak_memory_stats": _reset_peak,
        "mem_get_info": _mem_get_info,
    }
    for key, value in functions.items():
        setattr(module, key, value)
    return module


class _Selected:
    """``with torch.NAME.device(0):``; there is one."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _manual_seed(seed: int) -> None:
    CHIP.generator.manual_seed(int(seed))


def _reset_peak(_device: Any = None) -> None:
    memory.LEDGER.peak_bytes = memory.LEDGER.used_bytes


def _mem_get_info(_device: Any = None) -> tuple[int, int]:
    total_bytes = memory.LEDGER.capacity_bytes or 64 * 2**30
    return total_bytes - memory.LEDGER.used_bytes, total_bytes


def _adapt_storages(name: str) -> None:
    """Storages of the device from Python: PyTorch's own constructor asks an allocator in C++, of which there is none."""
    plain_new = torch.UntypedStorage.__new__

    def new(cls: type, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        if device is not None and torch.device(device).type == name:
            return memory.storage(torch.UntypedStorage(*args, **kwargs))
        return plain_new(cls, *args, **kwargs) if device is None else plain_new(cls, *args, device=device, **kwargs)

    torch.UntypedStorage.__new__ = new
    plain_wait = torch.accelerator.synchronize

    @functools.wraps(plain_wait)
    def synchronize(device: Any = None, /) -> None:
        current = torch.accelerator.current_accelerator() if device is None or isinstance(device, int) else torch.device(device)
        if current is None or current.type != name:
            plain_wait(device)

    torch.accelerator.synchronize = synchronize
