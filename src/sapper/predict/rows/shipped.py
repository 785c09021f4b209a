"""The measurement files that ship with the package, by name."""

from __future__ import annotations

import functools
from importlib import resources

from sapper.predict.rows.read import Rows, read_rows

SHIPPED = ("training", "training_bulk", "inference", "inference_bulk")
"""Files of ``predict/data``; docs/validation.md says what each holds. ``flagperf.jsonl.gz`` beside them has columns of its own."""


def shipped_path(name: str) -> str:
    """Where the file ``name`` of :data:`SHIPPED` lies."""
    return str(resources.files("sapper.predict").joinpath("data", f"{name}.jsonl.gz"))


@functools.cache
def shipped_rows(name: str) -> Rows:
    """The rows of the file ``name`` of :data:`SHIPPED`."""
    return read_rows(shipped_path(name))
