"""Row: one published measurement as it stands in a file, checked field by field.

The schema is that of the measurement files that ship (docs/validation.md lists every field). Fields that we do not know
are left alone: a row may carry more than we read. Absent and null mean the same: the source does not say.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from sapper import messages
from sapper.errors import SapperError

T = TypeVar("T")


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be turned into a question, or a question that could not be answered, and why."""

    row_id: str | None
    code: str
    field: str | None = None
    """The missing or faulty field, such as ``model.layers``; None where no single field is to blame."""
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    line: int | None = None
    """Line of the file, where the fault is the line's."""
    path: str | None = None
    """The file, where several were read."""

    @property
    def text(self) -> str:
        """The reason in the language in force."""
        return messages.text(self.code, **self.values)

    @classmethod
    def because(cls, error: SapperError, *, row_id: str | None, field: str | None = None, line: int | None = None) -> Refused:
        """The refusal that ``error`` of a lower layer amounts to."""
        return cls(row_id=row_id, code=error.code, field=field or _field_of(error), values=dict(error.values), line=line)


class RowFault(Exception):
    """Carries a :class:`Refused` out of nested checks; never leaves this package."""

    def __init__(self, code: str, /, field: str | None = None, **values: Any) -> None:
        self.code = code
        self.field = field
        self.values = values if field is None else {"field": field, **values}
        super().__init__(code)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What the row says of the model."""

    name: str
    arch: str = "dense"
    params_b: float | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    vocab: int | None = None
    seq_len: int | None = None
    experts: int | None = None
    topk: int | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One published measurement."""

    id: str
    source: str
    chip: str
    chip_id: str | None = None
    stated_chips: int | None = None
    """``n_chips`` of the file; None where an inference row does not say (a hosted API, an unnamed number of workers)."""
    model: Model
    global_batch: int | None = None
    micro_batch: float | None = None
    batch: float | None = None
    """Inference: sequences that are served at a time; a server's mean may be a fraction."""
    input_len: float | None = None
    """Tokens of a prompt; a mean may be a fraction, as may ``output_len``."""
    output_len: float | None = None
    parallel: dict[str, int] = msgspec.field(default_factory=dict)
    precision: str | None = None
    recompute: str | None = None
    framework: str | None = None
    phase: str | None = None
    metric: str
    value: float
    unit: str
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    confidence: str = "medium"
    note: str = ""
    url: str | None = None
    ref: str | None = None
    date: datetime.date | None = None
    """When it was measured; never in the future."""

    def number(self, key: str) -> float | None:
        """A number of :attr:`extra`, greater than 0 and finite; None where there is none, whatever stands there instead."""
        value = self.extra.get(key)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e12 else None

    @property
    def n_chips(self) -> int:
        """Chips of the whole job.

        Raises:
            RowFault: The row does not say.
        """
        return required(self.stated_chips, "n_chips")

    @property
    def kind(self) -> Kind:
        """Whether the row is of training or of inference."""
        return kind_of(self.phase, self.metric)


Kind = Literal["training", "inference"]
TRAINING_PHASES = ("train", "training", "pretrain", "finetune")
INFERENCE_METRICS = re.compile(r"tpot|ttft|itl|e2e|latency|output|prefill|decode|per_user|per_request")
"""Words of metrics that only inference has, for rows that name no phase."""


def kind_of(phase: str | None, metric: str) -> Kind:
    """The kind of a row, by its phase; where it names none, by its metric."""
    if phase is not None:
        return "training" if phase.lower() in TRAINING_PHASES else "inference"
    return "inference" if INFERENCE_METRICS.search(metric) else "training"


CONFIDENCES = ("high", "medium", "low", "suspect")
DEGREES = ("tp", "pp", "dp", "ep", "cp", "vpp", "zero")

_MOST = {"layers": 10_000, "heads": 10_000, "kv_heads": 10_000, "experts": 100_000, "topk": 100_000}
_MOST_ANY = 10**8
"""No width, vocabulary, context, batch or cluster of anybody is larger; beyond it is a slip of the keyboard."""


def row_of(obj: Mapping[str, Any]) -> Row:
    """The row that a parsed line holds.

    Raises:
        RowFault: A field that is missing, of the wrong type, or beyond all use.
    """
    confidence = text(obj, "confidence") or "medium"
    if confidence not in CONFIDENCES:
        raise RowFault("SP-ROW-003", "confidence", value=confidence, allowed=", ".join(CONFIDENCES))
    extra = dict(table(obj, "extra") or {})
    metric, phase = required(text(obj, "metric"), "metric"), text(obj, "phase")
    return Row(
        id=required(text(obj, "id"), "id"),
        source=required(text(obj, "source"), "source"),
        chip=text(obj, "chip") or required(text(obj, "chip_id"), "chip"),
        chip_id=text(obj, "chip_id"),
        stated_chips=_chips(obj, kind_of(phase, metric)),
        model=_model(required(table(obj, "model"), "model")),
        global_batch=count(obj, "global_batch"),
        micro_batch=number(obj, "micro_batch"),
        batch=number(obj, "batch"),
        input_len=number(obj, "input_len"),
        output_len=number(obj, "output_len"),
        parallel=_degrees(table(obj, "parallel") or {}),
        precision=text(obj, "precision"),
        recompute=text(obj, "recompute"),
        framework=text(obj, "framework"),
        phase=phase,
        metric=metric,
        value=required(number(obj, "value"), "value"),
        unit=required(text(obj, "unit"), "unit"),
        extra=extra,
        confidence=confidence,
        note=text(obj, "note") or "",
        url=text(obj, "url"),
        ref=text(obj, "ref"),
        date=_date(obj, "date") or _date(extra, "measured", prefix="extra."),
    )


