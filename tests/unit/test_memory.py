"""Memory that is freed and kept: it costs the kernel no second clearing."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHURN = """
import ctypes, resource
from sapper import memory
kept = memory.keep_freed() if {kept} else None
def faults():
    block = bytearray(32 << 20)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del block
    block = bytearray(32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
print(kept, faults())
"""
PAGES = (32 << 20) // 4096


def churned(*, kept: bool) -> tuple[str, int]:
    """What the call said, and how many pages a block took that was allocated where one of its size had just been freed."""
    said = subprocess.run([sys.executable, "-c", CHURN.format(kept=kept)], capture_output=True, text=True, check=True).stdout.split()
    return said[0], int(said[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own option")
def test_a_block_that_was_freed_costs_no_new_pages() -> None:
    said, faults = churned(kept=True)
    if said == "False":
        pytest.skip("this C library has no such option")

    assert faults < PAGES // 100
    assert churned(kept=False)[1] > PAGES // 100
