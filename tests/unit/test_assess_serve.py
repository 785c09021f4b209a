"""The chapter on serving of an assessment: terminal, JSON and both pages."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from sapper.assess.assessment import Assessment
from sapper.assess.conclude import conclude
from sapper.cli import main

pytestmark = pytest.mark.slow

ASK = (
    "assess", "llama-3.1-8b", "--train-tokens", "1T", "--reference", "8x a100-sxm-80gb", "--on", "8x h100-sxm-80gb,enflame-s60",
    "--serve-rate", "5/s", "--serve-input", "512", "--serve-output", "64", "--serve-slo", "ttft=1s,tpot=80ms",
)  # fmt: skip


def invoke(*line: str) -> Result:
    return CliRunner(env={"SAPPER_LANG": "en"}).invoke(main.cli, list(line))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("served")
    return invoke(*ASK, "--out", str(folder)), folder


@pytest.fixture(scope="module")
def found(asked: tuple[Result, Path]) -> Assessment:
    return msgspec.json.decode((asked[1] / "assess-llama-3.1-8b.json").read_bytes(), type=Assessment)


def test_the_terminal_says_who_serves_with_the_fewest_chips(asked: tuple[Result, Path]) -> None:
    result, _ = asked
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) <= 24
    assert "Serving (5 requests/s, prompts of 512 and answers of 64 tokens" in result.stdout.replace("\n", " ")


def test_every_chip_is_answered_once_or_says_what_is_missing(found: Assessment) -> None:
    assert found.serving is not None
    options = found.serving.options
    assert [option.chip for option in options] == ["nvidia-a100-sxm-80gb", "nvidia-h100-sxm-80gb", "enflame-s60"]
    assert all(option.answer is not None and option.answer.estimate.meets for option in options[:2])
    assert options[2].answer is None and options[2].refusal_kind == "missing" and "peak_flops_per_s" in options[2].why["en"]
    assert options[2].why["zh"] != options[2].why["en"]


def test_figures_rest_on_facts_of_the_index(found: Assessment) -> None:
    assert found.serving is not None
    known = {source.number: source for source in found.evidence}
    for option in found.serving.answered:
        cited = [known[number] for number in option.evidence]
        assert any("memory bandwidth" in source.key or "bandwidth" in source.key for source in cited)
        assert any(source.key.startswith("serving ") for source in cited)


def test_the_conclusion_takes_serving_into_account(found: Assessment) -> None:
    for lang, word in (("en", "fewest chips"), ("zh", "用芯片最少")):
        said = [finding.text for finding in conclude(found, lang).findings if finding.code == "serving"]
        assert len(said) == 1 and word in said[0]


@pytest.mark.parametrize(("lang", "title"), [("en", "Serving"), ("zh", "推理服务")])
def test_both_pages_have_the_chapter(asked: tuple[Result, Path], lang: str, title: str) -> None:
    page = (asked[1] / f"assess-llama-3.1-8b.{lang}.html").read_text("utf-8")
    start = page.index('<section id="serving">')
    chapter = page[start : page.index("</section>", start)]
    assert title in chapter and "tp=1" in chapter and "ttft=1s" in chapter
    assert "t-serving" in chapter and "t-serve-costs" in chapter and "chart-frontier" in chapter and "<svg" in chapter
    for number in range(3):
        assert (f'href="#basis-serve-{number}"' in chapter) == (f'id="basis-serve-{number}"' in page)


def test_a_load_without_lengths_is_refused() -> None:
    result = invoke(*ASK[:8], "--serve-rate", "5/s")
    assert result.exit_code == 2
    assert "--serve-input" in result.stderr and "the length is not given" in result.stderr