def _chips(obj: Mapping[str, Any], kind: Kind) -> int | None:
    """Chips of the job. Training rows must say; of an inference row 0 is what sources write that do not know."""
    if kind == "training":
        return required(count(obj, "n_chips"), "n_chips")
    return None if obj.get("n_chips") in (None, 0) else count(obj, "n_chips")


_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ].*)?")


def _date(obj: Mapping[str, Any], name: str, *, prefix: str = "") -> datetime.date | None:
    """A day such as ``2026-04-18`` (a time after it is left out); refused in the future, a day of time zones allowed."""
    written = text(obj, name, prefix=prefix)
    if written is None:
        return None
    found = _DAY.fullmatch(written)
    try:
        day = datetime.date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        day = None
    if day is None:
        raise RowFault("SP-ROW-002", prefix + name, expected=messages.Phrase("row.type.date"), value=_shown(written))
    today = datetime.datetime.now(datetime.UTC).date()
    if day > today + datetime.timedelta(days=1):
        raise RowFault("SP-ROW-023", prefix + name, value=day.isoformat(), today=today.isoformat())
    return day


def _model(found: Mapping[str, Any]) -> Model:
    sizes = {name: count(found, name, prefix="model.", most=_MOST.get(name, _MOST_ANY)) for name in (
        "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "seq_len", "experts", "topk")}
    return Model(
        name=text(found, "name", prefix="model.") or "?",
        arch=text(found, "arch", prefix="model.") or "dense",
        params_b=number(found, "params_b", prefix="model.") if found.get("params_b") is not None else None,
        **sizes,
    )


def _degrees(found: Mapping[str, Any]) -> dict[str, int]:
    """Degrees that the row names; ``dp: 0`` is kept, since it says that the source's own figures do not multiply."""
    return {name: whole(found[name], f"parallel.{name}", least=0) for name in DEGREES if found.get(name) is not None}


def required(value: T | None, field: str) -> T:
    """``value``, or the refusal that names ``field``."""
    if value is None:
        raise RowFault("SP-ROW-001", field)
    return value


def text(obj: Mapping[str, Any], name: str, *, prefix: str = "") -> str | None:
    """A string field; None where absent, null or empty."""
    value = obj.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise RowFault("SP-ROW-002", prefix + name, expected=messages.Phrase("row.type.string"), value=_shown(value))
    if any("\ud800" <= character <= "\udfff" for character in value):  # half a surrogate pair can be printed nowhere
        raise RowFault("SP-ROW-002", prefix + name, expected=messages.Phrase("row.type.string"), value=ascii(value)[:40])
    return value.strip() or None


def table(obj: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A table field; None where absent or null."""
    value = obj.get(name)
    if value is None or isinstance(value, Mapping):
        return value
    raise RowFault("SP-ROW-002", name, expected=messages.Phrase("row.type.table"), value=_shown(value))


def number(obj: Mapping[str, Any], name: str, *, prefix: str = "") -> float | None:
    """A positive finite number; None where absent or null."""
    value = obj.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowFault("SP-ROW-002", prefix + name, expected=messages.Phrase("row.type.number"), value=_shown(value))
    if not 0 < value < 1e18:  # nan and infinities fail this too
        raise RowFault("SP-ROW-003", prefix + name, value=_shown(value), allowed="> 0, < 1e18")
    return float(value)


def count(obj: Mapping[str, Any], name: str, *, prefix: str = "", most: int = _MOST_ANY) -> int | None:
    """A whole number from 1; None where absent or null."""
    return None if obj.get(name) is None else whole(obj[name], prefix + name, least=1, most=most)


def whole(value: Any, field: str, *, least: int, most: int = _MOST_ANY) -> int:
    """``value`` as a whole number in [least, most]; 8.0 is 8."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowFault("SP-ROW-002", field, expected=messages.Phrase("row.type.whole"), value=_shown(value))
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise RowFault("SP-ROW-002", field, expected=messages.Phrase("row.type.whole"), value=_shown(value))
    if not least <= value <= most:
        raise RowFault("SP-ROW-003", field, value=_shown(value), allowed=f"{least} - {most}")
    return int(value)


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "..."
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _field_of(error: SapperError) -> str | None:
    for key in ("field", "missing", "where"):
        value = error.values.get(key)
        if isinstance(value, str):
            return value
    return error.where
