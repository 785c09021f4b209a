"""What a project knows of is not said again."""

from __future__ import annotations

from pathlib import Path

import pytest
from port_kit import finding

from sapper.errors import BadFile
from sapper.port import baseline


def test_lines_may_move_and_be_indented() -> None:
    before = baseline.made([finding(line=3), finding(line=9, symbol="torch.cuda.synchronize", excerpt="torch.cuda.synchronize()")])
    moved = [finding(line=300, column=8, excerpt="        if (torch.cuda.is_available()):")]
    new, known, gone = baseline.split(moved, before)
    assert (new, known, gone) == ([], moved, 1)


def test_one_more_of_the_same_is_new() -> None:
    before = baseline.made([finding(line=3)])
    first, second = finding(line=5), finding(line=80)
    assert baseline.split([first, second], before) == ([second], [first], 0)


def test_another_file_symbol_or_code_is_new() -> None:
    before = baseline.made([finding()])
    others = [finding(path="other.py"), finding(symbol="torch.cuda.device_count"), finding("SP-PORT-102"), finding(excerpt="x")]
    assert baseline.split(others, before) == (others, [], 1)


def test_what_does_not_tie_is_neither_kept_in_the_file_nor_hidden_by_it() -> None:
    guarded = finding(standing="guarded")
    assert baseline.made([guarded]).known == ()
    assert baseline.split([guarded], baseline.made([finding()]))[0] == [guarded]


def test_the_file_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    written = baseline.write(path, [finding(line=3), finding(line=4), finding(path="a.py")])
    assert baseline.read(path) == written
    assert [(one.path, one.count) for one in written.known] == [("a.py", 1), ("train.py", 2)]


@pytest.mark.parametrize("text", ['{"format": "other"}', "[]", '{"format": "sapper-port-baseline", "version": 9, "known": []}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text, "utf-8")
    with pytest.raises(BadFile, match="SP-SCAN-003"):
        baseline.read(path)
