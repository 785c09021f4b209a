"""Architectures, one module per group of families.

A module of this folder offers ``FAMILIES``: a mapping from ``model_type`` to a function that reads a
:class:`~sapper.workloads.fields.Fields` and returns a :class:`~sapper.workloads.model.Model`. Other packages offer the
same function through an entry point of the group ``sapper.families`` whose name is the ``model_type``. Nothing else
knows the families.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from sapper.workloads.fields import Fields
from sapper.workloads.model import Model

if TYPE_CHECKING:
    from importlib import metadata

Builder = Callable[[Fields], Model]


@functools.cache
def registry() -> dict[str, Builder]:
    """Every known ``model_type`` and what reads it; ours first, so that no plugin changes them unseen."""
    from importlib import metadata  # 50 ms, and only a load needs it

    found: dict[str, Builder] = {}
    for entry in metadata.entry_points(group="sapper.families"):
        found[entry.name] = _Plugin(entry)
    for module in pkgutil.iter_modules(__path__):
        found.update(importlib.import_module(f"{__name__}.{module.name}").FAMILIES)
    return found


class _Plugin:
    """A family of another package, imported when first used."""

    def __init__(self, entry: metadata.EntryPoint) -> None:
        self._entry = entry

    def __call__(self, fields: Fields) -> Model:
        builder: Builder = self._entry.load()
        return builder(fields)
