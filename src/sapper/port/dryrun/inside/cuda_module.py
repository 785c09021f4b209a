"""``torch.cuda`` and all below it, watched: reading a name, calling a function, making an object."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from sapper.port.dryrun.inside import answers, chip, graphs, journal
from sapper.port.dryrun.inside.frames import owner_of
from sapper.port.dryrun.session import current

_STAND_INS: dict[int, tuple[Any, Any]] = {}
"""What is given to the program in place of a function or class, by the id of the original, which is kept with it."""


class Watched(ModuleType):
    """A module of ``torch.cuda``; PyTorch itself sees it as it is."""

    def __getattribute__(self, name: str) -> Any:
        found = ModuleType.__getattribute__(self, name)
        if name[:2] == "__" or isinstance(found, ModuleType):
            return found
        if owner_of(sys._getframe(1).f_code.co_filename)[0] in ("torch", "own"):
            return found
        return given(f"{ModuleType.__getattribute__(self, '__name__')}.{name}", found)


def watch() -> None:
    """Watch all modules of ``torch.cuda`` that are there."""
    for name, module in list(sys.modules.items()):
        if (name == "torch.cuda" or name.startswith("torch.cuda.")) and type(module) is ModuleType:
            module.__class__ = Watched


def given(symbol: str, found: Any) -> Any:
    """What the program gets for a name that it reads."""
    if not _is_torchs(found):
        return found  # the program's own, put there by it
    where = journal.seen()
    if where is None or (journal.exempt(where) and not callable(found)):
        return found
    if isinstance(found, type) and issubclass(found, BaseException):
        journal.JOURNAL.touch("api", symbol, outcome="works", where=where)
        return found
    if not callable(found):
        return answers.respond("api", symbol, where=where, real=lambda: found, instead=None)
    if not journal.exempt(where):
        journal.JOURNAL.touch("api", symbol, outcome="carries", where=where)
    known = _STAND_INS.get(id(found))
    if known is None:
        made = _class(symbol, found) if isinstance(found, type) else _function(symbol, found)
        known = _STAND_INS[id(found)] = (made, found)
    return known[0]


def _is_torchs(found: Any) -> bool:
    home = getattr(found, "__module__", None)
    return not callable(found) or home is None or str(home).startswith(("torch", "functools", "builtins"))


def _function(symbol: str, found: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(found)
    def called(*arguments: Any, **named: Any) -> Any:
        where = journal.seen()
        if where is None:
            return found(*arguments, **named)
        same = equivalent(symbol)
        instead = None if same is None else functools.partial(same, *arguments, **named)
        return answers.respond("api", symbol, where=where, real=functools.partial(found, *arguments, **named), instead=instead)

    return called


def _class(symbol: str, found: type) -> type:
    """A subclass of a class of ``torch.cuda`` that makes the chip's objects where it is called."""

    class Made(type(found) if _may_be_derived(found) else type):  # type: ignore[misc]
        def __call__(cls, *arguments: Any, **named: Any) -> Any:
            real = functools.partial(type(found).__call__, found, *arguments, **named)
            where = journal.seen()
            if where is None or cls is not made:
                return real() if cls is made else super().__call__(*arguments, **named)
            same = equivalent(symbol)
            instead = None if same is None else functools.partial(same, *arguments, **named)
            return answers.respond("api", symbol, where=where, real=real, instead=instead)

        def __instancecheck__(cls, instance: object) -> bool:
            same = equivalent(symbol)
            if not _may_be_derived(found):
                return _is_of_type(instance, found.__name__)
            return isinstance(instance, found) or (isinstance(same, type) and isinstance(instance, same))

    body = {"__module__": found.__module__, "__qualname__": found.__name__, "__doc__": found.__doc__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated classes warn of being derived from, which is not the program's doing
        made = Made(found.__name__, (found,) if _may_be_derived(found) else (), body)
    return made


def _may_be_derived(found: type) -> bool:
    """Whether others may be derived from a class; typed tensors, such as ``torch.cuda.FloatTensor``, are none for Python."""
    return not found.__name__.endswith("Tensor")


def equivalent(symbol: str) -> Any:
    """The chip's own for a name of ``torch.cuda``: by the same name, or None."""
    found: Any = chip.module()
    rest = symbol.removeprefix("torch.cuda.")
    if rest in _MOVED:
        rest = _MOVED[rest]
    if rest.startswith("nvtx."):
        return _nothing_within if rest == "nvtx.range" else _nothing
    if rest in _NOTHING:
        return _nothing
    if rest in graphs.EQUIVALENTS and not hasattr(found, rest):
        return graphs.EQUIVALENTS[rest]
    if _TYPED.fullmatch(rest):
        return functools.partial(_typed, rest)
    for part in rest.split("."):
        found = getattr(found, part, None)
    return found


_MOVED = {
    "amp.autocast_mode.autocast": "amp.autocast", "amp.grad_scaler.GradScaler": "amp.GradScaler", "streams.Stream": "Stream",
    "streams.Event": "Event", "memory_cached": "memory_reserved", "max_memory_cached": "max_memory_reserved",
    "amp.autocast_mode.custom_fwd": "amp.custom_fwd", "amp.autocast_mode.custom_bwd": "amp.custom_bwd",
}  # fmt: skip
_NOTHING = frozenset({
    "_lazy_init", "init", "_sleep", "profiler.start", "profiler.stop", "_record_memory_history", "memory._record_memory_history",
})  # fmt: skip


_TYPED = re.compile(r"\w+Tensor")


def _is_of_type(instance: Any, name: str) -> bool:
    """Whether a tensor lies on the chip and has the dtype of a typed tensor's name."""
    import torch

    on_chip = isinstance(instance, torch.Tensor) and instance.device.type in (chip.internal_name(), current().stack.device)
    return on_chip and instance.cpu().type() == f"torch.{name}"


def _typed(name: str, *arguments: Any) -> Any:
    """``torch.cuda.FloatTensor(...)``, made on the host and moved."""
    import torch

    return getattr(torch, name)(*arguments).to(chip.internal_name())


def _nothing(*_: Any, **__: Any) -> None:
    """What a marker for a profiler does where there is none."""


@contextmanager
def _nothing_within(*_: Any, **__: Any) -> Any:
    yield
