from __future__ import annotations

import ast
import fnmatch
import functools
import re
import string
from pathlib import Path

import pytest

from sapper import errors as errors_module
from sapper import messages
from support import ROOT, called, nodes_of

SOURCES = sorted((ROOT / "src" / "sapper").rglob("*.py"))
CODE_IN_TEXT = re.compile(r"SP-[A-Z]+-\d{3}")
LABEL = re.compile(r"[a-z]+(?:[.][a-z0-9_-]+)+")
SPEAKERS = {"text", "talk", "next_step", "Phrase", "Column"}
"""Functions that take the code of a label."""
HAN = re.compile(r"[\u4e00-\u9fff]")


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@functools.cache
def strings_of(path: Path) -> list[str]:
    """String constants of a source file that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(node.body[0].value) for node in nodes_of(path) if isinstance(node, documented) and _has_docstring(node)}
    return [
        node.value for node in nodes_of(path) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


def labels_of(path: Path) -> list[str]:
    """Label codes (and beginnings of codes, with a star) that a source file gives to one of :data:`SPEAKERS` or to ``help=``."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            speaks = called(node) in SPEAKERS
            given = [*(node.args if speaks else []), *(word.value for word in node.keywords if word.arg in ("help", "label"))]
            found += [value.value for value in given if isinstance(value, ast.Constant) and LABEL.fullmatch(str(value.value))]
            starts = [value.values[0] for value in given if isinstance(value, ast.JoinedStr)]
            found += [f"{start.value}*" for start in starts if isinstance(start, ast.Constant) and "." in str(start.value)]
    return [str(value) for value in found]


def used_strings() -> set[str]:
    return {text for path in SOURCES for text in strings_of(path)}


def used_prefixes() -> set[str]:
    """Literal beginnings of f-strings, such as ``label.`` of ``f"label.{name}"``."""
    found = set()
    for path in SOURCES:
        for node in nodes_of(path):
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                found.add(str(node.values[0].value))
    return {prefix for prefix in found if re.match(r"[a-z]+\.|SP-", prefix)}


def test_every_message_is_in_both_languages_with_the_same_placeholders() -> None:
    faults = []
    for code, texts in messages.catalogue().items():
        if not {"en", "zh"} <= set(texts):
            faults.append(f"{code}: lacks en or zh")
            continue
        if ("next_en" in texts) != ("next_zh" in texts):
            faults.append(f"{code}: next step in one language only")
        if set(texts) - {"en", "zh", "next_en", "next_zh"}:
            faults.append(f"{code}: unknown keys {sorted(texts)}")
        own = placeholders(texts["en"])
        # What other libraries say is matched by its English and may lose a detail in Chinese, never gain one.
        foreign = code.startswith(("cli.click.", "files."))
        if not (placeholders(texts["zh"]) <= own if foreign else placeholders(texts["zh"]) == own):
            faults.append(f"{code}: placeholders differ: {sorted(own)} and {sorted(placeholders(texts['zh']))}")
    assert faults == []


def test_chinese_is_chinese_and_english_is_not() -> None:
    links = {"dossier.meta.other"}  # the name of the other language, in that language
    english = {code: texts["en"] + texts.get("next_en", "") for code, texts in messages.catalogue().items() if code not in links}
    faults = [code for code, text in english.items() if HAN.search(text)]
    assert faults == []
    errors = [code for code, texts in messages.catalogue().items() if code.startswith("SP-") and "{problem}" not in texts["zh"]]
    assert [code for code in errors if not HAN.search(messages.entry(code)["zh"])] == []


def test_every_code_in_the_sources_exists() -> None:
    known = messages.catalogue()
    faults = [f"{path.name}: {text}" for path in SOURCES for text in strings_of(path) if CODE_IN_TEXT.fullmatch(text) and text not in known]
    assert faults == []
    assert [f"{path.name}: {text}" for path in SOURCES for text in labels_of(path) if not fnmatch.filter(known, text)] == []


def test_every_code_of_the_catalogue_is_used() -> None:
    used, prefixes = used_strings(), used_prefixes()
    faults = []
    for code in messages.catalogue():
        if code not in used and not any(code.startswith(prefix) for prefix in prefixes):
            faults.append(code)
    templates = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.j2"))
    templates += "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.html"))
    foreign = ("cli.click.", "files.json.", "files.toml.", "files.field.")
    assert [code for code in faults if code not in templates and not code.startswith(foreign)] == []


def test_every_error_gives_all_that_its_message_speaks_of() -> None:
    """Else the user reads of a fault of ours in place of the refusal."""
    errors = {name for name, kind in vars(errors_module).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    checked, faults = 0, []
    for path in SOURCES:
        for node in nodes_of(path):
            if not isinstance(node, ast.Call) or called(node) not in errors - {"InvariantError"} or not node.args:
                continue
            given = {keyword.arg for keyword in node.keywords}
            if isinstance(node.args[0], ast.Constant) and None not in given:
                checked += 1
                lacking = fields_of(str(node.args[0].value)) - given
                faults += [f"{path.name}:{node.lineno}: {node.args[0].value} lacks {sorted(lacking)}"] if lacking else []
    assert checked > 300
    assert faults == []


def fields_of(code: str) -> set[str | None]:
    """What the texts of a code, in both languages, have places for."""
    texts = messages.entry(code).values()
    return {name.partition(".")[0] for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_error_says_what_to_do_next() -> None:
    """Codes of warnings and of rows that cannot be answered may do without."""
    errors = {name for name, kind in vars(errors_module).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    raised = set()
    for path in SOURCES:
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and node.args and called(node) in errors - {"InvariantError"}:
                raised |= {str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else set()
    assert len(raised) > 20
    assert sorted(code for code in raised if "next_en" not in messages.entry(code)) == []


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"SAPPER_LANG": "zh", "LANG": "en_US.UTF-8"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(surroundings: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAPPER_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    assert messages.language() == expected


def test_a_language_chosen_ends_with_its_block() -> None:
    with messages.using("zh"):
        assert messages.text("cli.unknown") == "未知"
    assert messages.text("cli.unknown") == "unknown"


def test_phrases_take_the_language_of_the_message_around_them() -> None:
    phrase = messages.Phrase("cli.bad_value", hint="--tp", problem=messages.Foreign("cli.click", "'x' is not a valid integer."))
    assert messages.text("SP-CLI-003", "en", problem=phrase) == "`--tp`: 'x' is not a valid integer."
    assert messages.text("SP-CLI-003", "zh", problem=phrase) == "`--tp`：'x' 不是合法的 integer。"


def test_an_unknown_sentence_of_another_library_stays_as_it_is() -> None:
    assert messages.Foreign("cli.click", "something never said before").render("zh") == "something never said before"


def test_an_unknown_code_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        messages.text("no.such.code")
