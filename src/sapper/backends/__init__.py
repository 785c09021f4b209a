"""Backends: how to reach a device. One file per software stack behind one small protocol.

A stack is named as on the command line, ``NAME`` or ``NAME:DETAIL``: ``cuda``, ``npu``, ``inductor``, ``openvino:bf16``,
``papertiger:lying.toml``. Nothing here imports PyTorch or a stack until a backend is used.
"""

from __future__ import annotations

from sapper.backends.base import Backend, Executable, Executed, Missing, Unsupported
from sapper.backends.discover import find, names

__all__ = ["Backend", "Executable", "Executed", "Missing", "Unsupported", "find", "names"]
