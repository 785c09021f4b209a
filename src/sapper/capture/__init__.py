"""Capture: any PyTorch program as a Workload, traced on tensors without data. Needs PyTorch; nothing else of Sapper does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sapper.workloads.captured import Captured

__all__ = ["capture"]


def capture(target: str, *, seq: int | None = None, dtype: str = "bf16", every_layer: bool = False) -> Captured:
    """As :func:`sapper.capture.run.capture`; PyTorch is imported by the call.

    Raises:
        BadValue: PyTorch (or, for a config, Transformers) is not installed.
    """
    from sapper.programs.needs import need_for

    need_for(target, where="sapper capture")
    from sapper.capture import run

    return run.capture(target, seq=seq, dtype=dtype, every_layer=every_layer)
