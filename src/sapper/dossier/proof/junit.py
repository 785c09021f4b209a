"""The report as JUnit XML, which CI systems show: a suite for each part, a case for each item and each finding."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from sapper import messages
from sapper.dossier.proof.summary import Check, Found, Report
from sapper.dossier.proof.tables import why_of
from sapper.dossier.proof.wording import limit_of, value_of
from sapper.prove.results import PARTS, Part
from sapper.prove.words import blame, outcome

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no place for; a stack's words may hold them."""


def junit(report: Report, lang: str) -> str:
    """The XML; a part that nobody ran is a skipped case."""
    root = ET.Element("testsuites", name="sapper prove")
    for part in PARTS:
        cases = [_item(check, lang) for check in report.checks if check.part == part]
        cases += [_finding(found, lang) for found in report.found if found.part == part]
        root.append(_suite(part, cases or [_not_run(part, lang)], report))
    for key in ("tests", "failures", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(part: Part, cases: list[ET.Element], report: Report) -> ET.Element:
    suite = ET.Element("testsuite", name=f"prove.{part}", tests=str(len(cases)), errors="0")
    for key, tag in (("failures", "failure"), ("skipped", "skipped")):
        suite.set(key, str(sum(case.find(tag) is not None for case in cases)))
    subject = next((one for one in report.subjects if one.part == part), None)
    if subject is not None:
        properties = ET.SubElement(suite, "properties")
        for name, value in (("backend", subject.backend), ("target", subject.target), ("dtype", subject.dtype), *subject.versions.items()):
            if value:
                ET.SubElement(properties, "property", name=name, value=_plain(value))
    suite.extend(cases)
    return suite


def _item(check: Check, lang: str) -> ET.Element:
    case = ET.Element("testcase", classname=f"prove.{check.part}.{check.type}", name=check.name)
    text = messages.text(f"proof.check.{check.part}.{check.name}", lang)
    figure = f"{value_of(check, lang)} {limit_of(check, lang)}".strip() if check.type == "quantified" else ""
    if check.answer == "fail":
        ET.SubElement(case, "failure", type=check.type, message=_plain(f"{text} {figure}".strip()))
    elif check.answer == "unknown":
        ET.SubElement(case, "skipped", message=_plain(text))
    if figure:
        ET.SubElement(case, "system-out").text = _plain(f"{text}: {figure}")
    return case


def _finding(found: Found, lang: str) -> ET.Element:
    case = ET.Element("testcase", classname=f"prove.{found.part}.finding", name=_plain(f"{found.op} {found.where}".strip()))
    who = f" [{blame(found.blame, lang)}]" if found.blame else ""
    message = _plain(f"{outcome(found.outcome, lang)}{who}: {why_of(found, lang)}")
    detail = ET.SubElement(case, "system-out") if found.excused else ET.SubElement(case, "failure", type=found.outcome, message=message)
    detail.text = _plain("\n".join(filter(None, (*(one.text(lang) for one in found.evidence), found.said, found.repro))))
    return case


def _not_run(part: Part, lang: str) -> ET.Element:
    case = ET.Element("testcase", classname=f"prove.{part}", name=part)
    ET.SubElement(case, "skipped", message=_plain(messages.text(f"proof.gap.absent.{part}", lang)))
    return case


def _plain(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
