"""Record: one measurement as evidence, with the id that its content gives it. docs/evidence.md describes the format."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from sapper.evidence.canonical import canonical
from sapper.evidence.fact import Grade

Kind = Literal[
    "matmul", "memory-copy", "memory-read", "attention", "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "p2p",
    "launch", "clock", "power", "training-step", "training-run", "serving-run",
]  # fmt: skip
"""What was run."""

Status = Literal["ok", "unsupported", "failed", "withdrawn"]
"""``ok``: there is a value. ``unsupported``: the stack refuses the case, ``failed``: it broke on it; both are facts about
the chip's software and have no value. ``withdrawn``: a correction that takes the superseded record back."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One measured value of a chip (or device) and what vouches for it.

    Equal content is one record: :attr:`id` is the SHA-256 of the canonical JSON of the fields.
    """

    kind: Kind
    metric: str
    """The quantity: one of :data:`sapper.evidence.quantities.QUANTITIES`; in runs the metric of the measurement row."""
    value: float | None = None
    """In ``unit``; None exactly where ``status`` is not ``ok``."""
    unit: str
    """The base unit of the quantity (flop/s, bytes/s, s, ...); in runs the unit of the measurement row."""
    low: float | None = None
    """First quartile over the repeats, in ``unit``."""
    high: float | None = None
    """Third quartile over the repeats, in ``unit``."""
    status: Status = "ok"
    chip: str | None = None
    """Catalogue id, or the name of a chip of the user's own."""
    device: str | None = None
    """The name that the machine itself reports."""
    stack: str | None = None
    """Software: framework, plugin and driver with their versions."""
    dtype: str | None = None
    """As the catalogue spells dtypes: fp32, tf32, bf16, fp16, fp8, int8, ..."""
    conditions: dict[str, Any] = msgspec.field(default_factory=dict)
    """Shapes and circumstances, by kind: docs/evidence.md lists which each kind must have."""
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    """The measurement row of a ``training-run`` or ``serving-run``, in the schema of docs/validation.md."""
    source: str
    date: str
    """Day of the measurement, ISO."""
    grade: Grade
    supersedes: str | None = None
    """Id of the record that this one corrects."""
    note: str | None = None

    @property
    def id(self) -> str:
        """SHA-256 of :attr:`body`, in hexadecimal."""
        return identity(self.body)

    @property
    def body(self) -> str:
        """The fields as canonical JSON; those that say nothing are left out."""
        return canonical(msgspec.to_builtins(self))

    @property
    def line(self) -> str:
        """The line of an evidence file: :attr:`body` with the id among its keys, in canonical JSON."""
        return canonical({**msgspec.to_builtins(self), "id": self.id})


def identity(body: str) -> str:
    """The id of a record whose canonical JSON is ``body``."""
    return hashlib.sha256(body.encode("utf-8")).hexdigest()


def record_of(body: str) -> Record:
    """The record that a stored ``body`` holds.

    Raises:
        msgspec.ValidationError: It holds none.
    """
    return msgspec.json.decode(body, type=Record)
