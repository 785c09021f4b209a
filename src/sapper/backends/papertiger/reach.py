"""Which ops reach the chip: PyTorch computes the others of these before a device is asked."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import torch
from sapper.errors import BadFile

_TAKEN_APART = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
"""Keys under which PyTorch has kernels of other ops; they come before the fallback that the chip is."""


@functools.cache
def called(name: str) -> tuple[str, ...]:
    """Names that a pattern may mean an op by: with and without overload, ``_`` in place, and the suffix that it has for plug-ins."""
    base = name.partition(".")[0]
    return tuple(dict.fromkeys((name, base, base if base.endswith("__") else base.removesuffix("_"), base.removesuffix("_overrideable"))))


def meant(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the patterns means an op."""
    return any(fnmatchcase(one, pattern) for pattern in patterns for one in called(name))


def unreached(patterns: Iterable[str], own: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Patterns that no op fits which reaches the chip, each with whether there is such an op at all.

    Args:
        patterns: Of PyTorch's own ops; those of other libraries, which may be loaded later, are passed over.
        own: ATen ops that the chip has registered by name.
    """
    for pattern in patterns:
        if pattern.startswith("aten::"):
            fitting = [name for name in _ops() if meant((pattern,), name)]
            if not any(name.removeprefix("aten::") in own or not _taken_apart(name) for name in fitting):
                yield pattern, bool(fitting)


def check(faults: Iterable[tuple[str, tuple[str, ...]]], own: Iterable[str], path: str) -> None:
    """Refuse a fault that can never fire, since none of its patterns fits an op that reaches the chip.

    Args:
        faults: Of each its key in the personality and its patterns.
        own: ATen ops that the chip has registered by name.
        path: Of the personality.

    Raises:
        BadFile: A fault of this kind, and why.
    """
    own = frozenset(own)
    for field, patterns in faults:
        dead = list(unreached(patterns, own))
        if patterns and len(dead) == len(patterns):
            pattern, known = dead[0]
            raise BadFile("SP-TIGER-006" if known else "SP-TIGER-004", where=path, field=field, value=pattern)


def check_absent(patterns: Iterable[str], own: Iterable[str], *, path: str) -> None:
    """Refuse an op that the chip is to lack and is never asked for: everything would run as if nothing were absent.

    Args:
        patterns: Of ops.
        own: ATen ops that the chip has registered by name.
        path: Of the personality.

    Raises:
        BadFile: The first pattern of this kind, and why.
    """
    for pattern, known in unreached(patterns, frozenset(own)):
        raise BadFile("SP-TIGER-007" if known else "SP-TIGER-004", where=path, field="absent.ops", value=pattern)


@functools.cache
def _ops() -> tuple[str, ...]:
    return tuple(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::"))


@functools.cache
def _taken_apart(name: str) -> bool:
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in _TAKEN_APART)
