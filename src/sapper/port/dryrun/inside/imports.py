"""A finder before all others: tells when a module has come, brings the vendor's plug-in, and notes packages that need CUDA."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sapper.port.dryrun.inside import journal, plugin
from sapper.port.dryrun.session import current


class Finder(importlib.abc.MetaPathFinder):
    """Looks at each import once, and leaves the finding to those after it, save for the plug-in."""

    def __init__(self, arrivals: dict[str, Callable[[ModuleType], None]]) -> None:
        self.arrivals = arrivals
        self._plugins = plugin.modules()
        self._needs_cuda = frozenset(current().packages)
        self._busy: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a plug-in's module, or of one whose arrival is to be told; None for all others."""
        if fullname in self._plugins:
            return ModuleSpec(fullname, plugin.Loader(), is_package=True)
        if fullname in self._needs_cuda and fullname not in self._busy:
            self._note(fullname)
        if fullname not in self.arrivals or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            _tell(spec.loader, self.arrivals.pop(fullname))
        return spec

    def _note(self, fullname: str) -> None:
        where = journal.seen()
        if where is None or journal.exempt(where) or (where.package and _is_asked_for()):
            return
        self._busy.add(fullname)
        try:
            there = importlib.util.find_spec(fullname) is not None
        except (ImportError, ValueError):
            there = False
        finally:
            self._busy.discard(fullname)
        says = None if there else f"ModuleNotFoundError: No module named '{fullname}'"
        journal.JOURNAL.touch("import", fullname, outcome="unknown", where=where, says=says)


def _is_asked_for() -> bool:
    """Whether ``importlib.util.find_spec`` asks if a module is there: packages choose their roads by it, and nothing is imported."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, "<frozen importlib._bootstrap>"):
        frame = frame.f_back
    return frame.f_code is importlib.util.find_spec.__code__


def _tell(loader: Any, arrived: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        tracer = sys.gettrace()
        sys.settrace(None)  # a trace function doubles the time that PyTorch takes to come, and nothing of the program's runs in it
        try:
            execute(module)
        finally:
            sys.settrace(tracer)
        try:
            arrived(module)
        except Exception as error:
            # The program is not to fail by us; that it was not watched makes the run no result.
            journal.JOURNAL.write("unwatched", {"why": f"{module.__name__}: {type(error).__name__}: {error}"})

    loader.exec_module = exec_module


def on_arrival(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action`` with a module as soon as it has been imported."""
    next(one for one in sys.meta_path if isinstance(one, Finder)).arrivals[name] = action


def install(arrivals: dict[str, Callable[[ModuleType], None]]) -> None:
    """Put the finder first; what is there already is told at once."""
    for name in [name for name in arrivals if name in sys.modules]:
        arrivals.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, Finder(arrivals))
