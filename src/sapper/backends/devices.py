"""Device types that PyTorch knows or learns from a vendor's plug-in: ``data/devices.toml``. Needs no PyTorch."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import msgspec

from sapper.files import decode, read_toml

AUTOLOAD_VARIABLE = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""With ``0`` PyTorch does not import plug-ins when it is imported; one that lacks its driver would break it."""


class DeviceType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device type."""

    modules: tuple[str, ...]
    """Packages that bring it, tried in order; none: PyTorch has it, where it was built for it."""
    vendors: tuple[str, ...] = ()
    install: str | None = None
    """Command that installs the package, where a public one does."""
    source: str


@functools.cache
def device_types() -> dict[str, DeviceType]:
    """All that the table names."""
    path = Path(__file__).parent / "data" / "devices.toml"
    return decode(dict[str, DeviceType], read_toml(path), path)


def installed(module: str) -> bool:
    """Whether a module can be found, without importing more than the packages above it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
