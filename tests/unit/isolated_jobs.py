"""What the workers of test_isolate.py run: everything that a stack may do to its process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    if payload.get("raise"):
        raise ImportError("libhccl.so: cannot open shared object file")
    if payload.get("die"):
        os.abort()
    return {"pid": os.getpid()}


def add(payload: dict[str, Any]) -> Any:
    return payload["a"] + payload["b"]


def pid(payload: dict[str, Any]) -> int:
    return os.getpid()


def write_then_sleep(payload: dict[str, Any]) -> None:
    Path(payload["path"]).write_text(str(os.getpid()), "utf-8")
    time.sleep(600)


def noisy(payload: dict[str, Any]) -> str:
    print('{"status":"done","value":"forged"}', flush=True)
    os.write(1, b"\xff\xfe raw bytes" * 100_000)
    os.write(2, b"and on stderr\n")
    return "quiet"


def die(payload: dict[str, Any]) -> None:
    how = payload["how"]
    print("last words of the stack", file=sys.stderr, flush=True)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "sysexit":
        sys.exit(3)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), {"fpe": signal.SIGFPE, "kill": signal.SIGKILL}[how])
    time.sleep(10)


def hang(payload: dict[str, Any]) -> None:
    if payload.get("deaf"):
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
    while True:
        pass


def eat(payload: dict[str, Any]) -> int:
    held = bytearray(payload["size_bytes"])
    held[:: 4096] = b"x" * len(held[:: 4096])
    time.sleep(payload.get("hold_s", 30))
    return len(held)


def fail(payload: dict[str, Any]) -> None:
    raise {"value": ValueError("no such mode"), "memory": RuntimeError("DefaultCPUAllocator: can't allocate memory")}[payload["kind"]]


def parts(payload: dict[str, Any]) -> Iterator[int]:
    for number in range(payload["count"]):
        if number == payload.get("die_at"):
            os.abort()
        if number == payload.get("hang_at"):
            time.sleep(600)
        time.sleep(payload.get("each_s", 0))
        yield number


def not_json(payload: dict[str, Any]) -> Any:
    return object()
