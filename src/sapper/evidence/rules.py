"""Whether a record is sound in itself: fields, units, numbers, dates. What the catalogue says comes after (limits)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

from sapper import units
from sapper.errors import BadValue
from sapper.evidence.fact import GRADES
from sapper.evidence.quantities import KINDS, QUANTITIES, ROW_NEEDS, RULES, RUNS, measures
from sapper.evidence.record import Record, Status

_CHOICES: dict[str, tuple[str, ...]] = {"kind": KINDS, "grade": GRADES, "status": get_args(Status)}
_ID = re.compile(r"[0-9a-f]{64}")


def check_choices(obj: Mapping[str, Any]) -> None:
    """Refuse a kind, grade or status that is none, naming those that are.

    Raises:
        BadValue: With the field.
    """
    for field, known in _CHOICES.items():
        value = obj.get(field)
        if isinstance(value, str) and value not in known:
            raise BadValue("SP-EVID-030", field=field, value=value, known=", ".join(known))


def in_base_units(obj: Mapping[str, Any]) -> dict[str, Any]:
    """``obj`` with value, low and high in the base unit of its metric: ``312`` of ``TFLOP/s`` is ``3.12e14`` of ``flop/s``.

    Left as it is where metric or unit are not such as we know; :func:`check` then says so.

    Raises:
        BadValue: A unit that does not measure the metric.
    """
    base, unit = QUANTITIES.get(str(obj.get("metric"))), obj.get("unit")
    if base is None or not isinstance(unit, str) or unit == base or obj.get("kind") in RUNS:
        return dict(obj)
    dimension, factor = units.UNITS.get(unit, (None, 1.0))
    if dimension != base:
        raise BadValue("SP-EVID-031", metric=obj["metric"], unit=unit, base=base)
    numbers = {key: obj[key] * factor for key in ("value", "low", "high") if isinstance(obj.get(key), (int, float))}
    return {**obj, **numbers, "unit": base}


def check(record: Record) -> None:
    """Refuse a record that contradicts itself or leaves out what its kind needs.

    Raises:
        BadValue: With the field and what is wrong with it.
    """
    if not record.chip and not record.device:
        raise BadValue("SP-EVID-032", field="chip")
    _check_text(record)
    _check_numbers(record)
    _check_date(record.date)
    if record.supersedes is not None and not _ID.fullmatch(record.supersedes):
        raise BadValue("SP-EVID-038", value=record.supersedes)
    if record.kind in RUNS:
        _check_run(record)
    else:
        _check_measurement(record)


def _check_text(record: Record) -> None:
    for field in ("source", "chip", "device"):
        text = getattr(record, field)
        if text is not None and not text.strip():
            raise BadValue("SP-EVID-032", field=field)


def _check_numbers(record: Record) -> None:
    if (record.value is None) != (record.status != "ok"):
        raise BadValue("SP-EVID-032" if record.value is None else "SP-EVID-034", field="value", status=record.status)
    if record.status == "withdrawn" and record.supersedes is None:
        raise BadValue("SP-EVID-032", field="supersedes")
    for field in ("value", "low", "high"):
        number = getattr(record, field)
        if number is not None and not (math.isfinite(number) and number > 0):
            raise BadValue("SP-EVID-033", field=field, value=number)
    if record.low is not None and record.high is not None and record.low > record.high:
        raise BadValue("SP-EVID-035", low=record.low, high=record.high)


def _check_date(text: str) -> None:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise BadValue("SP-EVID-036", value=text) from error
    if text != day.isoformat():
        raise BadValue("SP-EVID-036", value=text)
    # Somewhere it is already tomorrow: no clock on earth is further ahead of UTC.
    if day > (datetime.now(UTC) + timedelta(hours=14)).date():
        raise BadValue("SP-EVID-037", value=text)


def _check_measurement(record: Record) -> None:
    rule = RULES[record.kind]
    if record.metric not in rule.metrics:
        raise BadValue("SP-EVID-030", field="metric", value=record.metric, known=", ".join(rule.metrics))
    if record.unit != QUANTITIES[record.metric]:
        raise BadValue("SP-EVID-031", metric=record.metric, unit=record.unit, base=QUANTITIES[record.metric])
    if rule.dtype and not record.dtype:
        raise BadValue("SP-EVID-032", field="dtype")
    for name in rule.needs:
        if record.conditions.get(name) is None:
            raise BadValue("SP-EVID-032", field=f"conditions.{name}")
    for name in ("m", "n", "k", "bytes", "message_bytes", "devices"):
        number = record.conditions.get(name)
        if number is not None and not (isinstance(number, (int, float)) and math.isfinite(number) and number >= 1):
            raise BadValue("SP-EVID-033", field=f"conditions.{name}", value=number)


def _check_run(record: Record) -> None:
    """A run is its measurement row; metric, value and unit stand beside it for whoever lists and chooses."""
    if record.status != "ok":
        return
    for name in ROW_NEEDS:
        if record.payload.get(name) is None:
            raise BadValue("SP-EVID-032", field=f"payload.{name}")
    for name in ("metric", "value", "unit"):
        if record.payload[name] != getattr(record, name):
            raise BadValue("SP-EVID-039", field=name, value=getattr(record, name), other=record.payload[name])
    if not measures(record.unit, record.metric):
        raise BadValue("SP-EVID-043", metric=record.metric, unit=record.unit)
