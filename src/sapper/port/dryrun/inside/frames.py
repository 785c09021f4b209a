"""Which line of whose code is running: the user's own, a package's, PyTorch's, Python's, or ours."""

from __future__ import annotations

import functools
import itertools
import linecache
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from sapper.port.dryrun.session import current

Owner = Literal["own", "python", "torch", "package", "user"]

_CUDA = re.compile(r"cuda|nccl|cudnn|nvidia", re.IGNORECASE)
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_PACKAGES = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\]+)")
_STDLIB = tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")} | {sysconfig.get_path("stdlib")})
_OF_TORCH = frozenset({"torch", "functorch", "torchgen"})


@dataclass(frozen=True)
class Where:
    """A place in running code."""

    path: str
    line: int
    end_line: int
    function: str
    package: str = ""
    """Empty for the user's own."""
    via: str | None = None
    literal: bool = True


@functools.cache
def owner_of(filename: str) -> tuple[Owner, str]:
    """Whose a file is, and the package's name where it is one's; the user's own is all that is not installed."""
    if filename.startswith("<frozen") or not filename:
        return "python", ""
    if filename.startswith("<"):
        return ("user", "") if filename in ("<string>", "<stdin>") else ("python", "")
    path = os.path.realpath(filename)
    if path.startswith(_OURS + os.sep):
        return "own", ""
    found = _PACKAGES.search(path) or _PACKAGES.search(filename)
    if found:
        name = found.group(1).removesuffix(".py")
        return ("torch", "") if name in _OF_TORCH else ("package", name)
    if path.startswith(_STDLIB) and not path.startswith(current().root + os.sep):
        return "python", ""
    return ("torch", "") if _is_torch(path) else ("user", "")


def _is_torch(path: str) -> bool:
    """Whether a file lies in a PyTorch that is installed from its sources."""
    torch = sys.modules.get("torch")
    file = getattr(torch, "__file__", None)
    return bool(file) and path.startswith(os.path.dirname(os.path.realpath(str(file))) + os.sep)


def caller(*, through_torch: bool = False) -> Where | None:
    """The nearest frame that is neither ours nor Python's own.

    Args:
        through_torch: Look behind PyTorch's frames, for calls that PyTorch makes on the program's behalf; else a frame of
            PyTorch's means that it is minding its own business, and None is returned.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner, package = owner_of(frame.f_code.co_filename)
        if owner == "user" and frame.f_code.co_filename == "<string>" and frame.f_globals.get("__name__") != "__main__":
            owner = "python"  # code that a library makes and executes, such as a dataclass's __init__
        if owner == "torch" and not through_torch:
            return None
        if owner in ("user", "package"):
            return _where(frame, package)
        frame = frame.f_back
    return None


def _where(frame: FrameType, package: str) -> Where:
    line, end_line = span(frame)
    via = None
    if package:
        behind = frame.f_back
        while behind is not None and owner_of(behind.f_code.co_filename)[0] != "user":
            behind = behind.f_back
        via = f"{shown(behind.f_code.co_filename)}:{behind.f_lineno}" if behind is not None else None
    filename = frame.f_code.co_filename
    text = "".join(linecache.getline(filename, number) for number in range(line, end_line + 1))
    name = frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name
    return Where(shown(filename), line, end_line, name, package, via, literal=not text or bool(_CUDA.search(text)))


def span(frame: FrameType) -> tuple[int, int]:
    """First and last line of the expression that a frame is at."""
    positions = frame.f_code.co_positions()
    line, end_line, _, _ = next(itertools.islice(positions, frame.f_lasti // 2, None), (None, None, None, None))
    return (line, end_line) if line and end_line else (frame.f_lineno, frame.f_lineno)


@functools.cache
def shown(filename: str) -> str:
    """A path as the result has it: relative to the root, with forward slashes; of packages, from the package on."""
    if filename.startswith("<"):
        return filename
    path = os.path.realpath(filename)
    found = _PACKAGES.search(path)
    if found:
        return path[found.start(1) :].replace(os.sep, "/")
    root = current().root
    return os.path.relpath(path, root).replace(os.sep, "/") if path.startswith(root + os.sep) else path.replace(os.sep, "/")
