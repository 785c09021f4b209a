"""The tables of a proof's page."""

from __future__ import annotations

from collections.abc import Sequence

from sapper import messages, units
from sapper.backends.checkup import NOMINAL_BITS, Checkup
from sapper.dossier.cells import Cell, Table, head, words
from sapper.dossier.proof.charts.scale import shown
from sapper.dossier.proof.summary import Found, Report
from sapper.dossier.proof.wording import first_line, limit_of, value_of
from sapper.prove.speed.result import OpSpeed, Speed
from sapper.prove.words import blame, outcome

MOST_OPS = 40
"""Ops in the table of speed, those that take most of the step."""
MOST_FOUND = 40
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO} "


def _word(code: str, lang: str) -> str:
    return messages.text(f"proof.{code}", lang)


def _header(lang: str, *names: str) -> tuple[str, ...]:
    return tuple(_word(f"column.{name}", lang) for name in names)


def pass_items(report: Report, lang: str) -> Table:
    """Pass-type items."""
    rows = tuple(
        (
            head(_word(f"check.{one.part}.{one.name}", lang)),
            Cell(text=messages.text(f"dossier.word.{one.answer}", lang), kind=one.answer), words(_word(f"part.{one.part}", lang)),
        )
        for one in report.checks if one.type == "pass"
    )  # fmt: skip
    return Table(name="pass", header=_header(lang, "item", "answer", "part"), rows=rows)


def quantified_items(report: Report, lang: str) -> Table:
    """Quantified items."""
    rows = tuple(
        (
            head(_word(f"check.{one.part}.{one.name}", lang)), Cell(text=value_of(one, lang)), Cell(text=limit_of(one, lang)),
            Cell(text=messages.text(f"dossier.word.{one.answer}", lang), kind=one.answer) if one.limit is not None else words(""),
            words(_word(f"part.{one.part}", lang)),
        )
        for one in report.checks if one.type == "quantified"
    )  # fmt: skip
    return Table(name="quantified", header=_header(lang, "item", "value", "limit", "answer", "part"), rows=rows)


def findings(found: Sequence[Found], lang: str) -> Table:
    """What is wrong, worst first."""
    rows = tuple(
        (
            head(f"`{one.op}`", one.where, id=f"found-{at}"), words(_word(f"part.{one.part}", lang)),
            Cell(text=outcome(one.outcome, lang), kind=f"text o-{one.outcome}"), words(blame(one.blame, lang) if one.blame else "-"),
            Cell(text=shown(one.ratio)), Cell(text=str(one.count)), words(why_of(one, lang), first_line(one.said), quoted=False),
            Cell(text=one.repro, kind="link", href=anchor(one.repro)) if one.repro else words("-"),
        )
        for at, one in enumerate(found[:MOST_FOUND])
    )  # fmt: skip
    return Table(name="found", header=_header(lang, "op", "part", "outcome", "blame", "ratio", "cases", "why", "repro"), rows=rows)


def why_of(one: Found, lang: str) -> str:
    """What decided, in a sentence."""
    return one.why.text(lang) if one.why is not None else messages.text(f"prove.meaning.{one.outcome}", lang)


def anchor(path: str) -> str:
    """Where a script stands on the page."""
    return "#repro-" + "".join(letter if letter.isalnum() else "-" for letter in path)


def speed_table(speed: Speed, lang: str) -> Table:
    """Ops by their share of the step; the colour says right and fast, right and slow, or wrong."""
    names = ["op", "calls", "time", "share", "flops", "bytes", "roof_share", "bound"]
    names += ["sheet_share", "predicted"] if speed.chip else []
    rows = tuple(_speed_row(one, speed, lang) for one in speed.ops[:MOST_OPS])
    classes = tuple(one.colour for one in speed.ops[:MOST_OPS])
    return Table(name="speed", header=_header(lang, *names, "outcome"), rows=rows, classes=classes)


def _speed_row(one: OpSpeed, speed: Speed, lang: str) -> tuple[Cell, ...]:
    timing = one.timing
    quartiles = f"{units.duration(timing.low_s)}\N{EN DASH}{units.duration(timing.high_s)}" if timing else ""
    cells = [
        head(f"`{one.op.removeprefix('aten::')}`", " ".join(dict.fromkeys(one.inputs))), Cell(text=str(one.count)),
        Cell(text=units.duration(timing.median_s) if timing else "-", sub=quartiles), Cell(text=_percent(one.step_share)),
        Cell(text=_scaled(one.flops_per_s)), Cell(text=_scaled(one.bytes_per_s)), Cell(text=_percent(one.roof_share)),
        words(messages.text(f"prove.bound.{one.bound}", lang) if one.bound else "-"),
    ]  # fmt: skip
    if speed.chip:
        expected = one.predicted
        interval = f"{units.duration(expected.low)}\N{EN DASH}{units.duration(expected.high)}" if expected else ""
        cells += [Cell(text=_percent(one.catalogue_share)), Cell(text=units.duration(expected.mid) if expected else "-", sub=interval)]
    return (*cells, Cell(text=outcome(one.outcome, lang), kind=f"text o-{one.outcome}"))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g}%"


def _scaled(value: float | None) -> str:
    return "-" if value is None else units.scaled(value, "").strip()


def precision(checkups: Sequence[Checkup], lang: str) -> Table | None:
    """Effective precision by stack and family; None where it was not measured."""
    rows: list[tuple[Cell, ...]] = []
    for one in checkups:
        for family in one.precision.families if one.precision else ():
            runs_as, width = family.downgrade(), family.accumulator_bits
            least = AT_LEAST if family.accumulator_capped else ""
            rows.append(
                (
                    head(one.name), words(family.family), words(family.dtype),
                    Cell(text="-" if family.bits is None else f"{family.bits} / {NOMINAL_BITS[family.dtype]}"),
                    Cell(text="-" if width is None else f"{least}{width}"),
                    _precision_cell(runs_as, family.narrow(), lang),
                )
            )  # fmt: skip
    if not rows:
        return None
    return Table(name="precision", header=_header(lang, "backend", "family", "dtype", "bits", "accumulator", "outcome"), rows=tuple(rows))


def _precision_cell(runs_as: str | None, narrow: bool, lang: str) -> Cell:
    if runs_as:
        return Cell(text=messages.text("proof.precision.runs_as", lang, format=runs_as), kind="fail")
    return Cell(text=_word("precision.narrow" if narrow else "precision.kept", lang), kind="fail" if narrow else "pass")


def subjects(report: Report, lang: str) -> Table:
    """What each part was run on."""
    rows = tuple(
        (
            head(_word(f"part.{one.part}", lang)), words(f"`{one.backend}`", _word("emulated", lang) if one.real is False else ""),
            words(f"`{one.target}`" if one.target else "-"), words(one.dtype or "-"), words(one.where or "-"),
            words(", ".join(f"{name} {version}" for name, version in one.versions.items()) or "-"),
            words(one.date[:10] or "-", "" if one.seed is None else messages.text("proof.seed", lang, seed=one.seed)),
        )
        for one in report.subjects
    )  # fmt: skip
    return Table(name="subjects", header=_header(lang, "part", "backend", "target", "dtype", "where", "versions", "date"), rows=rows)
