"""The file of results: one JSON object a line, on the disk before the next measurement begins, chained by checks."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

FORMAT = 1


class Lines:
    """Appends lines; each carries the SHA-256 of the check before it and of its own text."""

    def __init__(self, path: str) -> None:
        # A new file always: results of another run are nobody's to overwrite.
        self.path = path
        self._file = open(path, "x", encoding="utf-8", newline="\n")  # noqa: SIM115 - open as long as the probe runs
        self._check = ""
        self._seq = 0

    def write(self, fields: dict[str, Any]) -> None:
        """Append ``fields`` and wait until the disk has them."""
        text = json.dumps({"sapper_probe": FORMAT, "seq": self._seq, **fields})[:-1]
        self._check = hashlib.sha256((self._check + text).encode("utf-8")).hexdigest()
        self._file.write(f'{text}, "check": "{self._check}"}}\n')
        self._file.flush()
        os.fsync(self._file.fileno())
        self._seq += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def results(self) -> int:
        """Lines after the first."""
        return self._seq - 1
