"""Repro: for each finding a script that runs alone, shrunk, verified in a fresh process, ready to send to the vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sapper.prove.repro.result import Repro

if TYPE_CHECKING:
    from sapper.prove.repro.write import write_repro

__all__ = ["Repro", "write_repro"]


def __getattr__(name: str) -> Any:
    if name == "write_repro":  # on demand: what is kept of a repro can be read without PyTorch
        from sapper.prove.repro.write import write_repro

        return write_repro
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
