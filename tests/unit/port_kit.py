"""Findings, verdicts and scans made by hand, for tests of reports that shall not depend on what the rules find."""

from __future__ import annotations

from typing import Any

from sapper.port.finding import Finding, Place, Scan, UnusedKeep
from sapper.port.report.judged import Judged, rank
from sapper.port.report.outcome import Outcome
from sapper.port.report.summary import summarised
from sapper.port.rule import Match, Rule, Words
from sapper.port.target import find
from sapper.port.verdict import UNKNOWN, Cell

SHIM = Cell(status="shim", silence="silent", source="https://example.org/shim", date="2026-11-26", note_en="by name", note_zh="按名称")
LOUD = Cell(status="rewrite", silence="loud", equivalent="torch.accelerator", source="https://example.org/rewrite", date="2026-11-26")


def rule(code: str = "SP-PORT-101", **fields: Any) -> Rule:
    words = Words(title="`{symbol}` asks for NVIDIA", what="What.", why="Why.")
    chinese = Words(title="`{symbol}` 只问 NVIDIA", what="内容。", why="原因。")
    given: dict[str, Any] = {"name": "a-rule", "klass": "device", "silent": False, "fix": "safe", "match": Match()}
    return Rule(code=code, en=words, zh=chinese, **(given | fields))


def finding(code: str = "SP-PORT-101", *, path: str = "train.py", line: int = 3, column: int = 4, **fields: Any) -> Finding:
    given: dict[str, Any] = {"symbol": "torch.cuda.is_available", "excerpt": "if (torch.cuda.is_available()):"}
    given |= fields
    place = Place(path, line, column, line, column + len(given["symbol"]), given.pop("cell", None))
    return Finding(code=code, place=place, **given)


def judged(one: Finding | None = None, *, of: Rule | None = None, **cells: Cell) -> Judged:
    one = one or finding()
    return Judged(finding=one, rule=of or rule(one.code), cells=cells or {"ascend": UNKNOWN})


def scan(*found: Judged, root: str = "tree", unused: tuple[UnusedKeep, ...] = (), **fields: Any) -> Scan:
    given: dict[str, Any] = {"unread": (), "files": 7, "lines": 900, "by_language": {"python": 900}}
    return Scan(root=root, findings=tuple(one.finding for one in found), unused_keeps=unused, **(given | fields))


def outcome(*found: Judged, known: int | None = None, **fields: Any) -> Outcome:
    targets = tuple(find(name) for name in (found[0].cells if found else {"ascend": UNKNOWN}))
    whole, ordered = scan(*found, **fields), tuple(sorted(found, key=rank))
    return Outcome(scan=whole, targets=targets, found=ordered, known=known, summary=summarised(whole, ordered, targets))
