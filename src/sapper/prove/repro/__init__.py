"""Repro: for each finding a script that runs alone, shrunk, verified in a fresh process, ready to send to the vendor."""

from __future__ import annotations

from sapper.prove.repro.result import Repro
from sapper.prove.repro.write import write_repro

__all__ = ["Repro", "write_repro"]
