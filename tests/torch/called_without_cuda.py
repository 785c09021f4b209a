"""Calls names of ``torch.cuda`` that come on stdin, each in a process of its own, and writes what came of each as JSON."""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import torch

TENSOR = torch.zeros(1)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "set_device": (0,), "device": (0,), "device_of": (TENSOR,), "manual_seed": (0,), "manual_seed_all": (0,), "set_stream": (None,),
    "set_rng_state": (torch.zeros(16, dtype=torch.uint8),), "set_rng_state_all": ([],), "nvtx.range_push": ("a",), "nvtx.range": ("a",),
    "nvtx.mark": ("a",), "nvtx.range_start": ("a",), "ExternalStream": (0,), "can_device_access_peer": (0, 1), "_sleep": (10,),
    "check_error": (0,), "stream": (None,), "StreamContext": (None,), "memory._dump_snapshot": ("x.pickle",), "set_sync_debug_mode": (1,),
    "set_per_process_memory_fraction": (0.5,), "make_graphed_callables": (lambda x: x, (TENSOR,)), "_lazy_call": (lambda: None,),
    "FloatTensor": ([1.0],), "amp.custom_fwd": (lambda context, x: x,), "amp.custom_bwd": (lambda context, x: x,), "graph": (None,),
    "caching_allocator_alloc": (8,), "nccl.is_available": ([],), "nccl.all_reduce": ([],),
    "memory.CUDAPluggableAllocator": ("x.so", "a", "b"),
}  # fmt: skip


def call(name: str) -> str:
    """``ok``, or the kind of error."""
    short = name.removeprefix("torch.cuda.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = torch.cuda
            for part in short.split("."):
                found = getattr(found, part)
            if callable(found):
                made = found(*ARGUMENTS.get(short, ()))
                if hasattr(made, "__enter__") and not isinstance(made, type):
                    with made:
                        pass
    except Exception as error:
        return type(error).__name__
    return "ok"


def apart(name: str) -> str:
    """The same in a process of its own, which a call may bring down."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, call(name).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said or "crash"


json.dump({name: apart(name) for name in json.load(sys.stdin)}, sys.stdout)
