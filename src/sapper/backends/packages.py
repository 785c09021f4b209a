"""What a stack needs installed: found from the metadata of distributions, without importing what could end the process."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from sapper import messages
from sapper.backends.base import Missing
from sapper.errors import BadValue


def missing_packages(pinned: Iterable[str]) -> Missing | None:
    """The first distribution of ``pinned`` (``name==version`` or ``name``) that is not installed, with one command for all.

    Another version than the pinned one is not missing: it is shown beside the results that were reached with it.
    """
    wanted = tuple(pinned)
    for one in wanted:
        name = one.partition("==")[0]
        if version_of(name) is None:
            return Missing(problem=messages.text("doctor.missing.package", package=name), remedy=f"pip install {' '.join(wanted)}")
    return None


def version_of(name: str) -> str | None:
    """Version of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def installed(pinned: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``pinned`` that are installed."""
    names = [one.partition("==")[0] for one in pinned]
    return {name: version for name in names if (version := version_of(name)) is not None}


def options_of(detail: str | None, *, known: Iterable[str], backend: str) -> frozenset[str]:
    """The words of a detail such as ``noopt+bf16``.

    Raises:
        BadValue: A word that the backend does not know.
    """
    words = frozenset(filter(None, (detail or "").split("+")))
    unknown = sorted(words - set(known))
    if unknown:
        raise BadValue("SP-BACK-003", where=f"{backend}:{detail}", value=unknown[0], known=", ".join(sorted(known)) or "-")
    return words
