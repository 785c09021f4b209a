"""The beginning of a watched process: called from ``sitecustomize``, before any code of the program runs."""

from __future__ import annotations

import os
from types import ModuleType

from sapper.port.dryrun.inside import imports, journal, lines, surroundings


def begin() -> None:
    """Watch this process; PyTorch is not imported for it, only met when the program imports it."""
    journal.start()
    imports.install({"torch": _torch_is_here, "subprocess": surroundings.watch_subprocess, "multiprocessing.util": _processes_are_here})
    surroundings.watch_environment()
    surroundings.watch_commands()
    lines.watch()


def _torch_is_here(torch: ModuleType) -> None:
    from sapper.port.dryrun.inside import torch_side

    journal.JOURNAL.torch = str(getattr(torch, "__version__", "?"))
    journal.JOURNAL.write("torch", {"version": journal.JOURNAL.torch})
    torch_side.watch()


def _processes_are_here(util: ModuleType) -> None:
    """Children of ``multiprocessing`` leave without ``atexit``, but not without finalizers."""

    def in_child(own: journal.Journal) -> None:
        util.Finalize(own, own.end, exitpriority=-1000)

    util.register_after_fork(journal.JOURNAL, in_child)


def environment(session: str, package: str) -> dict[str, str]:
    """Variables that make a Python process and all its children watched ones.

    Args:
        session: The session's file.
        package: Folder that Sapper is imported from, for interpreters that do not have it.
    """
    from sapper.port.dryrun.session import VARIABLE

    site = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
    rest = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != site]
    return {
        VARIABLE: session, "SAPPER_TRY_PACKAGE": package, "PYTHONPATH": os.pathsep.join([site, *rest]),
        # Sapper's chip takes the place of a vendor's plug-in; a real one beside it would claim the same device.
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }  # fmt: skip
