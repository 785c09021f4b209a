"""The scan as SARIF 2.1.0 (OASIS), which code hosts and editors show beside the code.

Silent couplings are errors, loud ones warnings, what is explained is a note; ``# sapper: keep`` is a suppression in source.
The verdicts of all targets stand in the result's property bag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sapper import __version__, messages
from sapper.port.baseline import fingerprint
from sapper.port.finding import Place, Scan, Unread
from sapper.port.report.judged import Judged
from sapper.port.report.rulepage import markdown, title
from sapper.port.report.text import heading, in_words
from sapper.port.rule import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(scan: Scan, found: Sequence[Judged], *, baselined: bool = False) -> dict[str, Any]:
    """The log as plain values, in the language in force.

    Args:
        scan: Where the findings are from.
        found: The findings that are wanted.
        baselined: Whether a baseline was given: what is left is then ``new`` by its ``baselineState``.
    """
    rules = {one.rule.code: one.rule for one in found}
    index = {code: number for number, code in enumerate(sorted(rules))}
    run = {
        "tool": {"driver": _driver([rules[code] for code in index])},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"uri": _folder(scan.root)}},
        "language": "zh-CN" if messages.language() == "zh" else "en-US",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": [_notice(one) for one in scan.unread]}],
        "results": [_result(one, index[one.rule.code], baselined=baselined) for one in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _driver(rules: Iterable[Rule]) -> dict[str, Any]:
    return {
        "name": "Sapper", "version": __version__, "semanticVersion": __version__, "rules": [_rule(rule) for rule in rules],
    }  # fmt: skip


def _rule(rule: Rule) -> dict[str, Any]:
    words = rule.words()
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": title(rule)},
        "fullDescription": {"text": " ".join(words.what.split())},
        "help": {"text": " ".join(words.why.split()), "markdown": markdown(rule, messages.language())},
        "defaultConfiguration": {"level": "error" if rule.silent else "warning"},
        "properties": {"tags": [rule.klass], "fix": rule.fix, "silent": rule.silent},
    }


def _result(one: Judged, index: int, *, baselined: bool) -> dict[str, Any]:
    finding = one.finding
    result: dict[str, Any] = {
        "ruleId": finding.code, "ruleIndex": index, "kind": "fail" if finding.standing == "ties" else "informational",
        "level": _level(one), "message": {"text": f"{heading(one)}\n{in_words(one.cells)}"}, "locations": [_location(finding.place)],
        "partialFingerprints": {"sapperPort/v1": fingerprint(finding)},
        "properties": {
            "class": one.rule.klass, "standing": finding.standing, "context": finding.context, "symbol": finding.symbol,
            "verdicts": {name: {"status": cell.status, "silence": cell.silence, "source": cell.source} for name, cell in one.cells.items()},
        },
    }  # fmt: skip
    if finding.because:
        path, _, line = finding.because.rpartition(":")
        if path and line.isdigit():
            result["relatedLocations"] = [_location(Place(path=path, line=int(line), column=0, end_line=int(line), end_column=0))]
    if finding.standing == "kept":
        result["suppressions"] = [{"kind": "inSource"}]
    if baselined:
        result["baselineState"] = "new"
    return result


def _level(one: Judged) -> str:
    if one.finding.standing != "ties":
        return "none"
    return "error" if one.quiet else "warning"


def _location(place: Place) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(place.path), "uriBaseId": "SRCROOT"}}
    if place.cell is not None:
        # Lines count inside the cell, and SARIF's inside the file: the cell is a place of its own.
        return {"physicalLocation": physical, "logicalLocations": [{"name": f"cell {place.cell}, line {place.line}", "kind": "module"}]}
    region = {"startLine": place.line}
    if (place.line, place.column) != (place.end_line, place.end_column):
        region |= {"startColumn": place.column + 1, "endLine": place.end_line, "endColumn": place.end_column + 1}
    return {"physicalLocation": {**physical, "region": region}}


def _notice(unread: Unread) -> dict[str, Any]:
    where: dict[str, Any] = {"artifactLocation": {"uri": quote(unread.path), "uriBaseId": "SRCROOT"}}
    if unread.line is not None:
        where["region"] = {"startLine": unread.line}
    return {
        "level": "warning", "descriptor": {"id": unread.code}, "message": {"text": messages.text(unread.code, **unread.values)},
        "locations": [{"physicalLocation": where}],
    }  # fmt: skip


def _folder(root: str) -> str:
    """The scanned folder as a URI, which SARIF wants to end in a slash."""
    path = Path(root).absolute()
    uri = (path if path.is_dir() else path.parent).as_uri()
    return uri if uri.endswith("/") else f"{uri}/"
