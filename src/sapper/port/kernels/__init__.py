"""Kernels: which need more than a rename, with the lines, and what a rename does for MUSA and HIP.

``convert`` and ``convert_all`` rewrite; the names are tables with sources (``data/kernels``).
"""

from __future__ import annotations

from sapper.port.kernels.convert import Converted, convert, convert_all
from sapper.port.kernels.left import Left
from sapper.port.kernels.tables import STACKS, Stack

__all__ = ["STACKS", "Converted", "Left", "Stack", "convert", "convert_all"]
