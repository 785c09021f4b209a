"""Sapper: predict, port, prove and mix AI workloads over any chip, with evidence."""

from __future__ import annotations

__version__ = "0.1.0"
