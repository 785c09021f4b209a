"""``sapper prove report``: what a reader learns first, in both languages, and what CI gets."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import proof_kit
import pytest

from sapper import messages
from sapper.dossier.proof.families import FAMILIES, REST, family_of, key
from sapper.dossier.proof.junit import junit
from sapper.dossier.proof.page import lead, page
from sapper.dossier.proof.summary import Report, summarised
from sapper.prove.results import PARTS, Results, read
from support import Run, environment

HAN = re.compile(r"[\u4e00-\u9fff]")


class Reader(html.parser.HTMLParser):
    """Text of a page and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.hrefs: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                (self.hrefs if value.startswith("#") else self.outside).append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def reading(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Report]:
    results = read(proof_kit.write(tmp_path_factory.mktemp("sick"), sick=True))
    return results, summarised(results)


def test_a_sick_device_is_red_and_the_guilty_op_of_the_model_comes_first(sick: tuple[Results, Report]) -> None:
    report = sick[1]

    assert report.verdict == "red" and report.blame == "kernel"
    assert report.guilty is not None and (report.guilty.op, report.guilty.part) == ("aten::gelu", "model")
    assert report.guilty.repro == "repros/gelu.py"
    assert [one.code for one in report.guilty.evidence] == ["prove.ruling.kernel", "prove.evidence.decomposed"]
    by_part = {part: [one.op for one in report.found if one.part == part] for part in ("ops", "train", "change", "speed", "doctor")}
    assert by_part == {
        "ops": ["cumprod", "nn.functional.gelu"], "train": ["grad blocks.0.up.weight"], "speed": ["aten::gelu"],
        "change": ["length:17"], "doctor": ["matmul"],
    }  # fmt: skip


def test_the_verdict_names_the_parts_that_have_findings_and_no_others(tmp_path: Path) -> None:
    proof_kit.write(tmp_path, sick=False)
    proof_kit.write(tmp_path, sick=True, parts=("train", "change"))

    assert re.search(r"Findings: \d+, in training, changes;", lead(summarised(read(tmp_path)), "en"))


def test_a_healthy_device_is_green_with_its_gaps(tmp_path: Path) -> None:
    report = summarised(read(proof_kit.write(tmp_path, sick=False)))

    assert (report.verdict, report.found, report.guilty) == ("green", (), None)
    gaps = [gap.text("en") for gap in report.not_covered]
    assert any("1 more edits" in gap for gap in gaps)
    assert any("svd_lowrank" in gap for gap in gaps)
    assert all(check.type == "pass" or check.value is not None for check in report.checks)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_makes_a_report(tmp_path: Path, part: str) -> None:
    results = read(proof_kit.write(tmp_path, sick=True, parts=(part,)))
    report = summarised(results)

    assert report.verdict == "red" and results.ran == (part,)
    assert len([gap for gap in report.not_covered if gap.code.startswith("proof.gap.absent")]) == 5
    for lang in messages.LANGUAGES:
        assert not reading(page(results, report, lang)).open


def test_no_evidence_of_execution_is_not_green(tmp_path: Path) -> None:
    proof_kit.write(tmp_path, sick=False, parts=("model",))
    path = tmp_path / "model.json"
    path.write_text(path.read_text("utf-8").replace('"where":"papertiger:0",', ""), "utf-8")

    assert summarised(read(tmp_path)).verdict == "unproven"


def test_what_the_counter_runs_excuse_is_told_and_accuses_nobody(tmp_path: Path) -> None:
    proof_kit.write(tmp_path, sick=True, parts=("model",))
    path = tmp_path / "model.json"
    text = path.read_text("utf-8").replace('"outcome":"wrong","blame":"kernel","findings"', '"outcome":"legal","blame":"model","findings"')
    path.write_text(text.replace('"blame":"kernel"', '"blame":"model"'), "utf-8")

    report = summarised(read(tmp_path))

    assert report.verdict == "green" and report.guilty is None and report.blame is None
    assert [(one.op, one.blame) for one in report.found] == [("aten::gelu", "model")]
    assert ET.fromstring(junit(report, "en")).findall(".//failure") == []


def test_a_damaged_part_is_said_first_and_costs_no_other(tmp_path: Path) -> None:
    proof_kit.write(tmp_path, sick=False)
    (tmp_path / "model.json").write_text('{"target": 7}', "utf-8")

    report = summarised(read(tmp_path))

    assert report.not_covered[0].code == "proof.gap.unreadable" and "model.json" in report.not_covered[0].text("en")
    assert "ops" in report.ran and "model" not in report.ran


