"""Capacity: how many chips the weights alone take, which can be said where nothing is known of the links between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sapper.chips.derived import number
from sapper.chips.schema import Chip
from sapper.predict.serve.candidates import with_weights
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.memory import UTILISATION, weights_bytes
from sapper.predict.serve.parts import parts_of
from sapper.predict.serve.plan import ServePlan


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The fewest chips of a kind whose memory holds a model's weights once, in the smallest of the dtypes allowed."""

    chips: int
    weights_dtype: str
    weights_bytes: float
    chip_bytes: float
    """Of one chip's memory, what an engine takes."""


def capacity_of(job: ServeJob, chip: Chip, *, weights: Sequence[str]) -> Capacity | None:
    """Chips = weights / (memory of a chip x :data:`UTILISATION`), rounded up; None where the memory is not known."""
    memory_bytes = number(chip.memory.capacity_bytes)
    if not memory_bytes:
        return None
    parts, whole = parts_of(job.model), ServePlan()
    size_bytes, dtype = min((weights_bytes(with_weights(job, name), parts, whole), name) for name in weights)
    chip_bytes = UTILISATION * memory_bytes
    return Capacity(chips=math.ceil(size_bytes / chip_bytes), weights_dtype=dtype, weights_bytes=size_bytes, chip_bytes=chip_bytes)
