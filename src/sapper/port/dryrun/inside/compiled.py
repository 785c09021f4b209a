"""Code that is built, compiled or profiled while the program runs: CUDA extensions, ``torch.compile``, the profiler."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

import torch
from sapper.port.dryrun.inside import imports, journal
from sapper.port.dryrun.session import Note, Outcome, current


def watch() -> None:
    """Watch all of it."""
    plain = torch.compile

    @functools.wraps(plain)
    def compile_(model: Any = None, **named: Any) -> Any:
        journal.JOURNAL.remark(Note("compile"))
        return plain(model, **{**named, "disable": True, "mode": None, "options": None, "backend": "eager"})

    torch.compile = compile_
    _watch_profiler()
    if "torch.utils.cpp_extension" in sys.modules:
        _watch_extensions(sys.modules["torch.utils.cpp_extension"])
    else:
        imports.on_arrival("torch.utils.cpp_extension", _watch_extensions)


def _watch_profiler() -> None:
    """A profiler of CUDA's kernels; without CUDA it warns, and records the CPU alone."""
    owner: Any = torch.profiler.profile
    plain, cuda = owner.__init__, torch.profiler.ProfilerActivity.CUDA

    @functools.wraps(plain)
    def init(self: Any, *, activities: Any = None, **named: Any) -> None:
        where = journal.seen(through_torch=True) if activities is not None and cuda in activities else None
        if where is not None and not journal.exempt(where):
            outcome: Outcome = "unknown" if current().stack.as_cuda else "silent"
            symbol = "torch.profiler.ProfilerActivity.CUDA"
            journal.JOURNAL.touch("api", symbol, outcome=outcome, where=where, says=Note("profiler_off"))
            activities = [one for one in activities if one != cuda]
        plain(self, activities=activities, **named)

    owner.__init__ = init


def _watch_extensions(module: Any) -> None:
    for name in ("CUDAExtension", "load", "load_inline"):
        _watch_builder(module, name)


def _watch_builder(module: ModuleType, name: str) -> None:
    plain = getattr(module, name)

    @functools.wraps(plain)
    def build(*arguments: Any, **named: Any) -> Any:
        where = journal.seen()
        cuda = name == "CUDAExtension" or named.get("with_cuda") or named.get("cuda_sources") or _has_cuda_files(arguments, named)
        if where is None or not cuda or journal.exempt(where):
            return plain(*arguments, **named)
        says = "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."
        outcome: Outcome = "unknown" if current().stack.as_cuda else "fails"
        journal.JOURNAL.touch("api", f"torch.utils.cpp_extension.{name}", outcome=outcome, where=where, says=says)
        return plain(*arguments, **named)

    setattr(module, name, build)


def _has_cuda_files(arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    sources = named.get("sources", arguments[1] if len(arguments) > 1 else ())
    listed = [sources] if isinstance(sources, str) else sources
    return any(str(one).endswith((".cu", ".cuh")) for one in listed)