@pytest.mark.parametrize("lang", messages.LANGUAGES)
def test_the_page_stands_alone_and_leads_with_verdict_blame_and_gaps(sick: tuple[Results, Report], lang: str) -> None:
    text = page(*sick, lang, other="other.html")
    reader = reading(text)
    said = " ".join(reader.text)

    assert not reader.open
    assert reader.outside == ["other.html"] and "<script" not in text and "@import" not in text
    assert [href for href in reader.hrefs if href[1:] not in reader.ids] == []
    assert len(reader.ids) == len(set(reader.ids))
    codes = ("proof.verdict.red", "prove.blame.kernel", "proof.sub.not_covered", "proof.sub.pass_type")
    order = [said.index(messages.text(code, lang)) for code in codes]
    assert order == sorted(order)
    assert bool(HAN.search(said.replace("中文版", ""))) == (lang == "zh")
    assert "&lt;&amp;&gt;" in text, "the script's text is shown as it is"
    for chart in ("chart-layers", "chart-loss", "chart-speed-roofline"):
        assert chart in reader.ids


def test_the_page_is_the_same_each_time(sick: tuple[Results, Report]) -> None:
    assert page(*sick, "en") == page(*sick, "en")


def test_junit_has_a_failure_for_each_item_that_fails_and_each_finding(sick: tuple[Results, Report]) -> None:
    report = sick[1]
    root = ET.fromstring(junit(report, "en"))

    failures = root.findall(".//failure")
    assert len(failures) == sum(check.answer == "fail" for check in report.checks) + len(report.found)
    assert int(root.get("failures", "0")) == len(failures) and int(root.get("tests", "0")) == len(root.findall(".//testcase"))
    names = {suite.get("name"): suite for suite in root}
    assert len(names["prove.change"].findall("testcase/failure")) == 3


def test_a_part_that_nobody_ran_is_a_skipped_case(tmp_path: Path) -> None:
    root = ET.fromstring(junit(summarised(read(proof_kit.write(tmp_path, sick=False, parts=("model",)))), "en"))

    (case,) = next(suite for suite in root if suite.get("name") == "prove.train").findall("testcase")
    assert case.find("skipped") is not None


def test_words_of_a_stack_that_xml_cannot_hold(tmp_path: Path) -> None:
    proof_kit.write(tmp_path, sick=True, parts=("ops",))
    path = tmp_path / "ops.jsonl"
    path.write_text(path.read_text("utf-8").replace("SIGSEGV", "\\u0000\\u001b[31mSIGSEGV <boom>"), "utf-8")

    ET.fromstring(junit(summarised(read(tmp_path)), "en"))


@pytest.mark.slow
def test_the_command_writes_both_pages_and_leaves_with_the_verdict(run_sapper: Run, tmp_path: Path) -> None:
    proof_kit.write(tmp_path / "proof", sick=True)
    proof_kit.write(tmp_path / "well", sick=False)

    red = run_sapper("prove", "report", "--junit", "proof.xml")
    green = run_sapper("prove", "report", "well", "--json", "--no-page")

    assert red.returncode == 1, red.stderr
    assert red.stdout.splitlines()[1].startswith("Red.") and "the chip's kernel" in red.stdout.splitlines()[1]
    assert (tmp_path / "proof" / "proof.html").exists() and (tmp_path / "proof" / "proof.zh.html").exists()
    ET.parse(tmp_path / "proof.xml")
    assert green.returncode == 0, green.stderr
    found = json.loads(green.stdout)
    assert found["verdict"] == "green" and all(gap["text"] for gap in found["not_covered"])


def test_a_folder_is_read_without_pytorch() -> None:
    line = "import sys; sys.modules['torch'] = None; import sapper.dossier.proof.write, sapper.dossier.proof.tiles, sapper.prove.results"

    done = subprocess.run([sys.executable, "-c", line], env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_folder_without_results_is_refused(run_sapper: Run, tmp_path: Path) -> None:
    done = run_sapper("prove", "report", str(tmp_path))

    assert done.returncode == 2 and "SP-REPORT-001" in done.stderr


@pytest.mark.parametrize(
    ("op", "family"),
    [
        ("aten::addmm", "matrix"), ("aten::mm#12ab", "matrix"), ("nn.functional.layer_norm", "normalisation"),
        ("linalg.svd", "linear algebra"),
        ("aten::_softmax", "activation"), ("nn.functional.scaled_dot_product_attention", "attention"), ("sum", "reduction"),
        ("aten::convolution_backward", "convolution"), ("add", REST), ("aten::add.Tensor", REST), ("fft.rfft", "Fourier"),
        ("index_add", "index and sort"), ("nn.functional.cross_entropy", "loss"), ("transpose", "shape and copy"),
        ("zeros_like", "creation"),
    ],
)  # fmt: skip
def test_families_of_ops(op: str, family: str) -> None:
    assert family_of(op) == family


def test_every_family_has_a_name_in_both_languages() -> None:
    assert [name for name in (*FAMILIES, REST) if not messages.known(f"proof.family.{key(name)}")] == []
