"""How a process keeps its memory: what it frees stays with it, and nobody looks for cycles where there are none.

glibc gives large blocks back to the kernel when they are freed, and takes fresh pages for the next: what runs op after op on tensors of
megabytes spends up to a quarter of its processor time in the kernel's clearing of pages (a proof of a model of 110 million parameters:
272 s without this, 213 s with it, 2026-11-27, two cores, nearly idle). Peak memory is what it was, since freed blocks are used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
"""Numbers of the options in glibc's ``malloc.h``."""
_LARGEST_INT = 2**31 - 1
_MMAP_THRESHOLDS_BYTES = (_LARGEST_INT, 32 << 20)
"""From which on a block is the kernel's: older glibc takes no more than the second (``HEAP_MAX_SIZE / 2``)."""
_TOP_PAD_BYTES = 64 << 20


def keep_freed() -> bool:
    """Have the C library keep what is freed, from now on in this process; whether it can.

    Not for processes whose resident memory is held against a limit from job to job: it falls no more.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # First the threshold: any of the others alone would fix it at 128 KiB, where it otherwise grows with what is freed.
    if not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MMAP_THRESHOLDS_BYTES):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)) and bool(mallopt(_M_TOP_PAD, _TOP_PAD_BYTES))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Without the collector of cycles, for what makes millions of objects that live as long as it runs, and no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
