"""The scan as JSON: every finding with its verdicts, the rules that it names, the summary. The schema is in docs/port-scan.md."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from sapper import __version__, messages
from sapper.port.baseline import fingerprint
from sapper.port.finding import Context, Place, Scan, Standing, Unread, UnusedKeep
from sapper.port.report.judged import Judged
from sapper.port.report.rulepage import title
from sapper.port.report.summary import Summary
from sapper.port.rule import Class, Grade, Rule
from sapper.port.target import Target
from sapper.port.verdict import Cell, Silence, Status

FORMAT, VERSION = "sapper-port-scan", 1


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A cell of the verdict tables, its note in the language in force."""

    status: Status
    silence: Silence | None
    equivalent: str | None
    note: str | None
    source: str | None
    date: str | None
    silence_source: str | None
    silence_date: str | None


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename={"klass": "class"}):
    """A finding, flat, with what its rule and the tables say."""

    code: str
    klass: Class
    silent: bool
    """Whether it goes unnoticed on one of the targets."""
    fix: Grade
    place: Place
    symbol: str
    title: str
    """In the language in force."""
    excerpt: str
    standing: Standing
    context: Context
    because: str | None
    values: dict[str, str]
    fingerprint: str
    """As in a baseline."""
    verdicts: dict[str, Told]
    """By target."""


class RuleEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"klass": "class"}):
    """A rule that a finding names."""

    name: str
    klass: Class
    silent: bool
    fix: Grade
    title_en: str
    title_zh: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The whole."""

    format: str
    version: int
    sapper: str
    root: str
    targets: dict[str, Target]
    summary: Summary
    by_language: dict[str, int]
    """Lines by language."""
    findings: tuple[Entry, ...]
    """Silent ones first, then by place; what is explained last."""
    unread: tuple[Unread, ...]
    unused_keeps: tuple[UnusedKeep, ...]
    known: int | None
    """Findings left out because the baseline has them; null without a baseline."""
    rules: dict[str, RuleEntry]


def document(scan: Scan, found: Sequence[Judged], targets: Sequence[Target], *, summary: Summary, known: int | None = None) -> Document:
    """The JSON of a scan as a struct."""
    rules = {one.rule.code: one.rule for one in found}
    return Document(
        format=FORMAT, version=VERSION, sapper=__version__, root=scan.root, targets={target.name: target for target in targets},
        summary=summary, by_language=scan.by_language, findings=tuple(map(_entry, found)), unread=scan.unread,
        unused_keeps=scan.unused_keeps, known=known, rules={code: _rule(rules[code]) for code in sorted(rules)},
    )  # fmt: skip


def _entry(one: Judged) -> Entry:
    finding = one.finding
    return Entry(
        code=finding.code, klass=one.rule.klass, silent=one.quiet is not None, fix=one.rule.fix, place=finding.place, symbol=finding.symbol,
        title=title(one.rule, of=finding.symbol), excerpt=finding.excerpt, standing=finding.standing, context=finding.context,
        because=finding.because, values=finding.values, fingerprint=fingerprint(finding),
        verdicts={name: _told(cell, messages.language()) for name, cell in one.cells.items()},
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _told(cell: Cell, lang: str) -> Told:
    return Told(
        status=cell.status, silence=cell.silence, equivalent=cell.equivalent, note=cell.note_zh if lang == "zh" else cell.note_en,
        source=cell.source, date=cell.date, silence_source=cell.silence_source, silence_date=cell.silence_date,
    )  # fmt: skip


def _rule(rule: Rule) -> RuleEntry:
    return RuleEntry(
        name=rule.name, klass=rule.klass, silent=rule.silent, fix=rule.fix, title_en=rule.en.title, title_zh=rule.zh.title
    )  # fmt: skip


def encoded(doc: Document) -> str:
    """The JSON, one field and one finding on a line each: a big tree has thousands, and lines can be searched and compared."""
    fields = []
    for name in doc.__struct_fields__:
        value = getattr(doc, name)
        if name == "findings":
            inner = ",\n  ".join(msgspec.json.encode(one).decode("utf-8") for one in value)
            text = f"[\n  {inner}\n ]" if value else "[]"
        else:
            text = msgspec.json.encode(value).decode("utf-8")
        fields.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(fields) + "\n}\n"
