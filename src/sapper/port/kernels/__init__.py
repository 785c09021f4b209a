"""Kernels: which need more than a rename, with the lines, and what a rename does for MUSA and HIP.

``convert_tree`` rewrites a project, ``convert`` one file; the names are tables with sources (``data/kernels``).
"""

from __future__ import annotations

from sapper.port.kernels.convert import Converted, convert
from sapper.port.kernels.left import Left
from sapper.port.kernels.tables import STACKS, Stack
from sapper.port.kernels.tree import Project, convert_all, convert_tree
from sapper.port.kernels.triage import Survey, Triage, consequence, survey, triage

__all__ = [
    "STACKS",
    "Converted",
    "Left",
    "Project",
    "Stack",
    "Survey",
    "Triage",
    "consequence",
    "convert",
    "convert_all",
    "convert_tree",
    "survey",
    "triage",
]
