"""Comments that keep a coupling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from port_kit import finding

from sapper.port import suppress
from sapper.port.finding import UnusedKeep
from sapper.port.scan import scan
from sapper.port.source import Language, Source


def source(text: str, language: Language = "python", path: str = "train.py") -> Source:
    return Source(path=path, language=language, text=text)


def standings(text: str, *lines: int, language: Language = "python", code: str = "SP-PORT-101") -> list[str]:
    return [one.standing for one in suppress.apply(source(text, language), [finding(code, line=line) for line in lines])]


def test_a_comment_behind_code_keeps_its_line_and_no_other() -> None:
    text = "a = torch.cuda.x()  # sapper: keep SP-PORT-101 -- NVIDIA's tool\nb = torch.cuda.x()\n"
    assert standings(text, 1, 2) == ["kept", "ties"]


def test_a_comment_on_a_line_of_its_own_keeps_the_next_line_of_code() -> None:
    text = "# sapper: keep SP-PORT-101\n\n# and why\na = torch.cuda.x()\nb = torch.cuda.x()\n"
    assert standings(text, 4, 5) == ["kept", "ties"]


def test_a_file_is_kept_by_its_own_word() -> None:
    assert standings("import torch\n# sapper: keep-file SP-PORT-101\nx\ny\n", 1, 3, 4) == ["kept"] * 3


def test_only_the_codes_that_are_named_are_kept() -> None:
    text = "a = torch.cuda.x()  # sapper: keep SP-PORT-102, SP-PORT-2xx\n"
    assert standings(text, 1) == ["ties"]
    assert standings(text, 1, code="SP-PORT-102") == ["kept"]
    assert standings(text, 1, code="SP-PORT-207") == ["kept"]


def test_words_inside_a_string_keep_nothing() -> None:
    assert standings('a = torch.cuda.x("# sapper: keep SP-PORT-101")\n', 1) == ["ties"]


def test_a_file_that_python_cannot_read_is_read_by_lines() -> None:
    assert standings("print 'x', torch.cuda.x(  # sapper: keep SP-PORT-101\n'''", 1) == ["kept"]


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("cuda", "warp<<<1, 32>>>(x);  // sapper: keep SP-PORT-101"),
        ("cpp", "cudaMalloc(&p, 4); /* sapper: keep SP-PORT-101 */"),
        ("docker", "FROM nvidia/cuda  # sapper: keep SP-PORT-101"),
        ("yaml", "gpus: 1 # Sapper: keep SP-PORT-101"),
        ("config", "device = cuda ; sapper: keep SP-PORT-101"),
        ("requirements", "cupy-cuda12x  # sapper: keep sp-port-101"),
        ("cmake", "enable_language(CUDA) #sapper:keep SP-PORT-101"),
    ],
)
def test_every_language_has_its_comment(language: Language, line: str) -> None:
    assert standings(f"{line}\nnext\n", 1, 2, language=language) == ["kept", "ties"]


def test_a_directive_of_the_preprocessor_is_no_comment() -> None:
    assert standings("// sapper: keep SP-PORT-101\n#include <cuda.h>\nint x;\n", 2, 3, language="cuda") == ["kept", "ties"]


def test_what_keeps_nothing_is_said() -> None:
    text = "a  # sapper: keep SP-PORT-101, SP-PORT-102\nb  # sapper: keep\n"
    found, unused = suppress.settle(suppress.keeps(source(text)), [finding(line=1)])
    assert [one.standing for one in found] == ["kept"]
    assert unused == [UnusedKeep(path="train.py", line=1, code="SP-PORT-102"), UnusedKeep(path="train.py", line=2, code=None)]


def test_a_scan_tells_of_comments_that_keep_nothing_in_files_that_hold_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1  # sapper: keep SP-PORT-101\n", "utf-8")
    cells = [{"cell_type": "code", "source": ["y = 1\n", "z = 2"]}, {"cell_type": "code", "source": ["# one\n", "x = 1  # sapper: keep"]}]
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}), "utf-8")
    assert scan(tmp_path).unused_keeps == (
        UnusedKeep(path="a.py", line=1, code="SP-PORT-101"),
        UnusedKeep(path="b.ipynb", line=2, code=None, cell=2),
    )
