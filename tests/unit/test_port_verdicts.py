"""The verdict tables: every claim has a source or is unknown, and `verdict` finds the most particular one."""

from __future__ import annotations

import datetime
import re
from collections import Counter

import pytest

from sapper.port import target as targets
from sapper.port.coverage import coverage
from sapper.port.finding import Finding, Place
from sapper.port.rule import Class, rules
from sapper.port.verdict import UNKNOWN, Cell
from sapper.port.verdicts import Row, Scope, keys_of, silence_table, tables, verdict

ROWS = [(name, table, row) for name, table in tables().items() for row in table.cells]
URL = re.compile(r"https://[a-z0-9.-]+\.[a-z]+(/[^\s]*)?")


def finding(symbol: str, code: str = "SP-PORT-000", **values: str) -> Finding:
    return Finding(code=code, place=Place("train.py", 1, 0, 1, 1), symbol=symbol, excerpt=symbol, values=values)


def shown(symbol: str, target: str, code: str = "SP-PORT-000", **values: str) -> Cell:
    return verdict(finding(symbol, code, **values), targets.find(target))


def test_every_claim_has_a_source_that_its_file_lists() -> None:
    assert [(name, row.symbols[:1]) for name, table, row in ROWS if row.source not in table.sources] == []


def test_no_source_is_listed_in_vain() -> None:
    unused = {(name, key) for name, table in tables().items() for key in table.sources} - {(name, row.source) for name, _, row in ROWS}

    assert unused == set()


def test_sources_are_addresses_with_a_date_that_has_been() -> None:
    references = [reference for table in (*tables().values(), silence_table()) for reference in table.sources.values()]

    assert [reference.url for reference in references if not URL.fullmatch(reference.url)] == []
    for reference in references:
        assert datetime.date(2025, 1, 1) <= datetime.date.fromisoformat(reference.date) <= datetime.date.today()


def test_no_two_rows_speak_of_the_same_thing() -> None:
    spoken = Counter(key for _, table, row in ROWS for key in keys_of(row, table.targets))
    silent = Counter(key for row in silence_table().cells for key in keys_of(row, silence_table().targets))

    assert [key for counts in (spoken, silent) for key, count in counts.items() if count > 1] == []


def scopes() -> list[tuple[Scope, tuple[str, ...]]]:
    table = silence_table()
    return [(row, table.targets) for _, table, row in ROWS] + [(row, table.targets) for row in table.cells]


def test_rows_speak_of_targets_rules_and_classes_that_are() -> None:
    classes = set(Class.__args__)  # type: ignore[attr-defined]
    for scope, default in scopes():
        assert set(scope.targets or default) <= set(targets.targets())
        assert scope.targets or default, scope
        assert scope.symbols or scope.rules or scope.classes, scope
        assert set(scope.rules) <= set(rules())
        assert set(scope.classes) <= classes


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, _, row in ROWS])
def test_a_status_says_what_it_needs(name: str, row: Row) -> None:
    where = (name, row.symbols[:2], row.rules, row.classes)
    assert row.status != "unknown", where  # what is not known has no row
    assert (row.note_en is None) == (row.note_zh is None), where
    if row.status in ("library", "kernel", "rewrite"):
        assert row.equivalent, where
    if row.status == "none":
        assert not row.equivalent, where
        assert row.note_en, where


def test_an_api_is_answered_before_its_class() -> None:
    assert shown("torch.cuda.synchronize", "ascend").equivalent == "torch.npu.synchronize"
    assert shown("torch.cuda.memory.empty_cache", "mlu").equivalent == "torch.mlu.memory.empty_cache"
    assert shown("torch.cuda.is_available", "musa", "SP-PORT-101").status == "rewrite"
    assert shown("torch.cuda.is_available", "rocm", "SP-PORT-101").status == "works"


def test_a_package_is_known_by_each_of_its_names() -> None:
    expected = shown("flash-attn", "ascend")

    assert expected.status == "library"
    assert [shown(name, "ascend") for name in ("flash_attn", "flash_attn.layers.rotary.apply_rotary_emb")] == [expected] * 2
    assert shown("import flash_attn", "ascend", package="Flash_Attn") == expected
    assert shown("cupy-cuda12x", "rocm") == shown("cupy.ndarray", "rocm") != UNKNOWN


def test_what_goes_on_without_a_word_is_told_from_what_fails() -> None:
    assert shown("torch.cuda.is_available", "ascend").silence == "silent"
    assert shown("torch.cuda.synchronize", "ascend").silence == "loud"
    assert shown("torch.cuda.synchronize", "ascend").silence_source
    assert shown("torch.cuda.is_available", "rocm", "SP-PORT-101").silence is None


def test_what_nobody_read_of_is_unknown() -> None:
    assert shown("a-package-that-is-not", "gcu") == UNKNOWN


SHARE_OF_RULES = 0.70


def test_most_rules_have_a_verdict_with_a_source_on_each_target() -> None:
    total = coverage()[-1]

    assert total.share >= SHARE_OF_RULES, total.holes
    thin = {item.target: item.share for item in coverage()[:-1] if item.share < SHARE_OF_RULES}
    assert not thin
    assert total.rules == len(rules()) * len(targets.targets())
