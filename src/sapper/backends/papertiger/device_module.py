"""``torch.NAME``: what programs call on a device's module, with the names that vendors' plug-ins and ``torch.cuda`` share."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from sapper.backends.papertiger import memory, streams
from sapper.backends.papertiger.core import CHIP

UNLIMITED_BYTES = 64 * 2**30
"""Memory that a chip without a stated capacity says it has."""


@dataclass(frozen=True)
class Properties:
    """What ``get_device_properties`` tells."""

    name: str
    total_memory: int
    """Bytes."""
    major: int = 0
    minor: int = 0
    multi_processor_count: int = 1


class Selected:
    """``with torch.NAME.device(1):``."""

    def __init__(self, device: Any) -> None:
        self.index = index_of(device)
        self.before = 0

    def __enter__(self) -> None:
        self.before, memory.LEDGER.index = memory.LEDGER.index, self.index

    def __exit__(self, *_: object) -> None:
        memory.LEDGER.index = self.before


class SelectedOf(Selected):
    """``with torch.NAME.device_of(tensor):``, which does nothing for a tensor of the host."""

    def __init__(self, tensor: Any) -> None:
        super().__init__(tensor.device if memory.on_device(tensor) else None)


def index_of(device: Any = None) -> int:
    """The index that a device, a string, a number or None (the current one) means."""
    if device is None or (isinstance(device, int) and device < 0):
        return memory.LEDGER.index
    found = device if isinstance(device, int) else torch.device(device).index
    return memory.LEDGER.index if found is None else int(found)


def make(name: str) -> types.ModuleType:
    """The module, with its submodules ``amp``, ``random`` and ``memory``."""
    module = types.ModuleType(f"torch.{name}", "An emulated accelerator.")
    everything = {**_devices(name), **_randomness(), **_memory(), **_streams(), **_precision()}
    for key, value in everything.items():
        setattr(module, key, value)
    setattr(module, "amp", _submodule(f"torch.{name}.amp", _amp(name)))  # noqa: B010 - a module has no such attribute for mypy
    setattr(module, "random", _submodule(f"torch.{name}.random", _randomness()))  # noqa: B010
    setattr(module, "memory", _submodule(f"torch.{name}.memory", _memory()))  # noqa: B010
    return module


def _submodule(name: str, members: dict[str, Any]) -> types.ModuleType:
    made = types.ModuleType(name, "Part of an emulated accelerator.")
    vars(made).update(members)
    return made


def _devices(name: str) -> dict[str, Any]:
    def device_name(_device: Any = None) -> str:
        return f"papertiger ({CHIP.personality.vendor or name})"

    def properties(device: Any = None) -> Properties:
        return Properties(name=device_name(device), total_memory=_total_bytes())

    return {
        "is_initialized": lambda: True,
        "init": lambda: None,
        "is_available": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: CHIP.personality.devices,
        "current_device": lambda: memory.LEDGER.index,
        "device": Selected,
        "device_of": SelectedOf,
        "set_device": _set_device,
        "synchronize": lambda _device=None: None,
        "get_device_name": device_name,
        "get_device_properties": properties,
        "get_device_capability": lambda _device=None: (0, 0),
        "can_device_access_peer": lambda _device, _peer: True,
        "is_current_stream_capturing": lambda: False,
    }


def _set_device(device: Any) -> None:
    index = index_of(device)
    if index >= CHIP.personality.devices:
        raise RuntimeError(f"{CHIP.device}: invalid device ordinal {index}; there are {CHIP.personality.devices}")
    memory.LEDGER.index = index


def _randomness() -> dict[str, Any]:
    def manual_seed(seed: int) -> None:
        CHIP.generator.manual_seed(int(seed))

    return {
        "manual_seed": manual_seed,
        "manual_seed_all": manual_seed,
        "seed": lambda: CHIP.generator.seed(),
        "seed_all": lambda: CHIP.generator.seed(),
        "initial_seed": lambda: CHIP.generator.initial_seed(),
        "get_rng_state": lambda _device=None: CHIP.generator.get_state(),
        "set_rng_state": lambda state, _device=None: CHIP.generator.set_state(state.cpu()),
        "get_rng_state_all": lambda: [CHIP.generator.get_state()],
        "set_rng_state_all": lambda states: CHIP.generator.set_state(next(iter(states)).cpu()),
    }


def _total_bytes() -> int:
    return memory.LEDGER.capacity_bytes or UNLIMITED_BYTES


def _memory() -> dict[str, Any]:
    def reset_peak(_device: Any = None) -> None:
        memory.LEDGER.peak_bytes = memory.LEDGER.used_bytes

    def used(_device: Any = None) -> int:
        return memory.LEDGER.used_bytes

    def peak(_device: Any = None) -> int:
        return memory.LEDGER.peak_bytes

    def info(_device: Any = None) -> tuple[int, int]:
        return _total_bytes() - memory.LEDGER.used_bytes, _total_bytes()

    def stats(_device: Any = None) -> dict[str, int]:
        now = {"current": used(), "peak": peak()}
        return {f"{kind}_bytes.all.{when}": now[when] for kind in ("allocated", "reserved", "active") for when in now}

    return {
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "memory_allocated": used,
        "memory_reserved": used,
        "max_memory_allocated": peak,
        "max_memory_reserved": peak,
        "memory_stats": stats,
        "memory_summary": lambda _device=None, abbreviated=False: f"{used()} of {_total_bytes()} bytes in use, at most {peak()}",
        "reset_peak_memory_stats": reset_peak,
        "reset_accumulated_memory_stats": lambda _device=None: None,
        "reset_max_memory_allocated": reset_peak,
        "mem_get_info": info,
        "set_per_process_memory_fraction": lambda _fraction, _device=None: None,
    }


def _streams() -> dict[str, Any]:
    return {
        "Stream": streams.Stream,
        "Event": streams.Event,
        "stream": streams.Streamed,
        "StreamContext": streams.Streamed,
        "current_stream": lambda device=None: streams.Stream(device),
        "default_stream": lambda device=None: streams.Stream(device),
        "set_stream": lambda _stream: None,
    }


def _precision() -> dict[str, Any]:
    return {
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
        "is_bf16_supported": lambda *_, **__: torch.bfloat16 not in CHIP.absent_dtypes,
    }


def _amp(name: str) -> dict[str, Any]:
    return {
        "autocast": functools.partial(torch.autocast, name),
        "GradScaler": functools.partial(torch.amp.GradScaler, name),
        "custom_fwd": functools.partial(torch.amp.custom_fwd, device_type=name),
        "custom_bwd": functools.partial(torch.amp.custom_bwd, device_type=name),
    }


def adapt_accelerator(name: str, module: types.ModuleType) -> None:
    """Lead ``torch.accelerator`` to the module where PyTorch asks C++ code that a device written in Python does not have."""
    same = (
        "synchronize", "empty_cache", "memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved", "memory_stats",
        "reset_peak_memory_stats", "reset_accumulated_memory_stats",
    )  # fmt: skip
    own = {one: getattr(module, one) for one in same}
    own["get_memory_info"] = vars(module)["mem_get_info"]
    own["current_device_index"] = own["current_device_idx"] = vars(module)["current_device"]
    own["set_device_index"] = own["set_device_idx"] = _set_device
    own["device_index"] = Selected
    own["get_device_capability"] = lambda _device=None: {"supported_dtypes": set(_dtypes())}
    for key, function in own.items():
        plain = getattr(torch.accelerator, key, None)
        if plain is None:
            continue
        for holder in (torch.accelerator, torch.accelerator.memory):
            if hasattr(holder, key):
                setattr(holder, key, function if isinstance(plain, type) else _led(plain, function, name))


def _dtypes() -> list[torch.dtype]:
    from sapper.backends.papertiger.core import DTYPE_NAMES

    return [dtype for dtype in DTYPE_NAMES.values() if dtype not in CHIP.absent_dtypes]


def _led(plain: Any, own: Any, name: str) -> Any:
    @functools.wraps(plain)
    def led(*arguments: Any, **named: Any) -> Any:
        first = arguments[0] if arguments else None
        other = isinstance(first, (str, torch.device)) and torch.device(first).type != name
        return plain(*arguments, **named) if other else own(*arguments, **named)

    return led
