"""Memory: a copy from buffer to buffer, and a read of a whole buffer by a sum."""

from __future__ import annotations

from typing import Any, Callable

from sapper.probe.parts.session import Session

MEMORY_SIZES_MIB = (64, 256, 16, 1024, 4, 1, 4096)


def measure_memory(session: Session) -> None:
    """Both over the sizes."""
    for size_mib in MEMORY_SIZES_MIB:
        size = size_mib * 2**20
        if not session.fits(2.0 * size):
            session.skip(f"memory {size_mib} MiB: memory")
        elif session.budget.left_s() <= 0 or size * 1e-9 > session.case_s():
            session.skip(f"memory {size_mib} MiB: time")
        else:
            _memory(session, "memory-copy", size, moved=2 * size)
            _memory(session, "memory-read", size, moved=size)


def _memory(session: Session, kind: str, size: int, *, moved: int) -> None:
    torch, place = session.torch, session.device.place

    def make() -> Callable[[], Any]:
        source = torch.ones(size // 4, device=place)
        if kind == "memory-read":
            return lambda: source.sum()
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    session.run(
        make,
        fields={
            "kind": kind, "metric": "bandwidth", "unit": "bytes/s", "dtype": "fp32",
            "conditions": {"bytes": moved, "buffer_bytes": size},
        },
        results=lambda timing: timing.rates(float(moved)),
    )
