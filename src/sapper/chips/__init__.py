"""The chip catalogue: one TOML file per chip, every value with its evidence."""

from __future__ import annotations

from sapper.chips.catalogue import Catalogue, catalogue, resolve, use_change, use_dirs
from sapper.chips.schema import DTYPE_BITS, DTYPES, Chip, System

__all__ = ["DTYPES", "DTYPE_BITS", "Catalogue", "Chip", "System", "catalogue", "resolve", "use_change", "use_dirs"]
