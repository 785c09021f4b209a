from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest

from sapper.port import rule
from sapper.port.rule import Rule
from sapper.port.scan import scan

EXAMPLES = [
    pytest.param(code, index, id=f"{code}-{index}")
    for code, found in rule.rules().items()
    for index in range(len(found.examples))
]


def rule_of(code: str) -> Rule:
    return rule.rules()[code]


@pytest.mark.parametrize(("code", "index"), EXAMPLES)
def test_the_example_of_a_rule_gives_its_finding(code: str, index: int, tmp_path: Path) -> None:
    example = rule_of(code).examples[index]
    path = tmp_path / example.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example.before, "utf-8")

    found = scan(tmp_path, jobs=1)

    assert found.unread == ()
    assert code in {finding.code for finding in found.findings}


@pytest.mark.parametrize("code", rule.rules())
def test_a_rule_has_an_example_and_says_itself_in_both_languages(code: str) -> None:
    found = rule_of(code)

    assert found.examples
    assert all(words.title.strip() and words.what.strip() and words.why.strip() for words in (found.en, found.zh))
    assert (found.en.safety is None) == (found.zh.safety is None)
    assert (found.en.limits is None) == (found.zh.limits is None)


def test_no_name_belongs_to_two_rules() -> None:
    seen: dict[str, str] = {}
    twice = []
    for code, found in rule.rules().items():
        for name in (*found.match.names, *found.match.imports) if "python" in found.match.languages else ():
            if seen.setdefault(name, code) != code:
                twice.append((name, seen[name], code))
    assert twice == []


def test_a_package_that_pypi_does_not_have_names_the_repository_that_it_comes_from() -> None:
    path = Path(rule.__file__).parent / "data" / "distributions.toml"
    table = tomllib.loads(path.read_text("utf-8"))
    packages = {name for found in rule.rules().values() for name in found.match.packages}

    assert set(table["repositories"]) <= packages
    assert all(url.startswith("https://github.com/") for url in table["repositories"].values())
    assert date.fromisoformat(table["pypi"]) <= date.fromisoformat(table["date"])
