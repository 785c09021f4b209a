"""The packages that running a program needs and the base install lacks."""

from __future__ import annotations

import importlib.util

from sapper.errors import BadValue


def need(package: str, *, where: str) -> None:
    """Refuse, with what to install, where ``package`` is missing.

    Args:
        package: Name to import.
        where: The command that needs it.

    Raises:
        BadValue: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise BadValue("SP-PROG-001", where=where, package=package)


def need_for(target: str, *, where: str) -> None:
    """What a target needs: PyTorch, and Transformers where it is no builder.

    Raises:
        BadValue: One is not installed.
    """
    need("torch", where=where)
    if ".py" not in target:
        need("transformers", where=where)
