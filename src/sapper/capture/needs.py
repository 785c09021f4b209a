"""The packages that capture needs and the base install lacks."""

from __future__ import annotations

import importlib.util

from sapper.errors import BadValue


def need(package: str) -> None:
    """Refuse, with what to install, where ``package`` is missing.

    Raises:
        BadValue: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise BadValue("SP-CAP-001", where="sapper capture", package=package)
