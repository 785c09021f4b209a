"""What the vendors' PyTorch plug-ins offer to an import, by module: ``data/plugins/*.toml``.

Names alone, as their public sources have them. The dry run gives them to programs that have branches for the vendor already;
of a name that is not in a file nothing is known.
"""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from sapper import files
from sapper.port.rule import Reference

_DATA = Path(__file__).parent / "data" / "plugins"


class Plugin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The modules of one plug-in."""

    target: str
    device_modules: tuple[str, ...] = ()
    """Modules whose names are those of the device's module: ``torch_npu.npu`` is ``torch.npu``."""
    sources: dict[str, Reference]
    names: dict[str, tuple[str, ...]] = {}
    """Functions and classes by module."""


@functools.cache
def plugins() -> dict[str, Plugin]:
    """All plug-ins by target."""
    return {path.stem: files.decode(Plugin, {"target": path.stem, **files.read_toml(path)}, path) for path in sorted(_DATA.glob("*.toml"))}
