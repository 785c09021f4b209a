"""Which faults of a personality fired in a run: marks that its processes leave in a folder, those that a fault ended too.

A fault that never fired was not looked at by the run. A reader who does not know it takes it for one that was missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from sapper.backends.papertiger.personality import Fault

VARIABLE = "SAPPER_PAPERTIGER_FIRINGS"
"""Environment variable with the folder of the marks, which worker processes inherit; none are left where it is not set."""

Mark = Literal["met", "fired"]
"""A launch fitted all of a fault's selectors; the fault changed something of a launch."""


def leave(mark: Mark, at: int, fault: Fault) -> None:
    """Leave a mark of the fault that is number ``at`` of its personality."""
    folder = os.environ.get(VARIABLE)
    if folder:
        with contextlib.suppress(OSError):  # a full disk ends the run by what the run itself writes
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / _name(mark, at, fault)).touch()


@contextlib.contextmanager
def kept_in(folder: Path, *, anew: bool) -> Iterator[None]:
    """Marks go to ``folder``, from this process and those that it starts; ``anew``: those of an earlier run are none of this one."""
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)  # that there are no marks says something only of a run that keeps them
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def silent(faults: Sequence[Fault], folder: Path) -> Iterator[tuple[int, Fault, bool]]:
    """Faults without a mark of firing: number, fault, and whether launches fitted it all the same."""
    for at, fault in enumerate(faults):
        if not (folder / _name("fired", at, fault)).exists():
            yield at, fault, (folder / _name("met", at, fault)).exists()


def _name(mark: Mark, at: int, fault: Fault) -> str:
    return f"{at}-{hashlib.sha256(repr(fault).encode()).hexdigest()[:12]}.{mark}"
