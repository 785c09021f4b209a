"""Reports of a scan: for a reader, for programs, in both languages."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from port_kit import LOUD, SHIM, finding, judged, outcome, rule

from sapper import messages
from sapper.cli import _scan_show
from sapper.port.finding import Unread, UnusedKeep
from sapper.port.report import outcome as reports
from sapper.port.report.judged import Choice, rank
from sapper.port.report.rulepage import title
from sapper.port.report.text import concise, full
from sapper.port.rule import rules
from sapper.port.verdict import UNKNOWN, Cell

SLOWER = Cell(status="works", silence="slower", source="https://example.org/slow", date="2026-11-26")


def several() -> reports.Outcome:
    return outcome(
        judged(finding(line=9, symbol="torch.cuda.synchronize"), ascend=LOUD, musa=LOUD),
        judged(finding(line=5), ascend=SHIM, musa=UNKNOWN),
        judged(finding(line=2, standing="guarded"), ascend=SHIM, musa=LOUD),
        judged(finding("SP-PORT-601", path="requirements.txt", symbol="flash-attn", excerpt="flash-attn", line=1, column=0),
               of=rule("SP-PORT-601", klass="library"), ascend=SLOWER, musa=LOUD),
        unused=(UnusedKeep(path="a.py", line=1, code="SP-PORT-101"),),
        unread=(Unread(path="b.json", code="SP-FILE-008", line=4),),
    )  # fmt: skip


def test_silent_couplings_come_first_and_what_is_explained_last() -> None:
    ordered = [(one.quiet, one.finding.standing) for one in several().found]
    assert ordered == [("silent", "ties"), ("slower", "ties"), (None, "ties"), ("silent", "guarded")]


def test_where_no_source_tells_of_a_target_the_rule_says_whether_it_is_silent() -> None:
    assert judged(of=rule(silent=True)).quiet == "silent"
    assert judged(of=rule(silent=False)).quiet is None
    assert judged(of=rule(silent=True), ascend=LOUD).quiet is None


def test_a_line_for_editors() -> None:
    assert concise(judged(ascend=SHIM)) == "train.py:3:5: SP-PORT-101 `torch.cuda.is_available` asks for NVIDIA [silent]"
    assert concise(judged(finding(standing="vendor", cell=2))).startswith("train.py:cell 2:3:5: SP-PORT-101")
    assert concise(judged(finding(standing="vendor"))).endswith("[vendor]")


def test_the_caret_stands_under_the_span() -> None:
    lines = full(judged(finding(because="helpers.py:7"), ascend=SHIM, musa=LOUD, xpu=LOUD)).split("\n")
    assert lines == [
        "SP-PORT-101 `torch.cuda.is_available` asks for NVIDIA",
        " --> train.py:3:5",
        "  |",
        "3 | if (torch.cuda.is_available()):",
        "  |     ^^^^^^^^^^^^^^^^^^^^^^^",
        "  |",
        "  = class: device; silent; ties; in code",
        "  = because of helpers.py:7",
        "  = ascend: shim (silent): by name <https://example.org/shim, 2026-11-26>",
        "  = musa, xpu: rewrite (loud): torch.accelerator <https://example.org/rewrite, 2026-11-26>",
        "help: `sapper port fix` rewrites it",
    ]


@pytest.mark.parametrize(
    ("excerpt", "column", "shown", "caret"),
    [
        ("\tx = dev", 5, "    x = dev", "        ^^^"),
        ("x = '\u4e2d\u6587'; dev", 10, "x = '\u4e2d\u6587'; dev", "            ^^^"),
        ("bad\x1b[31m dev", 9, "bad\\x1b[31m dev", "            ^^^"),
    ],
)
def test_the_caret_stands_right_on_a_terminal(excerpt: str, column: int, shown: str, caret: str) -> None:
    lines = full(judged(finding(excerpt=excerpt, column=column, symbol="dev"))).split("\n")
    assert (lines[3], lines[4]) == (f"3 | {shown}", f"  | {caret}")


def test_names_from_files_cannot_write_on_the_terminal() -> None:
    shown = concise(judged(finding(path="a\x1b[2J.py", symbol="x\x07\ny")))
    assert shown.isprintable()


def test_everything_is_said_in_both_languages() -> None:
    with messages.using("zh"):
        assert concise(judged(ascend=SHIM)) == "train.py:3:5: SP-PORT-101 `torch.cuda.is_available` \u53ea\u95ee NVIDIA [\u9759\u9ed8]"
        assert "\u6309\u540d\u79f0" in full(judged(ascend=SHIM))


def test_the_tables_count_what_ties_by_target(capsys: pytest.CaptureFixture[str]) -> None:
    _scan_show.show(several(), "summary", limit=None)
    printed = capsys.readouterr().out.split("\n")
    assert printed[0] == "couplings: 3 (silent: 2), files: 2; guarded, a vendor's own, or kept: 1"
    rows = {line.split()[0]: line.split()[1:] for line in printed if line.startswith(("ascend", "musa", "device", "library"))}
    assert rows["ascend"][:8] == ["1", "1", "1", "0", "0", "0", "0", "2"]  # works, shim, rewrite, library, kernel, no way, unknown, silent
    assert rows["musa"][:8] == ["0", "0", "2", "0", "0", "0", "1", "0"]
    assert rows["device"] == ["2", "1", "0", "0", "1", "1"]
    assert rows["library"] == ["1", "0", "0", "0", "1", "1"]


def test_a_limit_says_how_many_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    _scan_show.show(several(), "concise", limit=1)
    printed = capsys.readouterr().out
    assert printed.count("SP-PORT-") == 1 and "3 more findings" in printed


def test_json_has_each_finding_with_its_verdicts() -> None:
    found = json.loads(reports.as_json(several()))
    assert (found["format"], found["version"]) == ("sapper-port-scan", 1)
    first = found["findings"][0]
    assert first["place"] == {"path": "train.py", "line": 5, "column": 4, "end_line": 5, "end_column": 27, "cell": None}
    assert first["verdicts"]["ascend"] == {**first["verdicts"]["ascend"], "status": "shim", "silence": "silent", "source": SHIM.source}
    assert first["verdicts"]["musa"]["status"] == "unknown"
    assert (first["class"], first["silent"], first["fix"]) == ("device", True, "safe")
    assert found["unread"][0]["path"] == "b.json" and found["unused_keeps"][0]["path"] == "a.py"
    assert found["summary"]["by_target"][0]["verdicts"]["shim"] == 1
    assert set(found["rules"]) == {"SP-PORT-101", "SP-PORT-601"}


def log(result: reports.Outcome) -> Any:
    return json.loads(reports.as_sarif(result))


def test_a_name_of_any_length_leaves_a_title_that_is_read() -> None:
    own = rules()["SP-PORT-917"]
    assert len(title(own, "en", of="cuda" + "_" * 10_000)) < 200 and "cuda_ok" in title(own, "en", of="cuda_ok")


def test_sarif_has_what_the_standard_asks_for() -> None:
    whole = log(several())
    assert whole["version"] == "2.1.0" and "sarif-schema-2.1.0.json" in whole["$schema"]
    (run,) = whole["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [one["id"] for one in rules] == ["SP-PORT-101", "SP-PORT-601"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert (result["kind"] == "fail") == (result["level"] != "none")
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
    assert [one["level"] for one in run["results"]] == ["error", "error", "warning", "none"]
    region = run["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 5, "startColumn": 5, "endLine": 5, "endColumn": 28}
    assert run["invocations"][0]["toolExecutionNotifications"][0]["descriptor"]["id"] == "SP-FILE-008"
    assert all(base["uri"].endswith("/") for base in run["originalUriBaseIds"].values())


def test_sarif_tells_what_is_kept_known_and_elsewhere() -> None:
    kept = log(outcome(judged(finding(standing="kept", because="a b.py:7")), known=3))["runs"][0]["results"][0]
    assert kept["suppressions"] == [{"kind": "inSource"}]
    assert kept["baselineState"] == "new"
    assert kept["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.py"
    assert "region" not in log(outcome(judged(finding(cell=3))))["runs"][0]["results"][0]["locations"][0]["physicalLocation"]


def test_junit_fails_what_ties_and_skips_what_is_explained() -> None:
    root = ET.fromstring(reports.as_junit(several()))
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "3", "errors": "1", "skipped": "1",
    }  # fmt: skip
    assert [suite.get("name") for suite in root] == ["requirements.txt", "train.py", "b.json"]
    assert len(ET.fromstring(reports.as_junit(outcome()))) == 1


def test_junit_takes_several_findings_of_one_line() -> None:
    same = [judged(finding(code)) for code in ("SP-PORT-101", "SP-PORT-102")]
    assert ET.fromstring(reports.as_junit(outcome(*same))).get("tests") == "2"


def test_junit_holds_no_character_that_xml_forbids() -> None:
    assert ET.fromstring(reports.as_junit(outcome(judged(finding(path="a\x00.py", symbol="\ud800", excerpt="\x01")))))


def test_the_choice_by_code_class_and_standing() -> None:
    one, other = finding(), finding("SP-PORT-601", standing="guarded")
    device, library = rule(), rule("SP-PORT-601", klass="library")

    def wants(**fields: tuple[str, ...]) -> tuple[bool, bool]:
        choice = Choice(**fields)
        return choice.wants(one, device), choice.wants(other, library)

    assert wants() == (True, True)
    assert wants(select=("SP-PORT-1",)) == (True, False)
    assert wants(ignore=("SP-PORT-101",)) == (False, True)
    assert wants(classes=("library",)) == (False, True)
    assert wants(standings=("ties", "vendor")) == (True, False)


def test_the_order_is_the_same_whatever_the_order_of_files() -> None:
    found = several().found
    assert sorted([*found[2:], *found[:2]], key=rank) == list(found)
