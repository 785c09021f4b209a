"""What the schema of an op says, read once per op: PyTorch makes new Python objects of all arguments at each look."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Arguments and results of one op."""

    names: tuple[str, ...]
    """Of the arguments, in order."""
    written: tuple[str, ...]
    """Arguments that the op changes, in order."""
    defaults: Mapping[str, Any]
    """Of the arguments that have one."""
    returns_written: tuple[bool, ...]
    """For each result, whether it is an argument that the op changed."""
    takes_objects: bool
    """Whether an argument is an object of the program."""

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments by name."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}


@functools.cache
def signature(func: Any) -> Signature:
    """Of an ``OpOverload``."""
    schema = func._schema
    arguments = list(schema.arguments)
    return Signature(
        names=tuple(one.name for one in arguments),
        written=tuple(one.name for one in arguments if _is_written(one)),
        defaults={one.name: one.default_value for one in arguments if one.has_default_value()},
        returns_written=tuple(_is_written(one) for one in schema.returns),
        takes_objects="__torch__" in str(schema),
    )


def _is_written(one: Any) -> bool:
    return one.alias_info is not None and bool(one.alias_info.is_write)
