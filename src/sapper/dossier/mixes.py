"""The section on options of unlike chips: whether mixing helps, beside the reference."""

from __future__ import annotations

from sapper import messages, units
from sapper.assess.assessment import Assessment
from sapper.assess.conclude import job_scale_s
from sapper.assess.mixed import Mixed
from sapper.assess.text import percent
from sapper.dossier.cells import Cell, Table, head, interval, unknown, word, words

_COLUMNS = ("mixed", "mixed_time", "time_ratio", "mixed_gain", "mixed_gap", "mixed_alone", "mixed_said")


def table(assessment: Assessment, lang: str) -> Table:
    """A row for each mixed cluster."""
    factor, key = job_scale_s(assessment)
    unit = messages.text(f"assess.unit.{key}", lang)
    header = tuple(word(f"column.{name}", lang, unit=unit) for name in _COLUMNS)
    return Table(name="mixed", header=header, rows=tuple(_row(one, factor, lang) for one in assessment.mixed))


def _row(one: Mixed, factor: float, lang: str) -> tuple[Cell, ...]:
    first = head(one.label, word("mixed_chips", lang, used=one.used, chips=one.chips) if one.used else "")
    said = one.said.get(lang, "")
    if one.job_time is None:
        return (first, Cell(text=said, kind="refusal", span=len(_COLUMNS) - 1))
    nowhere = word("mixed_nowhere", lang)
    each = "\n".join(f"{name}: {nowhere if step_s is None else units.duration(step_s)}" for name, step_s in one.alone_s.items())
    return (
        first, interval(one.job_time, lang, factor=factor), interval(one.time_ratio, lang) if one.time_ratio else unknown(lang),
        unknown(lang) if one.gain_share is None else Cell(text=percent(one.gain_share)),
        unknown(lang) if one.gap_share is None else Cell(text=percent(one.gap_share)), words(each), words(said, one.plan),
    )  # fmt: skip
