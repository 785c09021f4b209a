"""The project's own helper: whoever calls it is tied to CUDA without naming it."""

from __future__ import annotations

import torch


def pick(index: int) -> torch.device:
    """The device of a rank."""
    return torch.device("cuda", index)


def driver() -> str:
    """For bug reports from NVIDIA machines."""
    return torch.version.cuda or "none"  # sapper: keep SP-PORT-1xx -- only ever printed
