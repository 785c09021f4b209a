"""Where backends come from: files of ``backends/stacks/``, the user's own folder, and entry points of installed packages."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sapper.backends.base import Backend
from sapper.backends.devices import device_types
from sapper.errors import BadFile, UnknownName

GROUP = "sapper.backends"
"""Entry points of this group name a function ``open(detail: str | None) -> Backend``."""
FOLDER_VARIABLE = "SAPPER_BACKENDS"
"""Folders with the user's own backend files, as in PATH."""


def names() -> list[str]:
    """Names of all backends that are there, without importing one."""
    return sorted(_sources())


def find(spec: str) -> Backend:
    """The backend that ``NAME`` or ``NAME:DETAIL`` names.

    Raises:
        UnknownName: There is none.
        BadFile: The user's own file raises when it is imported.
        BadValue: The detail means nothing to it.
    """
    name, _, detail = spec.partition(":")
    sources = _sources()
    if name not in sources:
        import difflib

        near = ", ".join(difflib.get_close_matches(name, sources)) or "-"
        raise UnknownName("SP-BACK-001", where="--on", name=name, near=near, known=", ".join(sorted(sources)))
    return sources[name]()(detail or None)


def _sources() -> dict[str, Callable[[], Callable[[str | None], Backend]]]:
    """Name -> what imports its ``open`` function; own files before entry points before ours before devices."""
    found: dict[str, Callable[[], Any]] = {name: functools.partial(_device, name) for name in device_types()}
    for path in sorted((Path(__file__).parent / "stacks").glob("*.py")):
        if not path.stem.startswith("_"):
            found[path.stem.replace("_", "-")] = functools.partial(_ours, path.stem)
    for entry in entry_points(group=GROUP):
        found[entry.name] = entry.load
    for folder in filter(None, os.environ.get(FOLDER_VARIABLE, "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("*.py")):
            if not path.stem.startswith("_"):
                found[path.stem.replace("_", "-")] = functools.partial(_own, path)
    return found


def _device(name: str) -> Any:
    """A device of PyTorch under its own name: ``npu:1`` for ``torch:npu:1``."""
    from sapper.backends.stacks.torch import open as open_device

    return lambda detail: open_device(f"{name}:{detail}" if detail else name, name=f"{name}:{detail}" if detail else name)


def _ours(stem: str) -> Any:
    return importlib.import_module(f"sapper.backends.stacks.{stem}").open


def _own(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_sapper_backend_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return module.open
    except Exception as error:
        problem = (str(error).splitlines() or ["-"])[0][:300]
        raise BadFile("SP-BACK-002", where=str(path), kind=type(error).__name__, problem=problem) from error
