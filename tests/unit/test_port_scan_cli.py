"""``sapper port scan`` and ``sapper port explain`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from port_kit import finding, scan

from sapper.cli import main
from sapper.port import scan as scans
from sapper.port.finding import Scan, UnusedKeep
from support import ROOT, Run


def invoke(*line: str) -> Result:
    return CliRunner().invoke(main.cli, ["port", *line])


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree whose scan is made by hand: the rules are tested elsewhere."""
    found = [finding(line=3), finding(line=8, standing="guarded"), finding(path="tools/b.py")]

    def scanned(root: Path, **_: Any) -> Scan:
        whole = scan(root=str(root), unused=(UnusedKeep(path="a.py", line=4, code="SP-PORT-101"),))
        return Scan(**{name: getattr(whole, name) for name in whole.__struct_fields__} | {"findings": tuple(found)})

    monkeypatch.setattr(scans, "scan", scanned)
    return tmp_path


def test_findings_on_stdout_talk_on_stderr_and_exit_code_1(tree: Path) -> None:
    done = invoke("scan", str(tree), "--to", "ascend,npu,musa")
    assert done.exit_code == 1
    assert done.stdout.count("SP-PORT-101") == 3
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("ascend", "musa", "rocm"))] == ["ascend", "musa"]
    assert "files read: 7, lines: 900" in done.stderr
    assert "a.py:4: `sapper: keep SP-PORT-101` keeps nothing" in done.stderr


def test_nothing_that_ties_is_exit_code_0(tree: Path) -> None:
    assert invoke("scan", str(tree), "--standing", "guarded").exit_code == 0
    assert invoke("scan", str(tree), "--ignore", "101").exit_code == 0


def test_a_baseline_made_now_leaves_nothing(tree: Path) -> None:
    path = str(tree / "baseline.json")
    assert invoke("scan", str(tree), "--write-baseline", path, "--format", "summary").exit_code == 0
    done = invoke("scan", str(tree), "--baseline", path)
    assert done.exit_code == 0
    assert "2 findings that the baseline knows are left out" in done.stderr


def test_a_report_goes_into_a_file(tree: Path) -> None:
    for fmt in ("json", "sarif", "junit", "full", "concise", "summary"):
        done = invoke("scan", str(tree), "--format", fmt, "-o", str(tree / "out" / fmt))
        assert (done.exit_code, done.stdout) == (1, "")
    assert len(json.loads((tree / "out" / "json").read_text("utf-8"))["findings"]) == 3
    assert "-->" in (tree / "out" / "full").read_text("utf-8")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("scan", ".", "--to", "nvidia"), "SP-SCAN-001"),
        (("scan", ".", "--select", "SP-CHIP-001"), "SP-SCAN-002"),
        (("scan", ".", "--class", "devices"), "SP-SCAN-004"),
        (("scan", ".", "--baseline", "nowhere.json"), "SP-FILE-001"),
        (("scan", "nowhere"), "SP-READ-001"),
        (("explain", "SP-PORT-999"), "SP-SCAN-002"),
    ],
)
def test_a_mistake_is_told_with_the_next_step(line: tuple[str, ...], code: str) -> None:
    done = invoke(*line)
    assert done.exit_code == 2
    assert f"[{code}]" in done.stderr and "->" in done.stderr
    assert "Traceback" not in done.output


def test_a_rule_is_explained_with_every_target() -> None:
    page = invoke("explain", "sp-port-101").stdout
    assert page.startswith("# SP-PORT-101 cuda-is-available\n")
    assert all(f"`{name}`" in page for name in ("ascend", "musa", "rocm", "xpu", "gaudi", "mlu", "kunlun", "iluvatar", "gcu", "tpu"))
    assert "torch.accelerator.is_available()" in page
    assert invoke("explain", "SP-PORT-101", "--lang", "zh").stdout != page
    assert json.loads(invoke("explain", "SP-PORT-101", "--format", "json").stdout)["rule"]["code"] == "SP-PORT-101"
    assert "SP-PORT-101" in invoke("explain", "--format", "csv").stdout


def test_sapper_explain_finds_rules_too() -> None:
    explained = CliRunner().invoke(main.cli, ["explain", "SP-PORT-101"])
    assert explained.exit_code == 0 and explained.stdout == invoke("explain", "SP-PORT-101").stdout
    assert "SP-PORT-101" not in CliRunner().invoke(main.cli, ["explain"]).stdout


EXAMPLE = ROOT / "examples" / "port"


def test_the_example_of_the_documents_is_scanned_with_the_rules_that_ship() -> None:
    done = invoke("scan", str(EXAMPLE), "--format", "json", "--to", "ascend,rocm")
    found = {(one["place"]["path"], one["place"]["line"], one["code"]): one for one in json.loads(done.stdout)["findings"]}
    lines = (EXAMPLE / "train.py").read_text("utf-8").splitlines()
    asks = found["train.py", next(number for number, line in enumerate(lines, 1) if "is_available" in line), "SP-PORT-101"]
    assert asks["silent"] and asks["verdicts"]["ascend"]["silence"] == "silent" and asks["verdicts"]["rocm"]["status"] == "works"
    kept = [one for one in found.values() if one["standing"] == "kept"]
    assert [one["place"]["path"] for one in kept] == ["devices.py"]
    assert done.exit_code == 1 and "keeps nothing" not in done.stderr


def test_the_fields_of_the_json_are_those_of_its_version() -> None:
    """A field may be added; one that goes or changes needs a new version of the format."""
    whole = json.loads(invoke("scan", str(EXAMPLE), "--format", "json", "--to", "ascend").stdout)
    assert whole["version"] == 1
    assert set(whole) >= {
        "format", "version", "sapper", "root", "targets", "summary", "by_language", "findings", "unread", "unused_keeps", "known", "rules",
    }  # fmt: skip
    assert set(whole["findings"][0]) >= {
        "code", "class", "silent", "fix", "place", "symbol", "title", "excerpt", "standing", "context", "because", "values", "fingerprint",
        "verdicts",
    }  # fmt: skip
    cell = {"status", "silence", "equivalent", "note", "source", "date", "silence_source", "silence_date"}
    assert cell <= set(whole["findings"][0]["verdicts"]["ascend"])
    target = whole["summary"]["by_target"][0]
    assert {"target", "verdicts", "silent", "sourced", "effort", "with_shim"} <= set(target)
    assert set(target["effort"]["lines"]) == {"low", "mid", "high"}


def test_json_is_json_where_the_terminal_has_no_chinese(run_sapper: Run) -> None:
    done = run_sapper("port", "scan", str(EXAMPLE), "--format", "json", "--to", "ascend", "--lang", "zh", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["targets"]["ascend"]["zh"] == "\u534e\u4e3a\u6607\u817e"


def test_a_tree_of_which_nothing_could_be_read_is_no_clean_one(run_sapper: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.ipynb").write_text('{"cells": [')
    nothing = run_sapper("port", "scan", str(tmp_path))
    (tmp_path / "plain.py").write_text("x = 1\n")
    something = run_sapper("port", "scan", str(tmp_path))

    assert nothing.returncode == 2 and "none of the files could be read (1)" in nothing.stdout
    assert something.returncode == 0 and "not scanned: 1 files" in something.stdout


def test_a_tree_without_a_file_that_is_read_says_so(run_sapper: Run, tmp_path: Path) -> None:
    done = run_sapper("port", "scan", str(tmp_path))

    assert done.returncode == 0 and "nothing was scanned" in done.stdout
