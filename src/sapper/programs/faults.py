"""What a user's program raises, as errors that say what, where in the user's file, and what to do."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from torch._subclasses import fake_tensor

from sapper import messages
from sapper.errors import BadFile, SapperError
from sapper.programs import _watcher

DATA_DEPENDENT = tuple(
    error for name in ("DataDependentOutputException", "DynamicOutputShapeException", "UnsupportedOperatorException")
    if (error := getattr(fake_tensor, name, None)) is not None
)  # fmt: skip
"""What fake tensors raise at an op whose result depends on values and not on shapes alone."""

_HINTS = {
    "nonzero": "shape", "masked_select": "shape", "_unique2": "shape", "unique_dim": "shape", "unique_consecutive": "shape",
    "repeat_interleave": "shape", "bincount": "shape", "_local_scalar_dense": "value", "item": "value", "equal": "value",
    "is_nonzero": "value",
}  # fmt: skip
_NO_KERNEL = re.compile(
    r"not implemented for '(BFloat16|Half)'|Low precision dtypes not supported|Unsupported dtype (BFloat16|Half)"
    r"|FFT doesn't support tensors of type: (BFloat16|Half)|(?i:half, float (or|and) double) tensors,? but got .*BFloat16"
)
"""How PyTorch's kernels on the CPU refuse a narrow dtype that they do not have; a target in the wrong dtype reads otherwise."""
_NO_LAYOUT = re.compile(r"SparseTensorImpl|SparseCsrTensorImpl|ignore_fresh_unbacked_symbols")
"""How PyTorch fails at sparse layouts and at loops that end by a value (``while_loop``) on tensors without data."""
LEFT = 70
"""Exit code of a command whose program leaves by ``os._exit(0)``: EX_SOFTWARE of sysexits.h, no code that a verdict has."""
_FROM_OUTSIDE = tuple(number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None)
"""Signals by which others end a process."""
_CODES = {"shape": "SP-PROG-014", "value": "SP-PROG-015", "": "SP-PROG-016"}


@contextlib.contextmanager
def no_talk() -> Iterator[None]:
    """PyTorch logs what it also raises; here the error speaks for itself."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def of_the_user(path: str, code: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a :class:`BadFile` with ``code`` that names its line.

    Where it ends the process (a fault in compiled code, ``os._exit``, the system that wants memory back), that is said too.
    """
    try:
        with _watched(path):
            yield
    except (SapperError, KeyboardInterrupt, MemoryError):
        raise
    except DATA_DEPENDENT as error:
        raise data_dependent(error, path) from error
    except SyntaxError as error:
        where = f"{error.filename or path}:{error.lineno or 1}"
        raise BadFile(code, where=where, kind=type(error).__name__, problem=error.msg) from error
    except BaseException as error:  # SystemExit too: a builder that exits has not built
        cause = _cause(error)
        if isinstance(cause, DATA_DEPENDENT):
            raise data_dependent(cause, path) from error
        where = place(error, path)
        package = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else None
        if package and importlib.util.find_spec(package) is None:
            raise BadFile("SP-PROG-021", where=where, package=package) from error
        if code in ("SP-PROG-017", "SP-PROG-018") and _NO_LAYOUT.search(str(error)):
            raise BadFile("SP-PROG-025", where=where, problem=_first_line(error)) from error
        if code in ("SP-PROG-017", "SP-PROG-018") and _NO_KERNEL.search(str(error)):
            raise BadFile("SP-PROG-022", where=where, problem=_first_line(error)) from error
        raise BadFile(code, where=where, kind=type(error).__name__, problem=_first_line(error)) from error


_TOLD_OF: list[signal.Signals] = []
"""Signals whose arrival is told at the moment."""


def _forget_signals() -> None:
    """Tell of no signal any more; a handler that the program has set meanwhile stays."""
    for one in _TOLD_OF:
        handler = signal.getsignal(one)
        faulthandler.unregister(one)
        if handler is not signal.SIG_DFL:
            with contextlib.suppress(ValueError, TypeError):  # not in the main thread; not set from Python
                signal.signal(one, handler)
    _TOLD_OF.clear()


os.register_at_fork(after_in_child=_forget_signals)  # what ends a child that the program forks is the program's own affair


@contextlib.contextmanager
def _watched(path: str) -> Iterator[None]:
    """Have a process beside this one say what the code inside ends this one with; not where someone else sees to that already."""
    if faulthandler.is_enabled():
        yield
        return
    text = BadFile("SP-PROG-024", where=_watcher.WHERE, how=_watcher.HOW).render(messages.language())
    reading, writing = os.pipe()
    told = (messages.text("cli.error") + text, messages.text("programs.ended_silently"), messages.text("programs.ended_from_outside"))
    command = [sys.executable, "-S", "-I", _watcher.__file__, os.path.abspath(path), *told]
    # In a session of its own: Ctrl-C is for this process, which leaves the code alive.
    watcher = subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(reading)
    faulthandler.enable(writing, all_threads=False)
    told_of = [one for one in _FROM_OUTSIDE if signal.getsignal(one) is signal.SIG_DFL]
    for one in told_of:
        faulthandler.register(one, writing, all_threads=False, chain=True)  # whatever runs, this process ends at once, as ever
    _TOLD_OF.extend(told_of)
    try:
        with _no_success_by_exit():
            yield
    finally:
        _forget_signals()
        faulthandler.disable()
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, _watcher.DONE)
        os.close(writing)
        watcher.wait()


@contextlib.contextmanager
def _no_success_by_exit() -> Iterator[None]:
    """The code inside cannot end this process as if the command had come to a good end; what it forks may end as it likes."""
    leave, own = os._exit, os.getpid()

    def exit_(status: int) -> NoReturn:
        leave(status or LEFT if os.getpid() == own else status)

    os._exit = exit_
    try:
        yield
    finally:
        os._exit = leave


def data_dependent(error: BaseException, path: str) -> BadFile:
    """The error of an op that needs data."""
    func: Any = getattr(error, "func", None)
    packet = getattr(func, "overloadpacket", func)
    name = getattr(packet, "__name__", str(func))
    return BadFile(_CODES[_HINTS.get(name, "")], where=place(error, path), op=f"aten.{name}")


def is_data_dependent(error: BadFile) -> bool:
    """Whether it was raised for an op that needs data, on tensors without."""
    return isinstance(error.__cause__, DATA_DEPENDENT) or (
        error.__cause__ is not None and isinstance(_cause(error.__cause__), DATA_DEPENDENT)
    )


def place(error: BaseException, path: str) -> str:
    """The innermost line of the user's file (or else of code outside PyTorch) that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    same = [frame for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(path)]
    ours = (f"{os.sep}torch{os.sep}", f"{os.sep}sapper{os.sep}")
    others = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    found = same or others
    if not found:
        return path
    frame = found[-1]
    shown = path if same else os.sep.join(frame.filename.split(os.sep)[-3:])
    return f"{shown}:{frame.lineno}"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "-"
