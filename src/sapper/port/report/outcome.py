"""A scan brought together with targets, choice and baseline; every report is made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from sapper.errors import UnknownName
from sapper.port import baseline as baselines
from sapper.port.baseline import Baseline
from sapper.port.finding import Scan
from sapper.port.report.document import document, encoded
from sapper.port.report.judged import CLASSES, STANDINGS, Choice, Judged, judge, prefixes, tying
from sapper.port.report.junit import junit
from sapper.port.report.sarif import sarif
from sapper.port.report.summary import Summary, summarised
from sapper.port.rule import rules
from sapper.port.target import Target, find, targets


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan comes to."""

    scan: Scan
    targets: tuple[Target, ...]
    found: tuple[Judged, ...]
    """What is wanted and no baseline knows, in the order in which it matters."""
    known: int | None
    """Findings that the baseline has; None without a baseline."""
    summary: Summary

    @property
    def ties(self) -> int:
        """How many make the exit code 1."""
        return len(tying(self.found))


def outcome(scan: Scan, to: Sequence[Target], *, choice: Choice | None = None, baseline: Baseline | None = None) -> Outcome:
    """``scan`` judged for the targets ``to``."""
    known = None
    kept = scan
    if baseline is not None:
        new, old, _ = baselines.split(scan.findings, baseline)
        known, kept = len(old), msgspec.structs.replace(scan, findings=tuple(new))
    found = judge(kept, to, choice=choice)
    return Outcome(scan=scan, targets=tuple(to), found=found, known=known, summary=summarised(scan, found, to))


def as_json(result: Outcome) -> str:
    """The whole as JSON (:mod:`~sapper.port.report.document`)."""
    return encoded(document(result.scan, result.found, result.targets, summary=result.summary, known=result.known))


def as_sarif(result: Outcome) -> str:
    """The whole as SARIF 2.1.0."""
    log = sarif(result.scan, result.found, baselined=result.known is not None)
    return json.dumps(log, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_junit(result: Outcome) -> str:
    """The whole as JUnit XML."""
    return junit(result.scan, result.found)


def wanted_targets(given: Sequence[str]) -> tuple[Target, ...]:
    """The targets that ``--to`` names, none twice; all where it names none.

    Raises:
        UnknownName: SP-SCAN-001.
    """
    names = [word for one in given for word in one.split(",") if word.strip()]
    return tuple(dict.fromkeys(map(find, names))) if names else tuple(targets().values())


def wanted(*, select: Sequence[str], ignore: Sequence[str], classes: Sequence[str], standings: Sequence[str]) -> Choice:
    """The choice that the flags make, each word checked.

    Raises:
        UnknownName: A code that no rule begins with, or no class or standing.
    """
    return Choice(
        select=_codes(select), ignore=_codes(ignore), classes=_words("class", classes, CLASSES),
        standings=_words("standing", standings, STANDINGS),
    )  # fmt: skip


def _codes(given: Sequence[str]) -> tuple[str, ...]:
    found = prefixes(given)
    for prefix in found:
        if not any(code.startswith(prefix) for code in rules()):
            raise UnknownName("SP-SCAN-002", name=prefix, near=", ".join(f"`{code}`" for code in list(rules())[:3]))
    return found


def _words(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    words = tuple(word.strip().lower() for one in given for word in one.split(",") if word.strip())
    for word in words:
        if word not in known:
            raise UnknownName("SP-SCAN-004", where=f"--{what}", name=word, known=", ".join(f"`{one}`" for one in known))
    return words
