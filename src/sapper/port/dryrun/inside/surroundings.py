"""What a program asks of its surroundings: environment variables of CUDA's, and commands of NVIDIA's."""

from __future__ import annotations

import linecache
import os
import re
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from sapper.port.dryrun.inside import frames, journal
from sapper.port.dryrun.session import VARIABLE, current

_VARIABLES = re.compile(r"CUDA_|NCCL_|NVIDIA_|CUBLAS_|CUDNN_|NVCC_|PYTORCH_CUDA_|PYTORCH_NVML_|TORCH_CUDA_|TORCH_NCCL_")
_COMMANDS = re.compile(r"(?:^|[\s/;|&(])(nvidia-smi|nvcc|nsys|ncu|nvprof|cuda-gdb|compute-sanitizer|cuobjdump)(?:$|[\s;|&)])")
_WHOLE = re.compile(r"dict\(|\*\*|copy\(|items\(|values\(|update\(")
_READERS_OF_ALL = frozenset({"__iter__", "copy", "items", "values", "popitem", "clear"})
"""Functions of Python's own that go through all variables."""
_HANDED_ON = (VARIABLE, "SAPPER_TRY_PACKAGE", "PYTHONPATH", "TORCH_DEVICE_BACKEND_AUTOLOAD")


class Environment(os._Environ):  # type: ignore[type-arg]
    """``os.environ``, watched: same object, same content."""

    def __getitem__(self, key: Any) -> Any:
        _note(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _note(key)
        super().__setitem__(key, value)

    def __contains__(self, key: object) -> bool:
        _note(key)
        return super().__contains__(key)


def _note(key: object) -> None:
    if not isinstance(key, str) or not _VARIABLES.match(key):
        return
    reader = sys._getframe(2).f_code
    if reader.co_name in _READERS_OF_ALL and frames.owner_of(reader.co_filename)[0] == "python":
        return
    where = journal.seen()
    if where is None or journal.exempt(where):
        return
    text = linecache.getline(where.path, where.line) or _line(where.path, where.line)
    if key not in text and _WHOLE.search(text):
        return  # all variables are copied
    journal.JOURNAL.touch("environment", key, outcome="unknown" if current().stack.as_cuda else "ignored", where=where)


def _line(path: str, number: int) -> str:
    return linecache.getline(os.path.join(current().root, path), number)


def watch_environment() -> None:
    """Watch ``os.environ`` from now on."""
    os.environ.__class__ = Environment


def watch_commands() -> None:
    """Watch what is started by ``subprocess``, ``os.system`` and their like."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
        return
    words = _words(arguments[1] if event == "subprocess.Popen" else arguments[0])
    for name in _COMMANDS.findall(words):
        where = journal.seen()
        if where is not None and not journal.exempt(where):
            says = f"FileNotFoundError: [Errno 2] No such file or directory: '{name}'"
            journal.JOURNAL.touch("command", name, outcome="fails", where=where, says=says)


def _words(given: Any) -> str:
    if isinstance(given, bytes):
        return os.fsdecode(given)
    if isinstance(given, str):
        return given
    return " ".join(os.fsdecode(one) for one in given) if isinstance(given, Iterable) else str(given)


def watch_subprocess(subprocess: ModuleType) -> None:
    """Hand the watch on to children that are given an environment of their own."""
    plain = subprocess.Popen.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        given = named.get("env")
        if given is not None and VARIABLE not in given:
            named["env"] = {**given, **{name: os.environ[name] for name in _HANDED_ON if name in os.environ}}
        plain(self, *arguments, **named)

    subprocess.Popen.__init__ = init
