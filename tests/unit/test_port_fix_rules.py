"""Every rule's example is rewritten into what its file says, and the grade is the one that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sapper.port.fix.plan import plan
from sapper.port.rule import Example, Rule, rules

EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.code}-{number}")
    for rule in rules().values()
    for number, example in enumerate(rule.examples)
    if example.path.endswith(".py")
]


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_an_example_becomes_what_its_rule_says(rule: Rule, example: Example, tmp_path: Path) -> None:
    target = tmp_path / example.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(example.before.encode())
    made = plan(tmp_path, style="accelerator", grade="unsafe" if rule.fix == "unsafe" else "safe")
    by_rule = [line.grade for line in made.done if line.code == rule.code]
    if example.after is not None:
        assert made.contents[example.path].decode() == example.after
    assert by_rule == [] or (example.after is not None and rule.fix in by_rule)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.code) for rule in rules().values() if rule.fix in ("safe", "unsafe")])
def test_a_rule_with_a_rewrite_shows_it(rule: Rule) -> None:
    assert any(example.after is not None for example in rule.examples)
