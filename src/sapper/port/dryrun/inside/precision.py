"""Autocast, loss scaling, and the flags of cuBLAS and cuDNN: what goes off without a word where there is no CUDA."""

from __future__ import annotations

import dataclasses
import functools
import sys
from types import ModuleType
from typing import Any

import torch
from sapper.port.dryrun.inside import answers, chip, journal, presented
from sapper.port.dryrun.inside.frames import Where, owner_of
from sapper.port.dryrun.session import Note, Outcome, current


def watch() -> None:
    """Watch all of it."""
    _watch_device_type(torch.amp.autocast_mode.autocast, "torch.autocast")
    _watch_device_type(torch.amp.grad_scaler.GradScaler, "torch.amp.GradScaler")
    _watch_host_autocast()
    _watch_version()
    _watch_flags()


def _watch_device_type(owner: Any, symbol: str) -> None:
    """A class whose first argument is a device type, ``"cuda"`` where it may be left out."""
    plain = owner.__init__
    named_first = "device_type" if symbol == "torch.autocast" else "device"
    default = None if symbol == "torch.autocast" else "cuda"

    @functools.wraps(plain)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        given = arguments[0] if arguments else named.get(named_first, default)
        wanted = given.type if isinstance(given, torch.device) else given

        def with_type(device_type: Any) -> None:
            rest = {key: value for key, value in named.items() if key != named_first}
            plain(self, device_type, *arguments[1:], **rest)

        if wanted != "cuda":
            inner = presented.inward((wanted,))[0]
            if inner == wanted:
                plain(self, *arguments, **named)
            else:
                with_type(inner)
            return
        where = journal.seen(through_torch=True)
        if where is None:
            plain(self, *arguments, **named)
            return
        if not arguments and named_first not in named:
            where = dataclasses.replace(where, literal=True)  # CUDA by default: it is this line's own
        outcome, says = answers.judge(symbol, answers.Truth(self), redirectable=True)
        if not type(self).__module__.startswith("torch.cuda.") and not journal.exempt(where):  # the former were told when made
            journal.JOURNAL.touch("autocast", symbol, outcome=outcome, where=where, says=says)
        if answers.goes_on(where, outcome):
            with_type(chip.internal_name())
        else:
            plain(self, *arguments, **named)

    owner.__init__ = init


def _watch_host_autocast() -> None:
    """An autocast for the CPU around work of the chip does nothing: the device type became ``cpu`` on the way."""
    owner = torch.amp.autocast_mode.autocast
    enter, leave = owner.__enter__, owner.__exit__
    open_: dict[int, list[tuple[int, Where | None]]] = {}

    @functools.wraps(enter)
    def entered(self: Any) -> Any:
        if self.device == "cpu" and self._enabled:
            open_.setdefault(id(self), []).append((chip.launches(), journal.seen(through_torch=True)))
        return enter(self)

    @functools.wraps(leave)
    def left(self: Any, *arguments: Any) -> Any:
        marks = open_.get(id(self))
        if marks:
            before, where = marks.pop()
            launched = chip.launches() - before
            if launched and where is not None and not where.package:
                says = Note("other_autocast", {"count": str(launched), "device": current().stack.device})
                journal.JOURNAL.touch("autocast", 'torch.autocast("cpu")', outcome="silent", where=where, says=says)
        return leave(self, *arguments)

    owner.__enter__, owner.__exit__ = entered, left


class _Version(ModuleType):
    """``torch.version``."""

    def __getattribute__(self, name: str) -> Any:
        found = ModuleType.__getattribute__(self, name)
        if name != "cuda" or owner_of(sys._getframe(1).f_code.co_filename)[0] in ("torch", "own"):
            return found
        where = journal.seen()
        if where is None or journal.exempt(where):
            return None
        outcome: Outcome = "silent" if current().stack.as_cuda or not answers.shim_is_on() else "unknown"
        journal.JOURNAL.touch("api", "torch.version.cuda", outcome=outcome, where=where, says="None")
        return None


def _watch_version() -> None:
    torch.version.__class__ = _Version


def _watch_flags() -> None:
    """Flags are kept as they are set; that they were set, and mean nothing here, is told."""
    _watch_holder(torch.backends.cuda, "torch.backends.cuda")
    _watch_holder(torch.backends.cuda.matmul, "torch.backends.cuda.matmul")
    _watch_holder(torch.backends.cudnn, "torch.backends.cudnn")


def _watch_holder(holder: Any, symbol: str) -> None:
    plain: Any = type(holder)

    class Flags(plain):
        def __setattr__(self, name: str, value: Any) -> None:
            _tell_flag(f"{symbol}.{name}", sys._getframe(1).f_code.co_filename, _lost(name, value))
            plain.__setattr__(self, name, value)

        def __getattribute__(self, name: str) -> Any:
            found = plain.__getattribute__(self, name)
            if name[:1] == "_" or isinstance(found, (ModuleType, type)) or name in ("matmul", "conv", "rnn", "cufft_plan_cache"):
                return found
            file = sys._getframe(1).f_code.co_filename
            if callable(found):
                return _watched_function(f"{symbol}.{name}", found) if owner_of(file)[0] not in ("torch", "own") else found
            _tell_flag(f"{symbol}.{name}", file)
            return found

    Flags.__name__, Flags.__qualname__ = plain.__name__, plain.__qualname__
    object.__setattr__(holder, "__class__", Flags)  # the holders' own refuse names that they do not know


def _lost(name: str, value: Any) -> Note | None:
    """What is lost without a word where a flag that is set means nothing; None where it only asks for speed."""
    if name == "deterministic" and value:
        return Note("determinism")
    return Note("full_fp32") if name == "allow_tf32" and not value else None


def _tell_flag(symbol: str, file: str, lost: Note | None = None) -> None:
    if owner_of(file)[0] in ("torch", "own"):
        return
    where = journal.seen()
    if where is not None and not journal.exempt(where):
        outcome: Outcome = "unknown" if current().stack.as_cuda else "silent" if lost else "ignored"
        journal.JOURNAL.touch("flag", symbol, outcome=outcome, where=where, says=lost)


def _watched_function(symbol: str, found: Any) -> Any:
    @functools.wraps(found)
    def called(*arguments: Any, **named: Any) -> Any:
        where = journal.seen()
        real = functools.partial(found, *arguments, **named)
        if where is None or journal.exempt(where):
            return real()
        truth = answers.asked(real) if symbol in answers.STEERING else answers.Truth()
        outcome, says = answers.judge(symbol, truth, redirectable=False)
        journal.JOURNAL.touch("flag", symbol, outcome="unknown" if current().stack.as_cuda else outcome, where=where, says=says)
        return real()

    return called
