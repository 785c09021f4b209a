"""The inside of a worker process: takes jobs from one pipe, answers into another, and ends with its parent."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

_MOST_WORDS = 4000
_PARENT_CHECK_S = 1.0
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate", "RESOURCE_EXHAUSTED")
"""What stacks say where they have no exception class of their own for it."""


def main(jobs: int, answers: int, *, parent: int, dies_with_parent: bool) -> None:
    """Serve until the pipe of jobs ends.

    Args:
        jobs: File descriptor to read from.
        answers: File descriptor to write to.
        parent: Its process.
        dies_with_parent: Whether the kernel may be asked to end this process with the thread that started it.
    """
    _follow_parent(parent, dies_with_parent)
    _no_core_dumps()
    faulthandler.enable(all_threads=False)
    with contextlib.suppress(BrokenPipeError):
        _serve(_lines(jobs), lambda message: _write(answers, message))
    sys.stdout.flush()
    os._exit(0)  # a stack's own threads and exit handlers may hang


def _serve(lines: Iterator[bytes], send: Callable[[dict[str, Any]], None]) -> None:
    first = msgspec.json.decode(next(lines))
    try:
        send({"ready": _function(first["setup"])(first["payload"])})
    except BaseException as error:
        send({"unready": _words(error)})
        return
    for line in lines:
        job = msgspec.json.decode(line)
        started = time.perf_counter()
        message = _called(job, send)
        send({**message, "wall_s": time.perf_counter() - started})


def _called(job: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    try:
        result = _function(job["function"])(job["payload"])
        if inspect.isgenerator(result):
            for part in result:
                send({"part": part})
            result = None
        msgspec.json.encode(result)  # what is no JSON is the function's error
    except SystemExit as error:
        return {"status": "crash", "said": f"exit {error.code}"}
    except BaseException as error:
        status = "memory" if is_out_of_memory(error) else "raised"
        return {"status": status, "said": _words(error), "trace": traceback.format_exc()[-_MOST_WORDS:]}
    return {"status": "done", "value": result}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, PyTorch's, or in a stack's own words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_MOST_WORDS]


def _function(name: str) -> Callable[[dict[str, Any]], Any]:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    assert callable(function)
    return function  # type: ignore[no-any-return]


def _lines(stream: int) -> Iterator[bytes]:
    with os.fdopen(stream, "rb") as file:
        yield from file


def _write(stream: int, message: dict[str, Any]) -> None:
    rest = msgspec.json.encode(message) + b"\n"
    while rest:
        rest = rest[os.write(stream, rest) :]


def _follow_parent(parent: int, by_kernel: bool) -> None:
    """End when the parent does, even if it was killed: on Linux by the kernel, and elsewhere by a look now and then."""
    if by_kernel and sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os.killpg(os.getpid(), signal.SIGKILL)  # what this process started ends with it

    threading.Thread(target=watch, daemon=True).start()


def _no_core_dumps() -> None:
    with contextlib.suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
