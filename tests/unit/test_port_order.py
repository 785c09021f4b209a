"""The order in which a project's files are read, and what it must not change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from sapper.port import order, pool, python
from sapper.port.python.carrier import Carrier
from sapper.port.python.index import Export, Index, Ledger
from sapper.port.rule import rules
from sapper.port.scan import scan
from sapper.port.walk import walk
from sapper.port.work import Worker


def test_what_is_imported_is_read_before_what_imports_it() -> None:
    files = [
        ("pkg/__init__.py", ["pkg.train.*"]),
        ("pkg/train.py", ["pkg.utils.device", "os"]),
        ("pkg/utils.py", ["torch"]),
        ("tests/test_train.py", ["pkg.train.main"]),
    ]

    assert order.givers_first(files) == [2, 1, 0, 3]


def test_files_that_import_one_another_are_each_read_once() -> None:
    files = [("a.py", ["b.x"]), ("b.py", ["c.x"]), ("c.py", ["a.x"]), ("d.py", ["d.x", "a.x"])]

    assert sorted(order.givers_first(files)) == [0, 1, 2, 3]


def test_an_end_of_a_name_that_means_two_things_is_known_for_neither() -> None:
    ledger = Ledger()
    ledger.add([Export("src.pkg.utils.Stream", "torch.cuda.Stream", "src/pkg/utils.py:1")], [])
    known_first = set(ledger.index.exports)
    ledger.add(
        [Export("other.utils.Stream", "torch.cuda.Event", "other/utils.py:1")], [Carrier(name="other.utils.n", kind="count", origin="x:1")]
    )

    assert known_first == {"src.pkg.utils.Stream", "pkg.utils.Stream", "utils.Stream"}
    assert set(ledger.index.exports) == {"src.pkg.utils.Stream", "pkg.utils.Stream", "other.utils.Stream"}
    assert ledger.index.modules["utils"] == ["n"]


def test_a_file_is_asked_again_only_where_something_was_heard_of_what_it_imports() -> None:
    ledger = Ledger()
    ledger.add([Export("pkg.utils.Stream", "torch.cuda.Stream", "pkg/utils.py:1")], [])
    heard = ledger.heard
    ledger.add([], [Carrier(name="pkg.count.n", kind="count", origin="pkg/count.py:1")])

    assert ledger.tells_more(["pkg.utils.Stream"], 0)
    assert not ledger.tells_more(["pkg.utils.Stream", "pkg.other"], heard)
    assert ledger.tells_more(["pkg.count.n"], heard) and ledger.tells_more(["count.*"], heard)
    assert not ledger.tells_more(["pkg.count.n"], ledger.heard)


@pytest.mark.parametrize("meaning", ["torch.cuda.Stream", "torch.cuda.Event"])
def test_each_further_giver_of_a_name_that_means_two_things_is_heard(meaning: str) -> None:
    ledger = Ledger()
    ledger.add([Export("a.utils.S", "torch.cuda.Stream", "a/utils.py:1"), Export("b.utils.S", "torch.cuda.Event", "b/utils.py:1")], [])
    heard = ledger.heard
    ledger.add([Export("c.utils.S", meaning, "c/utils.py:1")], [])

    assert ledger.tells_more(["utils.S"], heard) and ledger.tells_more(["utils.*"], heard)
    assert "utils.S" not in ledger.index and "utils" not in ledger.index.modules


def test_a_name_that_comes_through_many_files_is_found_whatever_their_order_and_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_PART_BYTES", 1)  # each file is given out by itself,
    monkeypatch.setattr(pool, "_AHEAD", 0)  # the last ones when the first are back
    (tmp_path / "f0.py").write_text("import torch\nn = torch.cuda.device_count()\n", encoding="utf-8")
    for number in range(1, 6):
        (tmp_path / f"f{number}.py").write_text(f"from f{number - 1} import n\n", encoding="utf-8")
    (tmp_path / "a_user.py").write_text("from f5 import n\nfor rank in range(n):\n    print(rank)\n", encoding="utf-8")

    alone, together = scan(tmp_path, jobs=1), scan(tmp_path, jobs=2)

    assert alone == together
    assert [(one.place.path, one.place.line, one.because) for one in alone.findings if one.place.path == "a_user.py"] == [
        ("a_user.py", 2, "f0.py:2")
    ]


def test_a_name_that_means_two_things_is_known_to_no_process_that_reads_a_third_giver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_PART_BYTES", 3 * 2048)  # three files are given out together,
    monkeypatch.setattr(pool, "_AHEAD", 0)  # the last ones when the first are back
    files = {"a1/utils.py": "from torch.cuda import Stream as S\n", "a2/utils.py": "from torch.cuda import Event as S\n"}
    files |= {f"m/p{number}.py": "import os\n" for number in range(7)}
    files |= {"z/utils.py": "from torch.cuda import Stream as S\n"}
    files |= {"zz/star.py": "from utils import *\nx = S()\n", "zz/user.py": "from utils import S\nx = S()\n"}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    alone, together = scan(tmp_path, jobs=1), scan(tmp_path, jobs=2)

    assert {one.place.path for one in alone.findings} == {"a1/utils.py", "a2/utils.py", "z/utils.py"}
    assert alone == together


def test_a_file_is_given_a_name_of_a_module_where_it_says_that_name_and_no_longer_one() -> None:
    known = python.index([python.Analysis(path="a.py", exports=(Export("pkg.te", "torch.cuda", "a.py:1"),))])

    taken = {text: python.given_to(text.encode(), ["pkg"], known) for text in ("pkg.tensor", "pkg.te.x", "pkg.tensor; pkg.te", "pkg.te_x")}

    assert {text for text, given in taken.items() if given} == {"pkg.te.x", "pkg.tensor; pkg.te"}


class Here:
    """An executor that runs each task at once, and keeps what was told with it."""

    def __init__(self) -> None:
        self.told: list[tuple[Index, Index]] = []
        """What a process was told, and a copy from when it was."""

    def submit(self, run: Callable[..., list[Any]], task: pool.Task, items: Sequence[Any], known: Index) -> Future[list[Any]]:
        self.told.append((known, copy.deepcopy(known)))
        future: Future[list[Any]] = Future()
        future.set_result(run(task, items, known))
        return future


def test_what_a_process_is_told_is_not_changed_by_what_is_heard_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PART_BYTES", 1)
    monkeypatch.setattr(pool, "_worker", Worker(rules()))
    for name in "abcdef":
        (tmp_path / f"{name}.py").write_text(f"from torch.cuda import Stream as {name.upper()}\n", encoding="utf-8")
    executor = Here()
    crew = pool.Crew(Worker(rules()), cast(ProcessPoolExecutor, executor), 1)

    crew.first(walk(tmp_path).files)

    assert crew.ledger.index.exports and len(executor.told) > 6
    assert all(known == then for known, then in executor.told)
