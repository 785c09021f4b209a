"""The scan as JUnit XML, which CI systems show: a suite for each file, a case for each finding."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from sapper import messages
from sapper.port.finding import Scan, Unread
from sapper.port.report.judged import Judged
from sapper.port.report.text import heading, in_words, spot

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no place for."""


def junit(scan: Scan, found: Sequence[Judged]) -> str:
    """The XML in the language in force: what ties fails, what is explained is skipped, a file that was not read is an error."""
    root = ET.Element("testsuites", name="sapper port scan")
    by_path: dict[str, list[Judged]] = {}
    for one in found:
        by_path.setdefault(one.finding.place.path, []).append(one)
    suites = [(path, [_case(one) for one in by_path[path]]) for path in sorted(by_path)]
    suites += [(path, [_unread(one) for one in group]) for path, group in itertools.groupby(scan.unread, key=lambda one: one.path)]
    if not suites:
        suites = [(scan.root, [ET.Element("testcase", classname=_plain(scan.root), name="sapper port scan")])]
    for path, cases in suites:
        suite = ET.SubElement(root, "testsuite", name=_plain(path), tests=str(len(cases)))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(key, str(sum(case.find(tag) is not None for case in cases)))
        suite.extend(cases)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(one: Judged) -> ET.Element:
    place = one.finding.place
    name = f"{one.finding.code} {spot(place).removeprefix(place.path).lstrip(':')}"
    case = ET.Element("testcase", classname=_plain(place.path), name=_plain(name), line=str(place.line))
    if one.finding.standing == "ties":
        failure = ET.SubElement(case, "failure", type=one.finding.code, message=_plain(heading(one)))
        failure.text = _plain(f"{spot(place)}: {one.finding.excerpt.strip()}\n{in_words(one.cells)}")
    else:
        ET.SubElement(case, "skipped", message=_plain(f"{heading(one)} [{messages.text(f'port.standing.{one.finding.standing}')}]"))
    return case


def _unread(one: Unread) -> ET.Element:
    case = ET.Element("testcase", classname=_plain(one.path), name=one.code)
    ET.SubElement(case, "error", type=one.code, message=_plain(messages.text(one.code, **one.values)))
    return case


def _plain(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
