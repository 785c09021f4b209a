"""What the documents promise."""

from __future__ import annotations

import difflib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from sapper.cli import main
from sapper.evidence import GRADES
from support import ROOT, environment

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
OF_TORCH = re.compile(r"\bsapper (?:capture|prove|mix (?:check|profile|run))\b")
"""Commands that run PyTorch."""
TOLD_ELSEWHERE = {"docs/mix-check.md", "docs/mix-plan.md", "docs/prove-speed.md"}
"""Pages whose commands are slow and like the README's, or a test's of that command; ``make thorough`` runs them."""
FIRST_READ = ("README", "docs/index", "docs/glossary", "docs/cli", "docs/codes")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


REFRESH = script("refresh_readme")


@pytest.mark.slow
def test_the_generated_pages_are_up_to_date() -> None:
    """``make docs`` writes them."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "cli_docs.py"), "--check"], env=environment(), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("suffix", [".md", ".zh.md"])
def test_every_verb_and_every_flag_is_documented(suffix: str) -> None:
    page = (ROOT / "docs" / f"cli{suffix}").read_text("utf-8")
    sections = dict(re.findall(r"^## (sapper.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    context = click.Context(main.cli, info_name="sapper")
    stack = [((name,), main.cli.get_command(context, name)) for name in main.verbs()]
    while stack:
        path, command = stack.pop()
        assert command is not None
        section = sections[" ".join(("sapper", *path))]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(flag in section for flag in parameter.opts), (path, parameter.opts)
        stack += [((*path, name), sub) for name, sub in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    dead = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"https?:|mailto:|#", target) and not (page.parent / target.split("#")[0]).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("name", FIRST_READ)
def test_what_is_read_first_is_in_both_languages(name: str) -> None:
    english, chinese = (ROOT / f"{name}.md").read_text("utf-8"), (ROOT / f"{name}.zh.md").read_text("utf-8")
    assert re.search(r"[\u4e00-\u9fff]{4}", chinese)
    assert len(re.findall(r"^#+ ", english, re.MULTILINE)) == len(re.findall(r"^#+ ", chinese, re.MULTILINE))
    assert re.findall(r"^```(\w*)", english, re.MULTILINE) == re.findall(r"^```(\w*)", chinese, re.MULTILINE)


@pytest.mark.parametrize("suffix", [".md", ".zh.md"])
def test_the_grades_of_evidence_are_in_the_glossary(suffix: str) -> None:
    page = (ROOT / "docs" / f"glossary{suffix}").read_text("utf-8")
    assert [grade for grade in GRADES if f"`{grade}`" not in page] == []


def with_commands() -> list[Path]:
    return [page for page in PAGES if REFRESH.BLOCK.search(page.read_text("utf-8"))]


def commands_of(page: Path) -> list[str]:
    """The commands of a page, without the remarks beside them, which are in its language."""
    steps = [step for kind, body in REFRESH.BLOCK.findall(page.read_text("utf-8")) for step in REFRESH.steps_of(kind, body)]
    return [re.sub(r"\s+#.*", "", step.command) for step in steps]


def to_be_run() -> Iterator[Any]:
    """The pages with commands. A Chinese one with the commands of its English sister runs by ``make thorough`` where it shows what they
    print in Chinese, and not at all where it does not."""
    for page in with_commands():
        sister = page.with_name(page.name.replace(".zh.md", ".md"))
        repeats = sister != page and sister.exists() and commands_of(page) == commands_of(sister)
        if not repeats or "```console" in page.read_text("utf-8"):
            torch = any(map(OF_TORCH.search, commands_of(page)))
            later = repeats or str(page.relative_to(ROOT)) in TOLD_ELSEWHERE
            marks = [*([pytest.mark.thorough] if later else []), *([pytest.mark.torch] if torch else [])]
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("page", list(to_be_run()))
def test_the_commands_of_a_page_run_and_print_what_it_shows(page: Path) -> None:
    """``make docs`` puts the output of now into the transcripts."""
    text = page.read_text("utf-8")
    new, failed = REFRESH.refreshed(text, lang="zh" if page.name.endswith(".zh.md") else "en")
    assert failed == []
    changes = difflib.unified_diff(text.splitlines(), new.splitlines(), "in the page", "printed now", lineterm="", n=0)
    assert "\n".join(changes) == ""


@pytest.mark.parametrize("page", with_commands(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_targets_of_make_that_a_page_names_exist(page: Path) -> None:
    for command in commands_of(page):
        if command.startswith("make "):
            line = shlex.split(command, comments=True)
            done = subprocess.run([*line, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stderr)


def test_a_transcript_that_lies_is_found() -> None:
    text = "```console\n$ sapper --version\nsapper 99\n$ sapper nonsense\n```\n"
    new, failed = REFRESH.refreshed(text, lang="en")
    assert "sapper 99" not in new and "sapper 0." in new
    assert len(failed) == 1 and "`sapper nonsense` ended with 2" in failed[0]


def test_the_clock_of_a_transcript_may_differ_and_nothing_else() -> None:
    before = ["plan  tp=1  (12 legal plans priced in 189 ms)", "step  189 ms"]
    assert REFRESH.settled(before, ["plan  tp=1  (12 legal plans priced in 2.1 s)", "step  189 ms"]) == before
    changed = ["plan  tp=2  (12 legal plans priced in 2.1 s)", "step  190 ms"]
    assert REFRESH.settled(before, changed) == changed


def test_the_readme_tells_the_two_commands_and_shows_output_before_code() -> None:
    for name in ("README.md", "README.zh.md"):
        text = (ROOT / name).read_text("utf-8")
        kinds = re.findall(r"^```(\w+)", text, re.MULTILINE)
        assert kinds[0] == "console" and "sh" in kinds
        assert re.search(r"^make demo\b", text, re.MULTILINE) and re.search(r"^make test\b", text, re.MULTILINE)


def test_ci_runs_make_test_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert lines == ["exec make test"]
