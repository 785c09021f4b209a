"""Classes that are CUDA's way to do what an interface of the project asks of every device: ``class CUDAAccelerator(Accelerator)``.

Known by their names: a base whose name is the class's own without the word for CUDA. Another chip gets a class of its own
beside it, and this one stays.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sapper.port.python.module import Module

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VENDOR = frozenset(("cuda", "nvidia"))
_KIND = frozenset(("base", "abstract", "interface", "abc", "mixin", "impl", "i"))
"""Parts of a name that say what kind of class it is, and not of what."""


def classes(module: Module) -> list[ast.ClassDef]:
    """The classes of a file that implement an interface for CUDA."""
    return [node for _span, node in module.classes if any(_implements(node.name, base) for base in node.bases)]


def _implements(name: str, base: ast.expr) -> bool:
    parts = _parts(name)
    own = [part for part in parts if part not in _VENDOR and part not in _KIND]
    last = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
    above = [part for part in _parts(last) if part not in _KIND]
    return bool(own) and not _VENDOR.isdisjoint(parts) and _VENDOR.isdisjoint(above) and above[-len(own) :] == own


def _parts(name: str) -> list[str]:
    return [part.lower() for part in _PART.findall(name)]
