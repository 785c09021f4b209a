"""Put before all others on ``PYTHONPATH`` by ``sapper port try``; gives way to the ``sitecustomize`` that it hides."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys


def _run_hidden() -> None:
    """Run the ``sitecustomize`` that would have run without us."""
    own = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry) != own]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _begin() -> None:
    if "SAPPER_TRY_SESSION" not in os.environ:
        return
    package = os.environ["SAPPER_TRY_PACKAGE"]
    try:
        if importlib.util.find_spec("sapper") is None:
            sys.path.append(package)
        from sapper.port.dryrun.inside import begin

        begin.begin()
    except Exception as error:
        # The program goes on unwatched; that it did is in the result, and makes it no result.
        folder = os.path.dirname(os.environ["SAPPER_TRY_SESSION"])
        with open(os.path.join(folder, "unwatched.txt"), "a", encoding="utf-8") as file:
            file.write(f"{sys.executable}: {type(error).__name__}: {error}\n")


_begin()
_run_hidden()
