"""Patterns that meet any text: none takes more steps than the text's length allows, whatever the text.

Steps are not counted; the shapes that multiply them are looked for. A search by a pattern that begins with an unbounded
repeat begins anew at each character of a long run, which is quadratic; an unbounded repeat within another is exponential at
worst.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import sapper.port
from sapper.port.rule import rules

_SEARCHES = ("search", "finditer", "findall", "sub", "subn", "split")
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
_LOOKS = (codes.AT, codes.ASSERT, codes.ASSERT_NOT)


def inner(operator: Any, value: Any) -> Iterator[Any]:
    """Patterns within an item of a pattern."""
    if operator in _REPEATS:
        yield value[2]
    elif operator is codes.SUBPATTERN:
        yield value[3]
    elif operator is codes.BRANCH:
        yield from value[1]
    elif operator in (codes.ASSERT, codes.ASSERT_NOT):
        yield value[1]


def unbounded(operator: Any, value: Any) -> bool:
    return operator in _REPEATS and value[1] == codes.MAXREPEAT


def begins_unbounded(pattern: Any, *, followed: bool = False) -> bool:
    """Whether a match may begin with an unbounded repeat that more follows, and nothing before it that only few places have."""
    for at, (operator, value) in enumerate(pattern):
        more = followed or at + 1 < len(pattern)
        if operator in _LOOKS:
            return False
        if (unbounded(operator, value) and more) or any(begins_unbounded(one, followed=more) for one in inner(operator, value)):
            return True
        if not (operator in _REPEATS and value[0] == 0):
            return False
    return False


def nests(pattern: Any, *, within: bool = False) -> bool:
    """Whether an unbounded repeat stands within another."""
    for operator, value in pattern:
        repeated = unbounded(operator, value)
        if (repeated and within) or any(nests(one, within=within or repeated) for one in inner(operator, value)):
            return True
    return False


SHAPES = {"a*b": True, r"\ba*b": False, "(?:x|a+)b": True, "ca*b": False, "x?a*b": True, "a+": False}


@pytest.mark.parametrize(("pattern", "slow"), SHAPES.items())
def test_a_search_that_begins_anew_everywhere_is_known(pattern: str, slow: bool) -> None:
    assert begins_unbounded(parser.parse(pattern)) is slow
    assert nests(parser.parse(f"(?:{pattern})+")) and not nests(parser.parse("(?:ab)+c*"))


@pytest.mark.parametrize("code", rules())
def test_patterns_of_rules_take_no_more_steps_than_their_text_allows(code: str) -> None:
    match = rules()[code].match
    assert [one for one in match.patterns if begins_unbounded(parser.parse(one))] == []
    assert [one for one in (*match.patterns, *match.strings) if nests(parser.parse(one))] == []


@functools.cache
def searched() -> dict[str, re.Pattern[Any]]:
    """Patterns of modules that search with them in the same file, by place."""
    found = {}
    for path in sorted(Path(sapper.port.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        calls = {
            node.func.value.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SEARCHES
            and isinstance(node.func.value, ast.Name)
        }  # fmt: skip
        place = path.relative_to(Path(sapper.port.__file__).parent)
        module = importlib.import_module(".".join(("sapper.port", *place.with_suffix("").parts)).removesuffix(".__init__"))
        found |= {f"{place}:{name}": one for name in calls if isinstance(one := vars(module).get(name), re.Pattern) and _made(tree, name)}
    return found


def _made(tree: ast.Module, name: str) -> bool:
    """Whether the module itself makes what it calls by that name."""
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def test_searches_of_modules_take_no_more_steps_than_their_text_allows() -> None:
    assert len(searched()) > 20
    slow = {name for name, pattern in searched().items() if begins_unbounded(parser.parse(pattern.pattern, pattern.flags))}
    assert slow <= BOUNDED
    assert {name for name, pattern in searched().items() if nests(parser.parse(pattern.pattern, pattern.flags))} <= SEPARATED


BOUNDED = {"native/detectors.py:_NAME", "fix/rewrite/vendors.py:_WORD", "python/words.py:_WORD", "python/implementation.py:_PART"}
"""The first is given a bounded part of the text; of a run that the others refuse, they take all but a character."""
SEPARATED = {"native/detectors.py:_ASM", "native/detectors.py:_MNEMONIC", "native/lexer.py:_PIECE", "python/tolerant.py:_CHAIN"}
"""Each round of the outer repeat begins with what the inner one cannot take, so that a text is divided in one way."""
