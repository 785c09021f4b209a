"""Dossier: an Assessment as self-contained pages in English and Chinese."""

from __future__ import annotations

from sapper.dossier.page import page
from sapper.dossier.write import write_dossier

__all__ = ["page", "write_dossier"]
