"""The vendor's plug-in as the program imports it: its modules, the few of its operators that are played, and stand-ins for the rest.

A name that the plug-in is known to have can be imported, so that a program's branch for the vendor gets as far as it would there.
What is neither the device's nor played raises where it is called, and the result says so.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sapper.port.dryrun.inside import journal
from sapper.port.dryrun.session import Note, current


@functools.cache
def modules() -> frozenset[str]:
    """Modules of the plug-in and its shim, parents included."""
    stack = current().stack
    found: set[str] = set()
    for name in (*stack.plugins, *([stack.shim_module] if stack.shim_module else []), *stack.device_modules, *stack.plugin_names):
        parts = name.split(".")
        found |= {".".join(parts[:at]) for at in range(1, len(parts) + 1)}
    return frozenset(found)


class Plugin(ModuleType):
    """A module of the plug-in."""

    def __getattr__(self, name: str) -> Any:
        found = _find(self.__name__, name)
        if found is not None:
            setattr(self, name, found)
            return found
        # a module of its own (the shim) is brought by the import system, which asks here first
        if not (name.startswith("__") and name.endswith("__")) and f"{self.__name__}.{name}" not in modules():
            _remark("unlisted", f"{self.__name__}.{name}")
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' (the emulated plug-in)")


def _find(module: str, name: str) -> Any:
    """What a module of the plug-in has under a name; None where nothing is known of it."""
    stack = current().stack
    if f"{module}.{name}" in modules() - {stack.shim_module}:
        return importlib.import_module(f"{module}.{name}")
    import torch

    if name == "__version__" and module in stack.plugins:
        return torch.__version__.split("+")[0]  # plug-ins are numbered after the PyTorch that they are for
    if name == stack.device:
        return getattr(torch, name)
    if module in stack.device_modules and hasattr(getattr(torch, stack.device), name):
        return getattr(getattr(torch, stack.device), name)
    if name not in stack.plugin_names.get(module, ()):
        return None
    from sapper.port.dryrun.inside import vendor_ops

    return vendor_ops.played(name) or StandIn(name, (), {"__module__": module, "_symbol": f"{module}.{name}"})


class StandIn(type):
    """A function or class of the plug-in that is there and is not played: it raises where it is called."""

    _symbol: str

    def __call__(cls, *_: Any, **__: Any) -> Any:
        _remark("unplayed", cls._symbol)
        raise NotImplementedError(f"the emulated chip does not play '{cls._symbol}'")

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        symbol = f"{cls._symbol}.{name}"
        return StandIn(name, (), {"__module__": cls.__module__, "_symbol": symbol})


def _remark(key: str, symbol: str) -> None:
    where = journal.seen(through_torch=True)
    if where is not None:
        journal.JOURNAL.remark(Note(key, {"op": symbol, "place": f"{where.path}:{where.line}"}))


class Loader(importlib.abc.Loader):
    """Makes the modules of the plug-in."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return Plugin(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Register the device, and redirect ``torch.cuda`` where this is the shim."""
        stack = current().stack
        if module.__name__ not in (*stack.plugins, stack.shim_module):
            return
        import torch  # noqa: F401 - its arrival begins the watch
        from sapper.port.dryrun.inside import torch_side

        torch_side.plug_in()
        if module.__name__ == stack.shim_module:
            from sapper.port.dryrun.inside import answers

            answers.switch_on_shim()
