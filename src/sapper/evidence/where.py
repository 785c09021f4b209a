"""Where the store is: the flag ``--store``, the environment variable ``SAPPER_STORE``, or a file among the user's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ENVIRONMENT = "SAPPER_STORE"
FILE_NAME = "evidence.db"


def store_url(given: str | None = None) -> str:
    """The URL or path of the store: ``given``, else the environment's, else :func:`default_path`."""
    return given or os.environ.get(ENVIRONMENT) or str(default_path())


def default_path() -> Path:
    """The file of the user's own store, in the folder where the system keeps the data of programs."""
    return _data_folder() / "sapper" / FILE_NAME


def _data_folder() -> Path:
    named = os.environ.get("XDG_DATA_HOME")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path.home() / ".local" / "share"
