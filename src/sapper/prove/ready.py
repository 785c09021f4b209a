"""A backend that is ready to be proved, or the doctor's answer why not."""

from __future__ import annotations

from sapper.backends import Backend, find
from sapper.errors import BadValue


def ready(spec: str) -> Backend:
    """The backend that ``spec`` names; nothing of it is imported yet.

    Raises:
        UnknownName: There is none of that name.
        BadValue: It lacks something.
    """
    backend = find(spec)
    missing = backend.missing()
    if missing is not None:
        raise BadValue("SP-RUN-007", where=f"--on {spec}", problem=missing.problem, step=missing.step())
    return backend
